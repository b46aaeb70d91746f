"""What we say to PostgreSQL, said to a real one."""
