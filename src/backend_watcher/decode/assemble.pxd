# The C types of assemble.py; without a compiler nobody reads this.
cimport cython
from backend_watcher.decode.reader cimport tuple_end, uint32_at, uint64_at

cdef unsigned int XLOG_HEADER
cdef unsigned int SKIPPED
cdef unsigned int IGNORED

cdef class Assembler:
    cdef unsigned long long _last_lsn
    cdef long long _last_ordinal
    cdef dict _tables
    cdef dict _columns
    cdef long long _cached_oid
    cdef Py_ssize_t _cached_columns
    cdef public object wants
    cdef readonly object streamed
    cdef readonly set described
    cdef public bint ddl
    cdef public bint marked
    cdef public object watermark
    cdef public bint reading
    cdef readonly bint in_transaction
    cdef unsigned long long _commit_lsn
    cdef long long _micros
    cdef unsigned int _xid
    cdef bytes _context
    cdef bint _messages
    cdef long long _ordinal
    cdef readonly unsigned long long commit_end_lsn
    cdef bint _transaction_changes
    cdef readonly bint owed
    cdef list _parts
    cdef object _sizes
    cdef list _marks
    cdef dict _versions
    cdef object _start
    cdef set _used
    cdef readonly Py_ssize_t changes
    cdef readonly Py_ssize_t size_bytes
    cdef unsigned long long _chunk_end_lsn
    cdef unsigned long long _first_lsn
    cdef long long _first_ordinal

    @cython.locals(at=Py_ssize_t, begun=Py_ssize_t, number=Py_ssize_t, count=Py_ssize_t, size=Py_ssize_t,
                   end=Py_ssize_t, kind=cython.uchar)
    cpdef Py_ssize_t feed(self, bytes data, list sizes, Py_ssize_t start=*) except -1

    @cython.locals(mark=cython.uchar, place=Py_ssize_t, oid=cython.uint)
    cdef unsigned int _row(self, unsigned char kind, bytes data, Py_ssize_t at, Py_ssize_t end, unsigned int size) except 1

    cdef int _remember(self, unsigned int oid, Py_ssize_t at) except -1

    @cython.locals(first=cython.longlong, last=cython.longlong)
    cdef bint _number(self, long long changes, Py_ssize_t at) except -1

    @cython.locals(micros=cython.ulonglong)
    cdef int _begin(self, bytes data, Py_ssize_t at, Py_ssize_t end) except -1

    cdef int _commit(self, bytes data, Py_ssize_t at, Py_ssize_t end) except -1

    cdef bint _said(self, object message, Py_ssize_t at, Py_ssize_t size) except -1

    cdef bint _of_parts(self, object message, Py_ssize_t at) except -1

    cdef bint _other(self, bytes data, Py_ssize_t at, Py_ssize_t end, Py_ssize_t size) except -1
