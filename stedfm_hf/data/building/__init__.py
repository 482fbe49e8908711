"""A repository out of one's own image files."""
