"""Foreign checkpoints: official weights, downloads, the closed reader, and conversion into Hub folders."""
