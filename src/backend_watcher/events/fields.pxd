# The C types of fields.py; without a compiler nobody reads this.
cimport cython
from backend_watcher.events.row cimport Row

cdef int KIND_NULL
cdef int KIND_TEXT
cdef int HIGHEST
cdef int BACKSLASH
cdef int TAB
cdef int NEWLINE
cdef int RETURN

@cython.locals(data=bytes, at=Py_ssize_t, kind=cython.uchar, size=Py_ssize_t, count=Py_ssize_t, _=Py_ssize_t, parts=list)
cpdef bytes fields_of(Row row)
cpdef list cells_of(Row row)

@cython.locals(at=Py_ssize_t, size_of=Py_ssize_t, size=Py_ssize_t, place=Py_ssize_t, byte=cython.uchar, text=bytes, parts=list)
cpdef bytes text_line(bytes fields)
cdef bytes _escaped(bytes text)
