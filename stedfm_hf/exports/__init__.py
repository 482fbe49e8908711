"""Write models in the formats of other libraries and runtimes, compare both, and run exported models."""
