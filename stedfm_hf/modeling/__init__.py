"""Models, image processor and pipelines. Files `*_stedfm.py` are copied into the folders and Hub repos that need them."""
