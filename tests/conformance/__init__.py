"""One suite for each contract, run by everything that keeps it."""
