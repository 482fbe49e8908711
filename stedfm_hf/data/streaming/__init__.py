"""Batches for training: one order for everybody, each crop once, resumable."""
