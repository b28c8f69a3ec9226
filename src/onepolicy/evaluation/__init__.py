"""Floor 3: measuring policies, with intervals."""
