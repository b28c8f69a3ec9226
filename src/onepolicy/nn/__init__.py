"""Floor 2: networks and the policies built from them."""
