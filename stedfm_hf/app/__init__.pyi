from .application import build_app, launch_app, launch_options
from .settings import AppSettings

__all__ = ["AppSettings", "build_app", "launch_app", "launch_options"]
