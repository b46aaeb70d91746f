"""What happened: positions, tables, rows, changes, transactions. Values that never change, and no I/O."""
