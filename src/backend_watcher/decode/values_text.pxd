# The C types of values_text.py; without a compiler nobody reads this.

cpdef object load_bool(bytes data)
cpdef object load_int(bytes data)
cpdef object load_float(bytes data)
cpdef object load_numeric(bytes data)
cpdef object load_text(bytes data)
cpdef object load_bytea(bytes data)
cpdef object load_uuid(bytes data)
