"""`stedfm study invite`: private links for participants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stedfm_hf.runs import UserError, print_note
from stedfm_hf.runs.result import Result
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.studies.serving.context import private_link
from stedfm_hf.studies.serving.running import is_served
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
        UserError: If the file of answers cannot be used, or no server is running and no address is given.

    Example:
        >>> invite_participants("answers.sqlite", participants=3).links  # doctest: +SKIP
    """
    store = Store(settings.answers)
    is_running = is_served(settings.answers)
    address = settings.address
    if address is None and is_running:
        address = store.facts().get("address")  # that of an earlier server may be out of date
    if address is None:
        raise UserError(
            f"{settings.answers}: no server is running, so the address of the links is not known; start `stedfm study "
            "serve` first, or give the address that it will have with --address"
        )
    if not is_running:
        print_note(f"no server is running: the links work while `stedfm study serve` runs at {address}")
    with store.writing() as transaction:
        tokens = transaction.invite(settings.participants)
    return StudyInviteResult(tuple(private_link(address, each) for each in tokens))
