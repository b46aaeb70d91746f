"""Proves a sink equal to the source: reads both, compares, looks again, and calls drift only what persists."""
