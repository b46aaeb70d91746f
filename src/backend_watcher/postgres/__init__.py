"""Everything we say to PostgreSQL, and the only room that speaks `psycopg`."""
