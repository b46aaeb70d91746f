"""What real servers sent, and what becomes of it when it is broken on purpose."""
