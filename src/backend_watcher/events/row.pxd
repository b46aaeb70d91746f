# The C types of row.py; without a compiler nobody reads this.
cimport cython

cdef int KIND_NULL
cdef int KIND_UNCHANGED
cdef int KIND_TEXT
cdef int KIND_BINARY

@cython.locals(at=Py_ssize_t, kind=cython.uchar, _=Py_ssize_t)
cpdef Py_ssize_t find_cell(bytes data, Py_ssize_t start, Py_ssize_t index) noexcept

cdef class Row:
    cdef readonly object table
    cdef bytes _data
    cdef Py_ssize_t _start
    cdef bint _key_only
    cdef dict _values

    @cython.locals(data=bytes, at=Py_ssize_t, kind=cython.uchar, size=Py_ssize_t)
    cdef object _cell(self, Py_ssize_t index)

    cdef object _load(self, Py_ssize_t index)

    cpdef object raw_at(self, Py_ssize_t index)

    cpdef bint differs(self, Row old, name) except -1

    cdef Py_ssize_t _index(self, name) except -1

    @cython.locals(data=bytes, at=Py_ssize_t, kind=cython.uchar, size=Py_ssize_t, result=dict)
    cpdef dict to_dict(self)
