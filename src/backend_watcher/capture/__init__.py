"""How changes come in: one reader of one slot, into the journal."""
