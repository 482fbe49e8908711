"""Result of a command: one summary, one JSON object and one exit status."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stedfm_hf.runs.errors import EXIT_DONE
from stedfm_hf.runs.manifest import Manifest, manifest_path
from stedfm_hf.runs.wording import counted


@dataclass(frozen=True)
class Result:
    """Result of a command; base class of all results."""

    @property
    def exit_status(self) -> int:
        """0 if everything is done, 1 if some items failed."""
        return EXIT_DONE

    def summary(self) -> str:
        """Return the lines for the terminal."""
        return ""

    def to_json(self) -> Any:
        """Return plain data for programs (`--json`)."""
        return {}


@dataclass(frozen=True)
class OutputResult(Result):
    """Result of a command that writes an output.

    Attributes:
        output: File or folder that was written.
        manifest: Settings, versions and the status of every item.
    """

    output: Path
    manifest: Manifest

    @property
    def exit_status(self) -> int:
        """0 if everything is done, 1 if some items failed."""
        return self.manifest.exit_status

    def summary(self) -> str:
        """Return the lines for the terminal."""
        return f"{self.output}: {self.describe_items('item')}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data for programs (`--json`)."""
        record = manifest_path(self.output)
        return {
            "output": str(self.output),
            "manifest": str(record),
            "settings": self.manifest.settings,
            **self.manifest.counts(),
        }

    def describe_items(self, noun: str) -> str:
        """Describe the number of items that are done and that failed."""
        counts = self.manifest.counts()
        failed = f", {counts['failed']} failed" if counts["failed"] else ""
        return f"{counted(counts['done'], noun)}{failed}"
