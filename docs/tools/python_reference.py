"""Pages of the Python API: which names stand on which page. mkdocstrings fills them from the docstrings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import griffe

from docs.tools.cli_reference import markdown
from docs.tools.public_names import exported_names

FOLDER = "reference/python"


@dataclass(frozen=True)
class ApiPage:
    """A page of the reference.

    Attributes:
        name: Name of the file, without its suffix.
        title: Heading of the page.
        about: One sentence on what is here.
        package: Package whose exported names are shown; none if empty.
        names: Further modules, classes and functions.
    """

    name: str
    title: str
    about: str
    package: str = ""
    names: tuple[str, ...] = ()


PAGES = (
    ApiPage(
        "modeling",
        "Models and pipelines",
        "Configuration, models with their outputs, image processor and pipelines: the classes behind the Auto classes "
        "of transformers. Import the classes from `stedfm_hf`, such as `from stedfm_hf import StedFmModel`, or load "
        "them [by the Auto classes](../../explanation/models.md).",
        names=tuple(
            f"stedfm_hf.modeling.{each}"
            for each in (
                "configuration_stedfm",
                "modeling_stedfm",
                "modeling_stedfm_mae",
                "modeling_stedfm_segmentation",
                "image_processing_stedfm",
                "pipeline_stedfm",
                "generation_pipeline_stedfm",
                "sampling_stedfm",
                "conditioning_stedfm",
                "unet_stedfm",
                "tiling_stedfm",
                "blending_stedfm",
                "channels",
            )
        ),
    ),
    ApiPage(
        "images",
        "Images",
        "Find and read microscope images.",
        package="stedfm_hf.images",
    ),
    ApiPage(
        "data",
        "Data sets",
        "Build, import, simulate, stream and publish data sets.",
        package="stedfm_hf.data",
        names=("stedfm_hf.data.official.registry.list_sets",),
    ),
    ApiPage("inference", "Inference", "Embed, classify and segment images.", package="stedfm_hf.inference"),
    ApiPage(
        "studies",
        "Studies",
        "Build, simulate and serve studies that ask people about images, and analyse the answers.",
        names=(
            "stedfm_hf.studies.build.build_study",
            "stedfm_hf.studies.simulate.simulate_study",
            "stedfm_hf.studies.serving.serve.serve_study",
            "stedfm_hf.studies.serving.invite.invite_participants",
            "stedfm_hf.studies.serving.export.export_answers",
            "stedfm_hf.studies.analyse.analyse_study",
        ),
    ),
    ApiPage(
        "interpretability",
        "Interpretability",
        "Show what a model looks at.",
        package="stedfm_hf.interpretability",
    ),
    ApiPage("evaluation", "Evaluation", "Compare models with baselines.", package="stedfm_hf.evaluation"),
    ApiPage("metrics", "Metrics", "Metrics, intervals and tests.", package="stedfm_hf.metrics"),
    ApiPage(
        "weights",
        "Weights",
        "Find, download and convert weights.",
        names=tuple(
            f"stedfm_hf.weights.{each}" for each in ("convert", "models", "default_model", "official", "archives")
        ),
    ),
    ApiPage(
        "training",
        "Training",
        "Pretrain and fine-tune models.",
        names=(
            "stedfm_hf.training.pretrain.pretrain",
            "stedfm_hf.training.generate.pretrain_generation",
            "stedfm_hf.training.classify.finetune_classification",
            "stedfm_hf.training.segment.finetune_segmentation",
            "stedfm_hf.training.finetuning.task",
            "stedfm_hf.training.finetuning.summary",
        ),
    ),
    ApiPage(
        "discovery",
        "Discovery",
        "Index images, search for similar images and places, and find groups.",
        names=(
            "stedfm_hf.discovery.index.building",
            "stedfm_hf.discovery.index.opened",
            "stedfm_hf.discovery.search.searching",
            "stedfm_hf.discovery.cluster",
        ),
    ),
    ApiPage(
        "generation",
        "Generation",
        "Generate images, and show what an attribute looks like.",
        package="stedfm_hf.generation",
    ),
    ApiPage(
        "acquisition",
        "Acquisition",
        "Fit, evaluate and serve finders of structures, find regions to image, and control or simulate a microscope.",
        package="stedfm_hf.acquisition",
        names=("stedfm_hf.data.simulation.optics",),
    ),
    ApiPage(
        "app",
        "App",
        "Serve the models in the browser.",
        package="stedfm_hf.app",
    ),
    ApiPage(
        "exports",
        "Exports",
        "Write models for transformers, timm, ONNX and OpenVINO.",
        names=("stedfm_hf.hub.export.export", "stedfm_hf.exports.folders", "stedfm_hf.exports.comparing"),
    ),
    ApiPage(
        "hub",
        "Hub",
        "Publish folders on the Hub, and serve models.",
        names=(
            "stedfm_hf.hub.publish.publish",
            "stedfm_hf.hub.kinds",
            "stedfm_hf.hub.endpoint.handler",
            "stedfm_hf.hub.official_cards",
            "stedfm_hf.runs.upload",
            "stedfm_hf.runs.upload_checks",
        ),
    ),
    ApiPage(
        "reports",
        "Reports and cards",
        "Plot figures, and write HTML reports, model cards and data set cards.",
        names=("stedfm_hf.reports.figures", "stedfm_hf.reports.html", "stedfm_hf.cards"),
    ),
    ApiPage(
        "commands",
        "Writing a command",
        "A command is settings, output, items and a result; see "
        "[how to add a command](../../explanation/architecture.md#how-to-add-a-command).",
        names=tuple(
            f"stedfm_hf.runs.{each}"
            for each in (
                "settings",
                "options",
                "output",
                "items",
                "result",
                "command_line",
                "errors",
                "manifest",
                "files",
                "progress",
                "wording",
            )
        ),
    ),
    ApiPage(
        "demo",
        "Demo, doctor and info",
        "The demo, the check of an installation, and the summary of a folder.",
        names=("stedfm_hf.demo.run.demo", "stedfm_hf.doctor.check_installation", "stedfm_hf.info.info.info"),
    ),
)


def python_pages(package: griffe.Module) -> dict[str, str]:
    """Return the Markdown of every page by its path in the site.

    Args:
        package: The package, read by griffe.
    """
    pages = {f"{FOLDER}/{page.name}.md": _page(page, package) for page in PAGES}
    return {f"{FOLDER}/index.md": _index(package), **pages}


def _index(package: griffe.Module) -> str:
    lines = [
        "# Python API",
        "",
        "`import stedfm_hf` registers the models with the Auto classes of transformers. These names can be imported",
        "from `stedfm_hf` itself:",
        "",
        "| name | description |",
        "|---|---|",
        *(
            f"| [`{name}`][{_target(package, name).path}] | {_summary(package, name)} |"
            for name in exported_names(package)
        ),
        "",
        "The other names are imported from their packages:",
        "",
        "| page | package | description |",
        "|---|---|---|",
        *(f"| [{page.title}]({page.name}.md) | `{_package_of(page)}` | {page.about} |" for page in PAGES),
        "",
    ]
    return "\n".join(lines)


def _page(page: ApiPage, package: griffe.Module) -> str:
    lines = [f"# {page.title}", "", page.about, ""]
    if page.package:
        module = package[page.package.removeprefix(f"{package.path}.")]
        names = exported_names(module)
        lines += ["| name | description |", "|---|---|"]
        lines += [f"| [`{each}`][{_target(module, each).path}] | {_summary(module, each)} |" for each in names]
        lines += ["", f"Import them from `{page.package}`, such as `from {page.package} import {names[0]}`.", ""]
        lines += list(_blocks(f"{page.package}.{each}" for each in names))
    lines += list(_blocks(page.names))
    return "\n".join(lines)


def _blocks(names: Iterator[str] | tuple[str, ...]) -> Iterator[str]:
    for each in names:
        yield f"::: {each}\n"


def _package_of(page: ApiPage) -> str:
    return page.package or ".".join(page.names[0].split(".")[:2])


def _target(module: griffe.Module, name: str) -> griffe.Object:
    found = module.members[name]
    return found.final_target if isinstance(found, griffe.Alias) else found


def _summary(module: griffe.Module, name: str) -> str:
    docstring = _target(module, name).docstring
    return markdown(docstring.value.partition("\n\n")[0]) if docstring is not None else ""
