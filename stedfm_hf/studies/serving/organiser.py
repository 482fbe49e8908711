"""Page of the organiser: progress of the participants, new links, and the table of answers."""

from __future__ import annotations

from io import BytesIO

import pyarrow.parquet as pq
from fastapi import HTTPException
from starlette.responses import RedirectResponse, Response

from stedfm_hf.studies.answers import answers_table
from stedfm_hf.studies.serving.context import Context, private_link
from stedfm_hf.studies.serving.export import answer_rows
from stedfm_hf.studies.serving.pages import list_participants, render
from stedfm_hf.studies.serving.participant import Form
from stedfm_hf.studies.serving.security import whole_number
from stedfm_hf.studies.serving.tokens import is_token

_MOST_LINKS = 100


class OrganiserRoutes:
    """Handlers of the organiser's page.

    Args:
        context: What the pages need.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        # In memory only: nobody who reads the file of answers may find them.
        self._links: list[str] = []

    def show(self, token: str) -> Response:
        """Show the progress of the participants, and the links that were made since the start of the server."""
        self._check(token)
        with self._context.store.reading() as transaction:
            participants = list_participants(self._context.study, transaction)
        return render(
            "organiser",
            study=self._context.study,
            path=self._path,
            participants=participants,
            answers=sum(each.done for each in participants),
            links=self._links,
            open_link=self._context.open_link,
            most_links=_MOST_LINKS,
        )

    def invite(self, token: str, form: Form) -> Response:
        """Make new private links. The redirect to the page that shows them keeps a reload from making more."""
        self._check(token)
        number = whole_number(form, "participants", _MOST_LINKS)
        with self._context.store.writing() as transaction:
            tokens = transaction.invite(number)
        self._links.extend(private_link(self._context.address, each) for each in tokens)
        return RedirectResponse(self._path, 303)

    def download(self, token: str) -> Response:
        """Send the table of answers."""
        self._check(token)
        with self._context.store.reading() as transaction:
            rows = answer_rows(transaction)
        content = BytesIO()
        pq.write_table(answers_table(rows, self._context.store.facts()["study"]), content, compression="zstd")
        headers = {"Content-Disposition": 'attachment; filename="answers.parquet"'}
        return Response(content.getvalue(), media_type="application/vnd.apache.parquet", headers=headers)

    @property
    def _path(self) -> str:
        return f"/organiser/{self._context.organiser}"

    def _check(self, token: str) -> None:
        if not is_token(token, self._context.organiser):
            raise HTTPException(404)
