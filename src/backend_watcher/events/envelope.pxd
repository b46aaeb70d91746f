# The C types of envelope.py; without a compiler nobody reads this.
cimport cython
from backend_watcher.events.row cimport Row

cdef int LEFT_OUT
cdef int COPY
cdef int QUOTE
cdef int TEXT
cdef int BOOL
cdef int MOMENT
cdef int LOCAL
cdef int JSON
cdef int OTHER

cdef int KIND_UNCHANGED
cdef int KIND_TEXT
cdef int KIND_BINARY

cdef int BLANK
cdef int PLUS
cdef int ZERO

cdef object _encode_text

@cython.locals(parts=list)
cdef bytes _object(list parts)

cdef class RowWriter:
    cdef readonly object table
    cdef readonly tuple columns
    cdef list _codes
    cdef list _heads
    cdef list _opens
    cdef list _closes
    cdef list _kinds
    cdef dict _index_of
    cdef Py_ssize_t _count

    @cython.locals(data=bytes, at=Py_ssize_t, start=Py_ssize_t, size=Py_ssize_t, index=Py_ssize_t, kind=cython.uchar,
                   code=int, codes=list, heads=list, opens=list, closes=list, parts=list)
    cpdef bytes json(self, Row row, Row old=*, bint whole=*)

    @cython.locals(data=bytes, at=Py_ssize_t, size=Py_ssize_t, index=Py_ssize_t, kind=cython.uchar, names=list)
    cpdef list unchanged(self, Row row)

    cdef bytes _json_of_values(self, Row row, Row old, bint whole)
    cdef _rare(self, Row row, Row old, Py_ssize_t index, int kind, bytes cell, bint whole)
    cdef _from_old(self, Row old, Py_ssize_t index, state, bint whole)
    cdef bytes _cell_json(self, raw, Row row, Py_ssize_t index)
    cdef bytes _transcribe(self, int code, Py_ssize_t index, bytes cell)

    @cython.locals(index=Py_ssize_t, code=int)
    cpdef text(self, Row row, name, Row old=*)
