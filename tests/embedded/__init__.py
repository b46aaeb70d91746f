"""The embedded servers, started for real."""
