"""Evaluation of finders on annotated images: `stedfm evaluate find`."""
