"""Index, search and clustering of embeddings."""
