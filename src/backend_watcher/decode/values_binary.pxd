# The C types of values_binary.py; without a compiler nobody reads this.

cpdef object load_bool(bytes data)
cpdef object load_int2(bytes data)
cpdef object load_int4(bytes data)
cpdef object load_int8(bytes data)
cpdef object load_unsigned4(bytes data)
cpdef object load_unsigned8(bytes data)
cpdef object load_float8(bytes data)
cpdef object load_numeric(bytes data)
