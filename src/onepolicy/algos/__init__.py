"""Floor 4: one file per algorithm. They never import one another."""
