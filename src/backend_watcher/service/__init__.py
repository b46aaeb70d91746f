"""Puts the rooms together: the only one with all the keys."""
