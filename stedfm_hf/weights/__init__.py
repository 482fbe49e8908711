"""Official weights, safe reading of checkpoints, and their conversion to folders for transformers."""
