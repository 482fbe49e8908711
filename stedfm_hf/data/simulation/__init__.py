"""STED-like images with known truth, and the frozen preset of the accuracy tables."""
