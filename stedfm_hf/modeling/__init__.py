"""Models, image processor and pipelines. Files `*_stedfm*.py` are copied into the folders and repos that need them."""
