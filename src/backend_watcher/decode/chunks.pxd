# The C types of chunks.py; without a compiler nobody reads this.
cimport cython
from backend_watcher.decode.reader cimport tuple_end, uint32_at, uint64_at
from backend_watcher.events.change cimport Change

cdef unsigned int XLOG_HEADER
cdef unsigned int SKIPPED
cdef unsigned int IGNORED
cdef unsigned int SIZE_MASK

@cython.locals(at=Py_ssize_t, total=Py_ssize_t, sizes_at=Py_ssize_t, ordinal=Py_ssize_t, number=Py_ssize_t, count=Py_ssize_t,
               next_mark=Py_ssize_t, columns=Py_ssize_t, size=cython.uint, begin=Py_ssize_t, kind=cython.uchar, oid=cython.uint)
cdef _changes(walk, bytes data, Py_ssize_t count)

@cython.locals(change=Change, mark=cython.uchar, place=Py_ssize_t)
cdef Change _change(bytes data, Py_ssize_t begin, Py_ssize_t end, unsigned char kind, table, Py_ssize_t columns, transaction,
                    Py_ssize_t ordinal)

cdef _transaction(stream, bytes data, Py_ssize_t at)
