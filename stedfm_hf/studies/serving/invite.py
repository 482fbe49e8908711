"""`stedfm study invite`: private links for participants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stedfm_hf.runs.result import Result
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.studies.serving.context import private_link
from stedfm_hf.studies.serving.store import Store
from stedfm_hf.studies.settings import StudyInviteSettings


@dataclass(frozen=True)
class StudyInviteResult(Result):
    """Result of `study invite`.

    Attributes:
        links: Private links, one for each new participant.
    """

    links: tuple[str, ...]

    def summary(self) -> str:
        """Return one link per line."""
        return "\n".join(self.links)

    def to_json(self) -> dict[str, Any]:
        """Return the links."""
        return {"links": list(self.links)}


@takes_settings(StudyInviteSettings)
def invite_participants(settings: StudyInviteSettings) -> StudyInviteResult:
    """Make private links for new participants; the server may be running.

    The links are not stored anywhere: only their checksums are.

    Returns:
        The links.

    Raises:
        UserError: If the file of answers cannot be used.

    Example:
        >>> invite_participants("answers.sqlite", participants=3).links  # doctest: +SKIP
    """
    store = Store(settings.answers)
    with store.writing() as transaction:
        tokens = transaction.invite(settings.participants)
    address = (settings.address or store.facts().get("address", "")).rstrip("/")
    return StudyInviteResult(tuple(private_link(address, each) for each in tokens))
