# The C types of fetched.py; without a compiler nobody reads this.
cimport cython

@cython.locals(base=Py_ssize_t, total=Py_ssize_t, size=Py_ssize_t, escaped=cython.bint, head=bytes, line=bytes, cell=bytes,
               cells=list, parts=list, sizes=list)
cpdef tuple fetched_rows(long long relation_oid, Py_ssize_t columns, lines)
