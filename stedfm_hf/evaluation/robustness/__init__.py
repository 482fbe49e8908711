"""Robustness of models: accuracy and embeddings under changes of the acquisition, and between real batches."""
