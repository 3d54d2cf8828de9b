"""Which channels belong together, found by following them through a forward pass."""
