"""The words and tables of the demo's report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stedfm_hf.demo.scores import Scores
from stedfm_hf.reports import Picture, Section, Table
from stedfm_hf.reports.html import write_page
from stedfm_hf.training.quick import QuickResult

FEW_STEPS = 500


@dataclass(frozen=True)
class Story:
    """What happened in a demo, as far as the report tells it.

    Args:
        images: number of images embedded.
        simulated: whether they are simulated.
        model: name of the model.
        seconds: time the demo took until the report.
        training: the training, or None where published weights were used.
        trained_on: number of images the training used, the held-out ones included.
        scores: accuracies, or None where the images have no labels.
        map_method: how the map was made.
        figures: PNG files by name: overview, reconstructions, map, neighbours, loss, accuracy.
        failed: why some files could not be embedded, by path.
    """

    images: int
    simulated: bool
    model: str
    seconds: float
    training: QuickResult | None
    trained_on: int
    scores: Scores | None
    map_method: str
    figures: Mapping[str, Path]
    failed: Mapping[str, str]


def percent(value: float) -> str:
    """A share in whole percent, with a space that breaks no line."""
    return f"{100 * value:.0f}\u00a0%"


def summary(story: Story) -> list[str]:
    """What came out, one sentence a line; the report opens with it and the terminal ends with it."""
    lines = []
    if (training := story.training) is not None:
        end, constant = training.held_out_loss[-1].loss, training.constant_loss
        gap = f"{percent(1 - end / constant)} below" if training.has_learned else "not below"
        lines.append(
            f"After {training.seconds:.0f} s of training on {story.trained_on - len(training.held_out)} images, the "
            f"network's loss on held-out images is {end:.4f}, {gap} that of a constant prediction ({constant:.4f})."
        )
        if training.steps < FEW_STEPS:
            lines.append(f"Those were only {training.steps} steps: on this machine a longer --seconds shows more.")
    if (scores := story.scores) is not None:
        network, *others = scores.methods
        result = network.result
        lines.append(
            f"Its vectors give {percent(result.accuracy)} of {result.images} images the right one of "
            f"{len(set(scores.labels))} labels by their nearest neighbours "
            f"(95\u00a0% interval {percent(result.low)} to {percent(result.high)}); "
            f"chance is {percent(scores.chance)}."
        )
        names = ("the same network untrained", "a log-spectrum PCA", "an intensity histogram")
        groups: dict[str, list[str]] = {}
        for method, name in zip(others, names, strict=True):
            groups.setdefault(scores.verdict(method.key), []).append(f"{name} ({percent(method.result.accuracy)})")
        lines.append("That is " + "; ".join(f"{word} {_list(members)}" for word, members in groups.items()) + ".")
    return lines


def _list(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def write_report(path: Path, story: Story) -> Path:
    """Writes the report, one self-contained HTML file."""
    what = "simulated STED images" if story.simulated else "your images"
    facts = {"images embedded": str(story.images)}
    if story.training is not None:
        facts["training"] = f"{story.training.seconds:.0f} s"
        facts["training crops"] = f"{story.training.crops:,}".replace(",", "\u202f")
    if story.scores is not None:
        facts["kNN accuracy"] = percent(story.scores.methods[0].result.accuracy)
        facts["chance"] = percent(story.scores.chance)
    facts["whole demo"] = f"{story.seconds:.0f} s"
    sections = [_overview(story)]
    if story.training is not None:
        sections.append(_training(story, story.training))
    if "reconstructions" in story.figures:
        sections.append(_reconstructions(story))
    sections.append(_map(story))
    if "neighbours" in story.figures:
        sections.append(_neighbours(story))
    if story.scores is not None:
        sections.append(_accuracy(story, story.scores))
    if story.training is not None:
        sections.append(_use())
    if story.failed:
        rows = [(name, reason) for name, reason in story.failed.items()]
        sections.append(Section("Files that could not be embedded", table=Table(("file", "why"), rows)))
    return write_page(
        path,
        title=f"STED-FM demo: {what}",
        lead=" ".join(summary(story)) or f"{story.images} images embedded with {story.model}.",
        facts=facts,
        sections=sections,
        footer="Made by `stedfm demo` of the package stedfm-hf. This file holds everything it shows; the figures lie "
        "beside it as PNG and SVG in the folder figures, all numbers in metrics.json.",
    )


def _picture(story: Story, name: str, alt: str, caption: str = "") -> Picture:
    return Picture.of_figure(story.figures[name], alt, caption)


def _overview(story: Story) -> Section:
    if "overview" not in story.figures:
        return Section("What this is", _what(story))
    alt = "Left, reconstructions of masked images; right, a map of the embeddings with small pictures of the images"
    return Section("What this is", _what(story), [_picture(story, "overview", alt)])


def _what(story: Story) -> list[str]:
    if story.simulated:
        source = (
            "The images are simulated: clouds of emitters blurred by an effective STED point spread function, with "
            "Poisson noise, in four structures. Photons, background, blur and density come from the same ranges for "
            "all of them, and each image takes over the intensities of an image of a random structure, so that only "
            "shape tells them apart. What is shown here holds for these images; it is no statement about real ones."
        )
    else:
        source = "The images are your own files, read with their full bit depth and scaled once as a whole."
    if story.training is None:
        return [source, f"They are embedded with the weights of {story.model}; nothing was trained."]
    network = (
        "A small masked autoencoder (stedfm-vit-64-p8) was trained on "
        + ("other such images" if story.simulated else "these same images, without their labels")
        + ", saved as a Hugging Face folder, loaded back with AutoModel.from_pretrained, and used through the same "
        "embed function that users call. A minute or two shows that everything works, not what the published weights "
        "can do: those were trained on about a million crops of real images."
    )
    return [source, network]


def _training(story: Story, training: QuickResult) -> Section:
    text = [
        "The network sees a quarter of the patches of a crop and predicts the pixels of the others. Predicting the "
        "mean pixel everywhere is what a network reaches that has learned nothing: only below that line has it "
        "learned to see structure. Photon noise cannot be predicted, so the loss cannot come near zero.",
    ]
    caption = (
        f"{training.steps} steps of 32 crops on {training.device} in {training.precision}, "
        f"{training.crops_per_second:.0f} crops per second; {len(training.held_out)} of {story.trained_on} images "
        "held out, the same crops and masks at every check and for the constant prediction."
    )
    alt = "Loss on training crops and held-out images over time, beside the loss of a constant prediction"
    return Section("Did it learn anything?", text, [_picture(story, "loss", alt, caption)])


def _reconstructions(story: Story) -> Section:
    caption = (
        "The first images of each label in order of file, not picked by outcome. Grey patches are hidden from the "
        "network; in the reconstruction visible patches are as they were. The region is filled tile by tile, each "
        "tile of the size the network was trained on."
    )
    alt = "Rows of an image, the image with hidden patches, and the reconstruction"
    return Section("Reconstructions", (), [_picture(story, "reconstructions", alt, caption)])


def _map(story: Story) -> Section:
    method = {
        "t-SNE": "Positions by t-SNE: neighbours are meaningful, distances between far groups and the shape of groups "
        "are not.",
        "PCA": "Positions by the first two principal components.",
        "order": "Too few images for a map: they stand in a row.",
    }[story.map_method]
    coloured = " Colours are the labels; the network never saw them." if story.scores is not None else ""
    caption = f"{method}{coloured} Pictures show the middle of an image, wherever there is room for one."
    return Section("Map of the embeddings", (), [_picture(story, "map", "Map of the embeddings", caption)])


def _neighbours(story: Story) -> Section:
    caption = "Cosine similarity of z-scored vectors, the most similar first"
    caption += ", other files only." if not story.simulated else "; images left, neighbours from the gallery."
    if story.scores is not None:
        caption += " Frames show the label: a frame of another colour than the first is a mistake."
    caption += " The first images of each label in order of file, not picked by outcome; of large ones the middle."
    return Section("Nearest neighbours", (), [_picture(story, "neighbours", "Images and their neighbours", caption)])


def _accuracy(story: Story, scores: Scores) -> Section:
    network = scores.methods[0].result
    if scores.left_out:
        how = (
            f"Each of {network.images} images asks the {network.k} nearest among all others but those of its own file."
        )
    else:
        how = (
            f"Each of {network.images} query images asks the {network.k} nearest among {scores.gallery} gallery "
            "images; queries and gallery show different fields."
        )
    text = [
        f"{how} The majority decides. All vectors are means over patches, z-scored by the gallery; nothing is trained "
        "on the labels. The untrained network has the same architecture, pooling and scaling, standardised input "
        "included: what it reaches comes from the architecture, not from learning. The log-spectrum PCA is a strong "
        "hand-made feature for textures like these.",
    ]
    if not story.simulated:
        text.append(
            "Folders that differ in how they were acquired can be told apart by that alone: the intensity histogram "
            "shows how far. Several images of one sample or one day are not independent, whatever the intervals say."
        )
    rows = []
    for method in scores.methods:
        result = method.result
        gain = ""
        if method is not scores.methods[0]:
            value, low, high = scores.gain(method.key)
            points = [f"{round(100 * part):+d}" for part in (value, low, high)]
            gain = f"{points[0]} ({points[1]} to {points[2]})"
        interval = f"{percent(result.low)} to {percent(result.high)}"
        rows.append((method.name, percent(result.accuracy), interval, str(result.images), gain))
    rows.append(("Chance", percent(scores.chance), "", "", ""))
    per_label = ", ".join(f"{label} {percent(value)}" for label, value in scores.per_label().items())
    table = Table(
        ("method", "accuracy", "95 % interval", "images", "network's gain, points"),
        rows,
        f"Intervals count source files as the independent units ({network.sources} of them); the gain is paired, over "
        f"the same images. The network by label: {per_label}. One seed: a second run differs by a few points.",
        strong=0,
    )
    alt = "Accuracy of the network, its untrained twin, a log-spectrum PCA and an intensity histogram, with chance"
    return Section("Do the vectors know the structures?", text, [_picture(story, "accuracy", alt)], table)


def _use() -> Section:
    return Section(
        "Use the model",
        [
            "The folder model beside this report is a complete Hub repository: "
            'AutoModel.from_pretrained("model") and AutoImageProcessor.from_pretrained("model") load it after '
            "import stedfm_hf, and stedfm embed IMAGES --model model --output vectors.parquet embeds any folder."
        ],
    )
