"""PostgreSQL's own regression SQL as the load, its tables compared one by one: `make judge`."""
