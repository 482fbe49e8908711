"""From staged crops to a repository: the last step of every producer."""
