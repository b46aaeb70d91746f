# The C types of values_time.py; without a compiler nobody reads this.

cpdef object load_date(bytes data)
cpdef object load_timestamp(bytes data)
cpdef object load_timestamptz(bytes data)
