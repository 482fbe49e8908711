"""Labelled and annotated images of folders and data sets, and their splits by source image."""
