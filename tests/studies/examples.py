"""Small studies of every task."""

from __future__ import annotations

from typing import Any

from stedfm_hf.studies.study import CHOOSE, CLASSIFY, RANK, REAL_OR_GENERATED, Study, parse_study


def stimuli(kind: str, number: int = 4, groups: str = "AB") -> list[dict[str, Any]]:
    """Stimuli of a task: `number` of each group."""
    if kind == CHOOSE:
        return [{"id": f"c{i}", "options": {name: f"{name}/{i}.png" for name in groups}} for i in range(number)]
    found: list[dict[str, Any]] = []
    for each in (f"{name}{i}" for name in groups for i in range(number)):
        if kind == REAL_OR_GENERATED:
            found.append({"id": each, "group": each[0], "options": {"real": "r.png", "generated": "g.png"}})
        else:
            found.append({"id": each, "group": each[0], "image": f"{each}.png"})
        if kind == CLASSIFY:
            found[-1]["truth"] = "xyz"[int(each[1:]) % 3]
    return found


EXPECT = {
    CHOOSE: {"A": 0.7, "B": 0.3},
    CLASSIFY: {"A": 0.9, "B": 0.6},
    REAL_OR_GENERATED: {"A": 0.8, "B": 0.7},
    RANK: {"A": 2.0, "B": 0.0},
}


def values(kind: str = CHOOSE, number: int = 4, **more: Any) -> dict[str, Any]:
    """Content of a study file."""
    found: dict[str, Any] = {"title": "Maps", "type": kind, "question": "Which?", "stimuli": stimuli(kind, number)}
    found |= {"expect": EXPECT[kind]}
    if kind == CLASSIFY:
        found["classes"] = ["x", "y", "z"]
    return found | more


def study(kind: str = CHOOSE, number: int = 4, **more: Any) -> Study:
    """Study of a task."""
    return parse_study(values(kind, number, **more))


def single_images(**more: Any) -> Study:
    """Study with real and generated images that are shown one at a time."""
    shown = [{"id": f"r{i}", "image": "r.png", "group": "real", "truth": "real"} for i in range(6)]
    shown += [{"id": f"{g}{i}", "image": "g.png", "group": g, "truth": "generated"} for g in "AB" for i in range(6)]
    return study(REAL_OR_GENERATED, stimuli=shown, **more)


def row(
    participant: str, number: int, stimulus: str, answer: str, options: tuple[str, ...], **more: Any
) -> dict[str, Any]:
    """Answer to a trial."""
    return {
        "participant": participant,
        "trial": number,
        "order": number,
        "kind": "trial",
        "stimulus": stimulus,
        "options": options,
        "answer": answer,
        "response_s": 2.0,
        "confidence": None,
        "undone": False,
        "answered_at": None,
    } | more
