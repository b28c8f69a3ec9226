"""Floor 2: worlds to act in, always vectorised."""
