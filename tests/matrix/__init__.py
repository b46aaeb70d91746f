"""The same suites on every version of PostgreSQL that is supported: `make matrix`."""
