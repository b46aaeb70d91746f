# The C types of reader.py; without a compiler nobody reads this.
cimport cython

cdef int TUPLE_NULL
cdef int TUPLE_UNCHANGED
cdef int TUPLE_TEXT
cdef int TUPLE_BINARY

cpdef unsigned int uint32_at(bytes data, Py_ssize_t at) noexcept
@cython.locals(high=cython.ulonglong)
cpdef unsigned long long uint64_at(bytes data, Py_ssize_t at) noexcept

@cython.locals(count=Py_ssize_t, kind=cython.uchar, size=Py_ssize_t, _=Py_ssize_t)
cpdef Py_ssize_t tuple_end(bytes data, Py_ssize_t at, Py_ssize_t end, Py_ssize_t columns) except -1

cpdef object too_short(Py_ssize_t at)

cdef class Reader:
    cdef readonly bytes data
    cdef readonly Py_ssize_t at
    cdef readonly Py_ssize_t end
    cpdef int need(self, Py_ssize_t size) except -1
    cpdef int uint8(self) except -1
    cpdef int uint16(self) except -1
    cpdef unsigned int uint32(self) except? 0
    cpdef unsigned long long uint64(self) except? 0
