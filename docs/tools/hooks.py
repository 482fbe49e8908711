"""Events of MkDocs: add the generated pages to the site."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from docs.tools.tutorials import build_page, find_tutorials


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the tutorials with their figures and notebooks."""
    for script in find_tutorials():
        for name, content in build_page(script).files.items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files
