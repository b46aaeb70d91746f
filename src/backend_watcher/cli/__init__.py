"""The command line: a face of `service/control.py`."""
