# The C types of row.py; without a compiler nobody reads this.
cimport cython

cdef int KIND_NULL
cdef int KIND_UNCHANGED
cdef int KIND_TEXT
cdef int KIND_BINARY

cdef class Row:
    cdef readonly object table
    cdef bytes _data
    cdef Py_ssize_t _start
    cdef bint _key_only
    cdef dict _values

    @cython.locals(data=bytes, at=Py_ssize_t, kind=cython.uchar, _=Py_ssize_t)
    cdef Py_ssize_t _find(self, Py_ssize_t index)

    @cython.locals(data=bytes, at=Py_ssize_t, kind=cython.uchar, size=Py_ssize_t)
    cdef object _cell(self, Py_ssize_t index)

    cdef object _load(self, Py_ssize_t index)

    cpdef object raw_at(self, Py_ssize_t index)

    cdef Py_ssize_t _index(self, name) except -1

    @cython.locals(data=bytes, at=Py_ssize_t, kind=cython.uchar, size=Py_ssize_t, result=dict)
    cpdef dict to_dict(self)
