"""Print the lowest versions that `pyproject.toml` admits, as constraints of pip (`make test-minimum`)."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def minimum_versions() -> list[str]:
    """Return `name==version.*` for every requirement of the package and its extras that has a lowest version."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    lowest = {}
    for requirement in map(Requirement, asked):
        for each in requirement.specifier:
            if each.operator == ">=":
                lowest[requirement.name] = each.version
    return [f"{name}=={version}.*" for name, version in sorted(lowest.items())]


if __name__ == "__main__":
    print("\n".join(minimum_versions()))
