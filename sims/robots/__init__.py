"""Robot arms: one folder each, with the source of every number beside it."""
