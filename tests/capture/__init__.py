"""One slot, read from a real PostgreSQL that restarts, breaks off and loses things."""
