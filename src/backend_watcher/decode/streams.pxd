# The C types of streams.py; without a compiler nobody reads this.
cimport cython
from backend_watcher.decode.reader cimport uint32_at

cdef unsigned int XLOG_HEADER

cdef class BlockTaker:
    cdef readonly unsigned int xid
    cdef readonly bint ended
    cdef public list runs
    cdef public list described
    cdef unsigned int _run_xid
    cdef list _sizes
    cdef list _parts

    @cython.locals(at=Py_ssize_t, begin=Py_ssize_t, number=Py_ssize_t, count=Py_ssize_t, size=Py_ssize_t,
                   kind=cython.uchar, xid=cython.uint)
    cpdef Py_ssize_t take(self, bytes data, list sizes, Py_ssize_t start) except -1

    cdef int _end(self, unsigned char kind, Py_ssize_t size) except -1

    cdef int _close(self, bytes rest) except -1
