"""Events of MkDocs: add the generated pages to the site, and warn about docstrings that are missing or wrong."""

from __future__ import annotations

import logging
import os
from typing import Literal

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from docs.tools.cli_reference import cli_pages
from docs.tools.public_names import docstring_problems, load_package
from docs.tools.python_reference import python_pages
from docs.tools.tutorials import build_page, draft_page, find_tutorials

# MkDocs counts the warnings of its own loggers: with `strict`, they end the build.
log = logging.getLogger("mkdocs.plugins.docs")
_serving = False


def on_startup(command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    """Remember whether the site is shown while somebody writes: then tutorials run only when their scripts change."""
    global _serving
    _serving = command == "serve"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the commands, the Python API and the tutorials."""
    package = load_package()
    for problem in docstring_problems(package):
        log.warning(problem)
    for path, text in {**cli_pages(package), **python_pages(package)}.items():
        files.append(File.generated(config, path, content=text))
    draft = bool(os.environ.get("STEDFM_DOCS_DRAFT"))
    for script in find_tutorials():
        page = draft_page(script) if draft else build_page(script, any_package=_serving)
        for name, content in page.files.items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files
