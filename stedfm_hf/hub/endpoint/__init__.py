"""Files of an Inference Endpoint of Hugging Face, and a server that runs them on this computer."""

from pathlib import Path

ENDPOINT_FILES = tuple(Path(__file__).with_name(name) for name in ("handler.py", "requirements.txt", "Dockerfile"))
"""Files that a published model gets in addition to those of its folder."""
