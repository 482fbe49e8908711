"""The published classification sets, out of the authors' own files, as repositories that anyone can read."""
