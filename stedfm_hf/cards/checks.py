"""Check the card of a repository without the Hub, which looks at few of its fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.wording import nearest

RepoType = Literal["model", "dataset", "space"]
_SECTIONS = {
    "model": {
        "Use": "how to load the model",
        "Input": "expected pixel size and scaling",
        "Training": "training data and protocol",
        "Limitations": "what the model cannot do",
        "Citation": "what to cite",
    },
    "dataset": {
        "Use": "how to load the data",
        "How it was made": "origin and processing of the images",
        "Limitations": "what the data do not show",
    },
    "space": {},
}
"""Required headings of each kind of card, with their content."""
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_SPACE_FIELDS = {"sdk": "such as gradio", "app_file": "such as app.py", "title": "a short name"}


def card_problems(text: str, repo_type: RepoType) -> list[str]:
    """Return what is missing or invalid in a card, with how to correct it.

    Args:
        text: Text of `README.md`.
        repo_type: Type of the repository.

    Example:
        >>> card_problems("# My model", "model")
        ['has no front matter; begin it with `---`, lines such as `license: mit`, and `---`']
    """
    match = _FRONT_MATTER.match(text)
    if match is None:
        return ["has no front matter; begin it with `---`, lines such as `license: mit`, and `---`"]
    try:
        fields = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"its front matter is not valid YAML ({' '.join(str(error).split())[:150]})"]
    if not isinstance(fields, dict):
        return ["its front matter is not a list of fields; write lines such as `license: mit`"]
    headings = {each.strip() for each in re.findall(r"^##\s+(.+)$", text, flags=re.MULTILINE)}
    missing = [(name, what) for name, what in _SECTIONS[repo_type].items() if name not in headings]
    return [
        *_field_problems(fields, repo_type),
        *(f"has no section `## {name}`; add it: {what}" for name, what in missing),
    ]


def _field_problems(fields: Mapping[str, Any], repo_type: RepoType) -> Iterator[str]:
    """Yield the problems of the front matter."""
    yield from _licence_problems(fields)
    if repo_type == "space":
        for name, what in _SPACE_FIELDS.items():
            if not fields.get(name):
                yield f"has no `{name}`; add it to the front matter, {what}"
        return
    if not fields.get("tags"):
        yield "has no `tags`; add a list to the front matter, such as [microscopy, sted]"
    if repo_type == "dataset":
        for name in ("task_categories", "size_categories", "configs"):
            if not fields.get(name):
                yield f"has no `{name}`; build the data set again"
        tasks = fields.get("task_categories") or []
    else:
        if not fields.get("library_name"):
            yield "has no `library_name`; add `library_name: transformers` to the front matter"
        if not fields.get("pipeline_tag"):
            yield "has no `pipeline_tag`; add it to the front matter, such as image-feature-extraction"
        tasks = [fields["pipeline_tag"]] if fields.get("pipeline_tag") else []
        yield from _result_problems(fields.get("model-index"))
    for task in tasks if isinstance(tasks, list) else [tasks]:
        if task not in known_tasks():
            yield f"has the task {task!r}, which the Hub does not know{nearest(str(task), known_tasks())}"


def _licence_problems(fields: Mapping[str, Any]) -> Iterator[str]:
    licence = fields.get("license")
    if not licence:
        yield "has no licence; give --licence, or add `license: ...` to the front matter, such as mit or cc-by-4.0"
    elif licence not in known_licences():
        near = nearest(str(licence), known_licences())
        yield f"has the licence {licence!r}, which the Hub does not know{near or '; write other and `license_name`'}"
    elif licence == "other" and not fields.get("license_name"):
        yield "has the licence other without its name; add `license_name` and `license_link`"


def _result_problems(index: Any) -> Iterator[str]:
    """Yield the problems of the results in the front matter (`model-index`); a model may have none."""
    for model in index or []:
        for result in (model.get("results") or []) if isinstance(model, dict) else [{}]:
            metrics = result.get("metrics") or [{}]
            complete = [
                (result.get("task") or {}).get("type"),
                (result.get("dataset") or {}).get("name"),
                metrics[0].get("type"),
            ]
            if not all(complete):
                yield "has a result in `model-index` without task, data set or metric; complete or remove it"


def check_licence(licence: str) -> None:
    """Raise a `UserError` if the Hub does not know a licence.

    Example:
        >>> check_licence("cc-by-4.0")
    """
    if licence not in known_licences():
        near = nearest(licence, known_licences())
        raise UserError(f"licence {licence!r} is unknown to the Hub{near or '; give such as mit or cc-by-4.0'}")


@cache
def known_licences() -> tuple[str, ...]:
    """Return the identifiers of licences that the Hub knows."""
    return _lines("hub_licences.txt")


@cache
def known_tasks() -> tuple[str, ...]:
    """Return the names of tasks of images that the Hub knows."""
    return _lines("hub_tasks.txt")


def _lines(name: str) -> tuple[str, ...]:
    return tuple(Path(__file__).with_name(name).read_text(encoding="utf-8").split())
