"""A repository out of the authors' crop archives, read without running anything in them."""
