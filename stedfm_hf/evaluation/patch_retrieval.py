"""Run of `evaluate retrieval --patches`: rank the patches of annotated images for patches that a class covers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stedfm_hf.evaluation.extractors import EncoderExtractor, Extractor
from stedfm_hf.evaluation.features import prepare_for_search
from stedfm_hf.evaluation.patches import Patches, patch_features, patches_of, sample_queries
from stedfm_hf.evaluation.protocol import extractors_of, methods_of
from stedfm_hf.evaluation.rankings import (
    NOT_TOUCHING,
    OTHER_IMAGES,
    OTHER_SOURCES,
    Queries,
    compare_rankings,
    reference_values,
    summarise_rankings,
)
from stedfm_hf.evaluation.report.content import CHANCE, MethodInfo
from stedfm_hf.evaluation.report.files import RESULTS, open_report
from stedfm_hf.evaluation.report.page import BASELINE_SENTENCES
from stedfm_hf.evaluation.report.retrieval import FILES, RetrievalReport, write_retrieval_report
from stedfm_hf.evaluation.results import RetrievalResult
from stedfm_hf.evaluation.settings import PATCH_BASELINES, RetrievalSettings
from stedfm_hf.evaluation.splits import exclude_training_images, searched_split
from stedfm_hf.images import StedImage
from stedfm_hf.labels.annotated import AnnotatedImages
from stedfm_hf.labels.reading import read_annotated_images
from stedfm_hf.labels.splits import Splits
from stedfm_hf.metrics.ranking import Ranking, retrieval_scores
from stedfm_hf.runs import Manifest, Progress, UserError, print_note, read_json
from stedfm_hf.runs.failures import record_failures
from stedfm_hf.runs.output import Output
from stedfm_hf.weights.models import ModelSource

PROTOCOL = (
    "Queries are a random sample of the patches that a class covers at least by half. Patches of other images are "
    "ranked by the cosine similarity of their features, and those that the class covers at least by half are "
    "relevant. Features are the patch tokens of an encoder. mAP is the mean average precision over queries. Patches "
    "of equal similarity have no order: precision@k and mAP@k are expected values over all orders."
)
"""Description of the protocol."""
_BASELINES = {
    **BASELINE_SENTENCES,
    "histogram": "Intensity histogram: 32 bins of the patch; it shows whether brightness alone finds the class.",
    "pixels": "Raw-pixel PCA: up to 64 principal components of the pixels of the patch.",
}
"""Description of each baseline, by key."""


@dataclass(frozen=True, eq=False)
class _Search:
    """Patches to rank, and queries among them.

    Attributes:
        images: Annotated images.
        patches: Patches of all images.
        numbers: Patch of each query (m,) int.
        labels: Class of each query (m,) int, an index into `classes`.
        classes: Numbers of the classes without the background.
        reference: Whether to follow the reference protocol.
    """

    images: AnnotatedImages
    patches: Patches
    numbers: np.ndarray
    labels: np.ndarray
    classes: list[int]
    reference: bool

    def rank(self, features: np.ndarray, ks: Sequence[int]) -> dict[str, Ranking]:
        """Rank the patches for all queries, by what is ranked."""
        relevant = self.patches.relevant[:, self.classes].T

        def scores(candidates: Callable[[np.ndarray], np.ndarray], ks: Sequence[int]) -> Ranking:
            return retrieval_scores(
                features[self.numbers],
                features,
                relevant=lambda queries: relevant[self.labels[queries]],
                candidates=lambda queries: candidates(self.numbers[queries]),
                ks=ks,
            )

        image = self.patches.image
        source = np.unique(self.images.sources, return_inverse=True)[1][image]
        if self.reference:
            return {NOT_TOUCHING: reference_values(scores(self._not_touching, ()))}
        return {
            OTHER_SOURCES: scores(lambda numbers: source[numbers][:, None] != source, ks),
            OTHER_IMAGES: scores(lambda numbers: image[numbers][:, None] != image, ks),
        }

    def _not_touching(self, numbers: np.ndarray) -> np.ndarray:
        """Return whether each patch is outside of the 3 x 3 patches around some others."""
        patches = self.patches
        near = patches.image[numbers][:, None] == patches.image
        for position in (patches.row, patches.col):
            near &= np.abs(position[numbers][:, None] - position) <= 1
        return ~near

    def queries(self) -> Queries:
        """Return the queries."""
        patches, image = self.patches, self.patches.image[self.numbers]
        return Queries(
            classes=tuple(self.images.classes[number] for number in self.classes),
            labels=self.labels,
            image_ids=self.images.image_ids[image],
            sources=self.images.sources[image],
            positions={"row": patches.row[self.numbers], "col": patches.col[self.numbers]},
        )


def run_patch_retrieval(settings: RetrievalSettings, models: Sequence[ModelSource]) -> RetrievalResult:
    """Run `evaluate retrieval --patches`; see `stedfm_hf.evaluation.evaluate_retrieval`.

    Args:
        settings: Settings of the command.
        models: Models to evaluate.
    """
    read = read_annotated_images(settings)
    splits = searched_split(read, settings.split)
    baselines = [name for name in settings.baselines if name in PATCH_BASELINES]
    extractors = extractors_of(settings, models, baselines, splits.test)
    methods = methods_of(extractors, baselines)
    size = _patch_size(extractors)
    named = {each.key: each.key for each in extractors if each.kind == "model"}
    keep, notes = exclude_training_images(named, splits.test)
    splits = splits.take({"train": keep, "test": keep})
    resolved = {
        "data": splits.test.name,
        "data_checksums": {"test": splits.test.fingerprint},
        "classes": list(splits.test.classes),
        "patch_size": size,
        "models": {each.key: each.identity.get("weights") for each in extractors},
        "chance": CHANCE in methods,
    }
    with open_report("evaluate retrieval", settings, methods, files=FILES, resolved=resolved) as output:
        if output.finished:
            output.report_finished()
        else:
            _run(output, settings, splits, extractors, methods, size, notes)
    result = RetrievalResult(output.path, output.manifest, dict(read_json(output.path / RESULTS)))
    result.print_notes()
    return result


def _patch_size(extractors: Sequence[Extractor]) -> int:
    """Return the patch size of all models.

    Raises:
        UserError: If a model has no patches, or models have different patches.
    """
    sizes = {}
    for each in extractors:
        if isinstance(each, EncoderExtractor):
            sizes[each.key] = int(each.encoder.model.config.patch_size)
        elif each.kind == "model":
            raise UserError(f"{each.key}: not a STED-FM model; only those have patch tokens here. Leave it out")
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} ({size} pixels)" for name, size in sizes.items())
        raise UserError(f"the models have patches of different sizes: {listed}. Evaluate them one by one")
    return next(iter(sizes.values()))


def _run(
    output: Output,
    settings: RetrievalSettings,
    splits: Splits[AnnotatedImages],
    extractors: Sequence[Extractor],
    methods: Sequence[MethodInfo],
    size: int,
    notes: Sequence[str],
) -> None:
    """Extract the features of all patches, rank them for the queries, and write the report.

    Raises:
        UserError: If no class covers a patch.
    """
    began, manifest = time.monotonic(), output.manifest
    manifest.items.clear()
    splits = _readable(splits, manifest)
    data = splits.test
    reference = settings.protocol == "reference"
    patches = patches_of(data, size, reference=reference)
    classes = [number for number in range(len(data.classes)) if number != data.background]
    numbers, labels = sample_queries(patches, classes, settings.queries_per_class, settings.seed)
    if not len(numbers):
        raise UserError(
            f"{data.name}: no class covers half of a patch of {size} pixels. Use a model of smaller patches"
        )
    search = _Search(data, patches, numbers, labels, classes, reference)
    print_note(f"{data.name}: {len(patches):,} patches of {size} pixels, {len(numbers):,} queries")
    rankings: dict[tuple[str, str], Ranking] = {}
    seconds = 0.0
    for extractor in extractors:
        start = time.monotonic()
        features = _features(extractor, data, patches, size)
        seconds += time.monotonic() - start
        (prepared,) = prepare_for_search(features, extractor, zscore=settings.zscore)
        rankings |= {(extractor.key, setting): found for setting, found in search.rank(prepared, settings.k).items()}
    if CHANCE in methods:
        equal = np.ones((len(patches), 1))
        rankings |= {(CHANCE.key, setting): found for setting, found in search.rank(equal, settings.k).items()}
    queries, primary = search.queries(), "auroc" if reference else "aupr"
    models = [each.key for each in methods if each.kind == "model"]
    report = RetrievalReport(
        command=manifest.command,
        splits=splits,
        data_notes=notes,
        methods=methods,
        queries=queries,
        rankings=rankings,
        primary=primary,
        summary=summarise_rankings(queries, rankings, primary=primary),
        comparisons=compare_rankings(queries, rankings, models, primary=primary),
        protocol=[PROTOCOL],
        baselines=_BASELINES,
        settings=json.loads(json.dumps(manifest.settings)),
        failed=manifest.failures(),
        seconds={"feature_extraction": seconds, "evaluation": time.monotonic() - began - seconds},
    )
    for image_id in data.image_ids.tolist():
        manifest.done(image_id)
    write_retrieval_report(report, output.path)


def _features(extractor: Extractor, data: AnnotatedImages, patches: Patches, size: int) -> np.ndarray:
    """Return the features (n, D) float32 of the used patches."""
    with Progress(len(data), description=extractor.name) as progress:

        def images() -> Iterator[StedImage]:
            for number in range(len(data)):
                progress.update()
                yield data.stored(number)

        parts = []
        for features, kept in zip(patch_features(extractor, images(), size), patches.kept, strict=True):
            if len(features) != len(kept):
                raise UserError(
                    f"{extractor.name}: scales images to another pixel size, so that its patches differ from those of "
                    "the masks. Evaluate it on images of its pixel size"
                )
            parts.append(features[kept])
    return np.concatenate(parts)


def _readable(splits: Splits[AnnotatedImages], manifest: Manifest) -> Splits[AnnotatedImages]:
    """Leave out images that cannot be read, and record them.

    Raises:
        UserError: If no image can be read.
    """
    data = splits.test
    failed = dict(data.failed)
    for number, image_id in enumerate(data.image_ids.tolist()):
        try:
            data.stored(number)
        except (ValueError, OSError) as error:
            failed[image_id] = " ".join(str(error).split())
    record_failures(failed, manifest)
    kept = ~np.isin(data.image_ids, list(failed))
    if not kept.any():
        raise UserError(f"{data.name}: none of {len(data)} images can be read. Check the files")
    return splits.take({"train": kept, "test": kept})
