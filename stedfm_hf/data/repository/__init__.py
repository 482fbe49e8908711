"""Layout of a data set: columns and files, and how they are written and read."""
