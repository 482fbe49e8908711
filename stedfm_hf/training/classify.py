"""Fine-tuning for classification: `stedfm finetune classification`, or `torchrun ... training/classify.py`."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before torch is imported
    from stedfm_hf.runs.command_line import run_script
    from stedfm_hf.training.finetuning.settings import ClassificationSettings

    name = "stedfm_hf.training.classify:finetune_classification"
    sys.exit(run_script("classification", name, settings=ClassificationSettings))

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from stedfm_hf.labels.labelled import LabelledImages, sample_fraction, sample_per_class
from stedfm_hf.labels.reading import read_labelled_images
from stedfm_hf.labels.splits import Splits
from stedfm_hf.modeling.modeling_stedfm import StedFmForImageClassification
from stedfm_hf.runs import atomic_path, counted
from stedfm_hf.runs.quiet import quiet_transformers
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.training.classification.data import TrainingImages, cache_images, training_size
from stedfm_hf.training.classification.figures import CONFUSION, SCATTER, save_result_figures
from stedfm_hf.training.classification.objective import METRICS, objective_for, probabilities_of, score
from stedfm_hf.training.classification.trainer import ClassificationTrainer, LabelledSplit
from stedfm_hf.training.finetuning.card import count_parameters
from stedfm_hf.training.finetuning.data import Batches, CachedItems, splits_for_training
from stedfm_hf.training.finetuning.network import choose_trained, load_weights, network_config, standardise_by
from stedfm_hf.training.finetuning.settings import ClassificationSettings
from stedfm_hf.training.finetuning.summary import reported_split
from stedfm_hf.training.finetuning.task import FinetuneResult, Run, Task
from stedfm_hf.training.network import isolated_rng

PREDICTIONS_FILE = "predictions.parquet"
TARGET_TYPES = {"classes": "single_label", "multilabel": "multi_label", "regression": "regression"}


@takes_settings(ClassificationSettings)
@quiet_transformers(errors_only=True)
def finetune_classification(settings: ClassificationSettings) -> FinetuneResult:
    """Train a classifier or a regression on labelled images, once for every seed.

    Returns:
        Folder of the best model, and the metrics of all seeds.

    Raises:
        UserError: The images cannot be used for training, or the output folder holds something else.

    Example:
        >>> result = finetune_classification("demo", "my-crops", output="run", seeds=[1, 2])  # doctest: +SKIP
        >>> result.metrics["test"]["mean"]["accuracy"]  # doctest: +SKIP
        0.93
    """
    return ClassificationTask(settings).run()


class ClassificationTask(Task[ClassificationSettings, LabelledImages, np.ndarray]):
    """Fine-tuning on labels of whole images: classes, multilabel targets, or numbers."""

    headline = ("accuracy", "macro_f1", "pearson_r", "r2")

    def read(self) -> Splits[LabelledImages]:
        """Read labelled images and split them."""
        return read_splits(self.settings)

    def metrics(self) -> Sequence[str]:
        """Return the metrics for the kind of labels, the default first."""
        return METRICS[self.splits.train.task]

    def sample(self, seed: int) -> LabelledImages:
        """Return the training images of the run of a seed: all, or a random sample."""
        return sample_images(self.splits.train, self.settings, seed)

    def cache(self, data: LabelledImages) -> CachedItems[np.ndarray]:
        """Return the images, each read once."""
        return cache_images(data)

    def channels_of(self, item: np.ndarray) -> int:
        """Return the number of channels of an image."""
        return len(item)

    def make_trainer(self, run: Run, sampled: LabelledSplit, validation: LabelledSplit) -> ClassificationTrainer:
        """Build the network of a run and its trainer."""
        settings, data, images = self.settings, sampled.data, sampled.items
        steps = settings.steps_for(len(self.splits.train), len(data))
        self.report(f"seed {run.seed}: {counted(len(data), 'training image')}, {counted(steps, 'step')}")
        args = self.run_arguments(run, steps)
        objective = objective_for(
            data, balanced=settings.class_weights == "balanced", smoothing=args.label_smoothing_factor
        )
        size = training_size(
            [image.shape[1:] for image in images],
            data.image_ids.tolist(),
            image_size=self.config.image_size,
            patch_size=self.config.patch_size,
        )
        targets = objective.targets(data.labels)
        samples = TrainingImages(images, targets, size=size, seed=run.seed, augment=settings.augment)
        return ClassificationTrainer(
            settings=settings,
            model=new_network(settings, data, seed=run.seed, images=images),
            args=args,
            batches=Batches(samples, args),
            objective=objective,
            training=sampled,
            validation=validation,
            metric=self.metric,
            frozen=settings.mode == "linear-probe",
            processing_class=self.processor(),
        )

    def evaluate(
        self,
        run: Run,
        trainer: ClassificationTrainer,
        sampled: LabelledSplit,
        held_out: Mapping[str, LabelledSplit],
    ) -> dict[str, Any]:
        """Classify whole images of any size, as the saved model does, and write all predictions."""
        objective, data = trainer.objective, sampled.data
        objective.fold(trainer.network)
        logits = {name: trainer.logits(each.items) for name, each in held_out.items()}
        scores = {
            name: {"images": len(each.data), **score(logits[name], each.data.labels, objective.task)}
            for name, each in held_out.items()
        }
        if self.writes:
            shown = reported_split(held_out)
            save_result_figures(
                run.folder,
                classes=data.classes,
                result=scores[shown],
                predicted=probabilities_of(logits[shown], objective.task),
                true=held_out[shown].data.labels,
                split=shown,
            )
            write_predictions(run.folder / PREDICTIONS_FILE, held_out, logits)
        training_counts = {"training_images": len(data), "training_images_per_class": data.counts()}
        return {**training_counts, "training_sources": data.source_count, **scores}

    def card(self, best: Mapping[str, Any]) -> dict[str, Any]:
        """Return sizes, classes and the recall of each class for the model card."""
        network = StedFmForImageClassification.from_pretrained(self.settings.folder)
        train = self.splits.train
        recall = best[reported_split(best)].get("recall_per_class") or ()
        return {
            "parameters": {
                "encoder": count_parameters(network.stedfm),
                "head": count_parameters(network.classifier),
            },
            "config": network.config.to_dict(),
            "figures": (CONFUSION, SCATTER),
            "files": {PREDICTIONS_FILE: "predictions of this model for every validation and test image"},
            "task": train.task,
            "classes": train.classes,
            "target": None if train.classes else (self.settings.target or "label"),
            "metric_per_class": dict(zip(train.classes, recall, strict=False)),
        }


def read_splits(settings: ClassificationSettings) -> Splits[LabelledImages]:
    """Read labelled images and split them.

    Args:
        settings: Settings of the fine-tuning.

    Raises:
        UserError: The data set does not have a named split, has a source image in two splits, or has no training
            image of a class.
    """
    read = read_labelled_images(settings)
    return splits_for_training(read, settings)


def sample_images(train: LabelledImages, settings: ClassificationSettings, seed: int) -> LabelledImages:
    """Return the training images of the run of a seed: all, or a random sample.

    Args:
        train: Images of the training split.
        settings: Settings of the fine-tuning.
        seed: Random seed of the sample.

    Raises:
        UserError: A class has fewer images than requested.
    """
    if settings.labels_per_class is not None:
        return sample_per_class(train, settings.labels_per_class, seed)
    return train if settings.label_fraction is None else sample_fraction(train, settings.label_fraction, seed)


def new_network(
    settings: ClassificationSettings, data: LabelledImages, *, seed: int, images: Sequence[np.ndarray]
) -> StedFmForImageClassification:
    """Return the network before its first step: a pretrained or new encoder, and a new head.

    Args:
        settings: Settings of the fine-tuning.
        data: Training images.
        seed: Random seed of the new weights.
        images: Pixels of the training images, for the standardisation of a new encoder.

    Raises:
        UserError: The model cannot be loaded.
    """
    config = network_config(settings, data.classes or ("value",))
    config.target_type = TARGET_TYPES[data.task]
    with isolated_rng(seed):
        if settings.mode == "from-scratch":
            network = StedFmForImageClassification(config)
            standardise_by(network.stedfm, images)
        else:
            network = load_weights(StedFmForImageClassification, settings, config)
            # Reset the head, which the model may have.
            network.batch_norm.reset_running_stats()
            bound = network.classifier.in_features**-0.5
            for parameter in network.classifier.parameters():
                torch.nn.init.uniform_(parameter, -bound, bound)
        choose_trained(network.stedfm, settings)
    return network


def write_predictions(path: Path, held_out: Mapping[str, LabelledSplit], logits: Mapping[str, np.ndarray]) -> None:
    """Write one row for every image: split, id, source, label and prediction.

    Args:
        path: Parquet file.
        held_out: Images by split.
        logits: Logits (n, C) of the images, by split.
    """
    tables = []
    for split, each in held_out.items():
        data, found = each.data, probabilities_of(logits[split], each.data.task)
        columns: dict[str, Any] = {"split": [split] * len(data), "image_id": data.image_ids, "source": data.sources}
        if data.task == "regression":
            columns |= {"target": data.labels, "prediction": found}
        else:
            names = np.array(data.classes)
            if data.task == "classes":
                columns |= {"label": names[data.labels], "prediction": names[found.argmax(axis=1)]}
            else:
                columns["label"] = [names[row == 1].tolist() for row in data.labels]
                columns["prediction"] = [names[row >= 0.5].tolist() for row in found]
            columns |= {f"p_{name}": found[:, number] for number, name in enumerate(data.classes)}
        tables.append(pa.table(columns))
    with atomic_path(path) as temporary:
        pq.write_table(pa.concat_tables(tables), temporary)
