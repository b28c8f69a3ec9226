"""Floor 1: the mathematics. Pure functions, tensors in and tensors out, time on the last axis."""
