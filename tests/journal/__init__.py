"""The journal, against real files, real kills and a real full disk."""
