"""Models, image processor and pipelines. Files `*_stedfm*.py` are copied into every saved folder and Hub repo."""
