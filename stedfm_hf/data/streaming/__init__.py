"""Streaming of batches for training: one order for all ranks, each crop once, resumable."""
