"""Simulated STED-like images with ground truth, and the frozen presets of the accuracy tables."""
