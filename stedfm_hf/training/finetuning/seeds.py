"""One run for each seed, and the folder of them all (ours)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stedfm_hf.labels.splits import Images
from stedfm_hf.labels.training_sources import read_training_sources, write_training_sources
from stedfm_hf.modeling.configuration_stedfm import StedFmConfig
from stedfm_hf.training.checkpoints import remove_checkpoints
from stedfm_hf.training.curve import CURVE_FILE, RowsFile
from stedfm_hf.training.finetuning.feeding import Item, Side
from stedfm_hf.training.finetuning.folder import Folder
from stedfm_hf.training.finetuning.network import DRAWN, processor_of
from stedfm_hf.training.finetuning.outcome import Finished
from stedfm_hf.training.finetuning.running import FinetuningResult, leave_out
from stedfm_hf.training.finetuning.summary import is_finished, run_folder
from stedfm_hf.training.finetuning.watching import CheckRow
from stedfm_hf.weights.packaged import PACKAGED

Say = Callable[[str], None]


def run_seeds(
    folder: Folder,
    draws: Mapping[int, Images],
    config: StedFmConfig,
    *,
    read: Callable[[Images], Side[Images, Item]],
    train: Callable[[Finished, Side[Images, Item], Mapping[str, Side[Images, Item]]], None],
    write_card: Callable[[Folder, Mapping[str, Any], Mapping[str, Side[Images, Item]]], None],
    headline: tuple[str, ...],
    notes: Sequence[str] = (),
    say: Say,
) -> FinetuningResult:
    """Runs every seed that is not finished, and ends with the best model, its figures and its card.

    Args:
        folder: the output folder.
        draws: what is trained on, by seed.
        config: of the model.
        read: reads all images of a side once.
        train: does the run of a seed to its end: given where it belongs, its training images, and validation and test.
        write_card: writes the card of the folder.
        headline: figures that the summary shows.
        notes: lines on the images that are said before anything is read.
        say: called with lines for people.

    Raises:
        UserError: input that cannot be trained on, or a folder that holds something else.
    """
    seeds, model, splits = list(draws), folder.model, folder.splits
    if (done := folder.begin(seeds, say)) is not None:
        return FinetuningResult(folder.path, done, {}, headline)
    if model.model in PACKAGED and model.mode not in DRAWN:
        say(f"{model.model}: {PACKAGED[model.model]}")
    for note in notes:
        say(note)
    before = None if model.mode in DRAWN else read_training_sources(model.model)
    failed: dict[str, str] = {}
    sides = {name: read(each) for name, each in splits.held_out().items()}
    say(f"{splits.train.name}: {splits.counts()}. {splits.how}")
    say(f"{folder.arguments.describe_batch()}, learning rate {folder.arguments.learning_rate:.3g}, mode {model.mode}")
    for side in sides.values():
        leave_out(side.failed, failed, say)
    for seed in seeds:
        run = run_folder(folder.path, seed)
        if is_finished(folder.path, seed):
            say(f"seed {seed}: is finished")
            if folder.is_writer:
                remove_checkpoints(run)  # it was stopped before it had
            continue
        if folder.is_writer:
            write_training_sources(run, (splits.train, splits.validation), before=before)
        drawn = read(draws[seed])
        leave_out(drawn.failed, failed, say)
        train(Finished(run, seed, processor_of(config), RowsFile(run / CURVE_FILE, CheckRow)), drawn, sides)
    metrics = folder.end(seeds, failed, sides, lambda summary: write_card(folder, summary, sides))
    return FinetuningResult(folder.path, metrics, failed, headline)
