"""Import of the official crop archives."""
