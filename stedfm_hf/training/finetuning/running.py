"""How a fine-tuning is run: one run for each seed, and what is said of it (ours)."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from stedfm_hf.runs import EXIT_DONE, EXIT_ITEMS_FAILED, EXIT_USAGE, UserError, some_of
from stedfm_hf.training.finetuning.arguments import FinetuningArguments
from stedfm_hf.training.finetuning.summary import describe

Arguments = TypeVar("Arguments", bound=FinetuningArguments)


@dataclass(frozen=True)
class FinetuningResult:
    """What a fine-tuning made.

    Args:
        folder: the complete Hub-layout folder of the best model, with a folder for each seed.
        metrics: as they are in its `metrics.json`.
        failed: images that could not be read, with the reason.
        headline: figures that the summary shows, if there.
    """

    folder: Path
    metrics: dict[str, Any]
    failed: dict[str, str]
    headline: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line for the terminal, and one for each doubt."""
        return describe(self.metrics, self.folder, self.headline)


def arguments_of_run(seed: int, arguments: Arguments, folder: Path, steps: int) -> Arguments:
    """The arguments of the run of one seed, in its folder."""
    args = copy.copy(arguments)
    args.seed, args.output_dir, args.max_steps = seed, str(folder), steps
    args.eval_strategy = args.save_strategy = args.logging_strategy = "steps"
    args.eval_steps = args.logging_steps = -(-steps // args.checks)
    args.save_steps = args.eval_steps * args.save_checks
    return args


def say_on_first(arguments: FinetuningArguments) -> Callable[[str], None]:
    """Prints lines in the first process only."""
    return (lambda line: print(line, flush=True)) if arguments.process_index == 0 else (lambda line: None)


def leave_out(found: Mapping[str, str], failed: dict[str, str], say: Callable[[str], None]) -> None:
    """Says, before anything is trained, which images cannot be used.

    Args:
        found: images with the reason.
        failed: those that were said; gets them.
        say: called with a line for each reason that is new to some.
    """
    places: dict[str, list[str]] = {}
    for place, reason in found.items():
        if place not in failed:
            places.setdefault(reason, []).append(place)
    for reason, names in places.items():
        say(f"{some_of(names)}: {'is' if len(names) == 1 else 'are'} left out ({reason})")
    failed.update(found)


def run_script(finetune: Callable[[Sequence[str] | None], FinetuningResult], argv: Sequence[str] | None) -> int:
    """Runs the fine-tuning that the words ask for, and returns the exit status.

    Args:
        finetune: of words.
        argv: words of the command line; None takes those of the process.
    """
    try:
        result = finetune(argv)
    except UserError as error:
        print(f"stedfm: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    if int(os.environ.get("RANK", "0")) == 0:
        print(result.summary())
    return EXIT_ITEMS_FAILED if result.failed else EXIT_DONE
