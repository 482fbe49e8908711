"""Assembly of staged crops into a data set: the last step of all commands that write data sets."""
