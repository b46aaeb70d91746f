# The C types of values_json.py; without a compiler nobody reads this.
cimport cython

cdef int _QUOTE
cdef int _OPEN_LIST
cdef int _OPEN_OBJECT

cpdef object load_json(bytes data)
cpdef object load_jsonb(bytes data)
cpdef object load_jsonb_binary(bytes data)

cdef object _load(bytes data, object type_oid)

@cython.locals(levels=Py_ssize_t, limit=Py_ssize_t, quoted=bint, byte=cython.uchar)
cdef bint _is_deep(bytes data) except -1
