"""Statistics, figures, preview and card of a data set, and publishing on the Hub."""
