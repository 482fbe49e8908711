"""The model family. The files named `*_stedfm*.py` are copied as they are into every saved folder and Hub repo."""
