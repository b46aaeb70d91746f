# The C types of change.py; without a compiler nobody reads this.
cimport cython
from backend_watcher.events.row cimport Row, find_cell

cdef int KIND_UNCHANGED
cdef int KIND_TEXT
cdef int KIND_BINARY
cdef int _UPDATE
cdef int _TRUNCATE

cdef class Change:
    cdef readonly int code
    cdef readonly object table
    cdef readonly object transaction
    cdef readonly Py_ssize_t ordinal
    cdef bytes _data
    cdef Py_ssize_t _new_at
    cdef Py_ssize_t _old_at
    cdef bint _old_key_only
    cdef Row _new
    cdef Row _old

    cdef readonly Py_ssize_t size_bytes
    cdef readonly bint replayed
    cdef readonly bint derived

    cpdef bint key_changed(self) except -1
    cpdef Py_ssize_t lane(self, Py_ssize_t count) except -2
    cpdef bytes key_bytes(self)

    @cython.locals(data=bytes, at=Py_ssize_t, place=Py_ssize_t, size=Py_ssize_t, kind=cython.uchar,
                   index=Py_ssize_t, parts=list)
    cdef bytes _key_bytes_at(self, bint before)
