"""What all pages of a served study need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stedfm_hf.studies.serving.store import Store
from stedfm_hf.studies.serving.tokens import new_token
from stedfm_hf.studies.study import Study

DOUBLE_CLICK_S = 0.2
"""Time after the display of a trial in which nobody can have seen it, in seconds: it is that of a double click."""


@dataclass(frozen=True)
class Context:
    """What the pages need.

    Attributes:
        study: The study.
        store: File of answers.
        images: PNG file of each image by its path in the study file.
        address: Address that participants open, such as `https://study.example.org`.
        is_open: Whether everyone with the open link can take part.
        max_participants: Number of participants up to which the open link makes new ones.
        shortest_s: Time after the display of a trial in which answers are ignored, in seconds.
        organiser: Token of the organiser's page.
    """

    study: Study
    store: Store
    images: Mapping[str, Path]
    address: str
    is_open: bool = False
    max_participants: int = 500
    shortest_s: float = DOUBLE_CLICK_S
    organiser: str = field(default_factory=new_token)

    @property
    def organiser_link(self) -> str:
        """Address of the organiser's page."""
        return f"{self.address}/organiser/{self.organiser}"

    @property
    def open_link(self) -> str | None:
        """Address at which everyone can take part, or None."""
        return f"{self.address}/join/{self.store.facts()['join']}" if self.is_open else None


def private_link(address: str, token: str) -> str:
    """Return the link of a participant.

    Args:
        address: Address of the server.
        token: Token of the participant.
    """
    return f"{address}/p/{token}"
