"""The app of stedfm-hf as a Space."""

from stedfm_hf.app import AppSettings, build_app, launch_options

settings = AppSettings(host="0.0.0.0")
build_app(settings).launch(**launch_options(settings))
