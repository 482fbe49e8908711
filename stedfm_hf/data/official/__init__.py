"""The published sets, out of the authors' own files, as repositories that anyone can read."""
