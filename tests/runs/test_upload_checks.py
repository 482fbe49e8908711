"""The excerpt in the message about an absolute path."""

from __future__ import annotations

import pytest

from stedfm_hf.runs.upload_checks import find_path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("made of /home/ada/x", "made of /home/ada/x"),
        (
            "These images were copied from /home/ada/scans on the computer of the microscope",
            "... from /home/ada/scans on the computer of ...",
        ),
        ("/home/ada/" + "x" * 60, "/home/ada/" + "x" * 26 + " ..."),
    ],
)
def test_the_excerpt_is_cut_at_spaces(text: str, shown: str) -> None:
    assert find_path(["no path", text]) == shown
