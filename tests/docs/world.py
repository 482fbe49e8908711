"""The files that a page of the documentation finds: simulated images, tiny models, results of earlier commands."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable, Iterable
from contextlib import chdir
from hashlib import sha256
from pathlib import Path

import numpy as np
import tifffile
import torch

from stedfm_hf import StedFmConfig, StedFmForPreTraining
from stedfm_hf.cli import main
from stedfm_hf.data.simulation.fields import simulate_field
from stedfm_hf.data.simulation.physics import SimulationSettings
from stedfm_hf.runs.files import sha256_file, write_json
from stedfm_hf.weights.official import OFFICIAL_WEIGHTS
from tests import parity
from tests.data.archives.fabricated import curated, write_zip
from tests.data.official.fabricated import write_optim
from tests.data.official.test_segmentation_sets import write_factin
from tests.data.official.test_synaptic import write as write_synaptic
from tests.docs.blocks import ROOT, Block, read_commands
from tests.docs.shorter import shortened
from tests.images.imspector_files import Stack, write_obf
from tests.models import tiny_config

CLASSES = ("rings", "fibres", "puncta")
PER_CLASS = 18
SIZE = 224
FIELD_SIZE = 512
ANNOTATED_SIZE = 96


class World:
    """A folder whose parts are made when a page first needs them, and copied for every page.

    Args:
        folder: Folder to make the parts in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def part(self, name: str) -> Path:
        """Return the path of a part, making it if it is not there."""
        path = self.folder / name
        if not path.exists():
            PARTS[name](self, path)
        return path

    def copy(self, names: Iterable[str], target: Path) -> None:
        """Copy parts into the folder of a page."""
        for name in names:
            part = self.part(name)
            if part.is_symlink():
                (target / name).symlink_to(part.readlink())
            elif part.is_dir():
                shutil.copytree(part, target / name)
            else:
                shutil.copy(part, target / name)

    def run(self, *words: str) -> None:
        """Run a shortened command in the folder."""
        with chdir(self.folder), shortened():
            assert main(list(words)) == 0, words


def needed_parts(blocks: Iterable[Block]) -> list[str]:
    """Names of the parts that the blocks of a page use and do not make themselves."""
    made: set[str] = set()
    needed: dict[str, None] = {}
    for block in blocks:
        texts = [block.code] if block.language != "bash" else [command.text for command in read_commands(block)]
        for text in texts:
            output = output_of(text) if block.language == "bash" else None
            for name in PARTS:
                used = _is_word(name, text) if block.language == "bash" else _is_string(name, text)
                if used and name not in made and name != output:
                    needed[name] = None
            if output is not None:
                made.add(output)
    return list(needed)


def output_of(command: str) -> str | None:
    """Name of the folder or file in the page's folder that a command makes.

    Example:
        >>> output_of("stedfm data build images/ --output ./my-crops/  # crops")
        'my-crops'
    """
    words = command.partition(" #")[0].split()
    if words[:2] == ["stedfm", "convert"] and len(words) > 3:
        name = words[3]
    elif "--output" in words[:-1]:
        name = words[words.index("--output") + 1]
    else:
        return None
    return name.removeprefix("./").rstrip("/")


def _is_word(name: str, text: str) -> bool:
    return bool(re.search(rf"(?:^|[\s='\"])(?:\./)?{re.escape(name)}(?=[/\s'\"]|$)", text, re.MULTILINE))


def _is_string(name: str, text: str) -> bool:
    return bool(re.search(rf"['\"](?:\./)?{re.escape(name)}['\"/]", text))


def _simulated(structures: str | list[str], index: int, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """A field and its mask."""
    settings = SimulationSettings(height=size, width=size)
    field = simulate_field(structures, seed=7, index=index, settings=settings)
    return field.image, field.mask


def _write_tiff(path: Path, pixels: np.ndarray, axes: str = "YX") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, imagej=True, resolution=(50, 50), metadata={"unit": "um", "axes": axes})


def _images(world: World, path: Path) -> None:
    for name in CLASSES:
        for number in range(PER_CLASS):
            _write_tiff(path / name / f"{name}_{number:02d}.tif", _simulated(name, number)[0])


def _cell(world: World, path: Path) -> None:
    _write_tiff(path, _simulated("fibres", 100)[0])


def _imspector(world: World, path: Path) -> None:
    stacks = [_simulated("fibres", number)[0].astype("<u2") for number in (101, 102)]
    write_obf(path, *(Stack(stack, name=name) for stack, name in zip(stacks, ("STED", "Confocal"), strict=True)))


def _stack(world: World, path: Path) -> None:
    _write_tiff(path, np.stack([_simulated("fibres", number)[0] for number in range(103, 106)]), "ZYX")


def _fields(world: World, path: Path) -> None:
    for number in range(2):
        _write_tiff(path / f"field_{number}.tif", _simulated(["rings", "fibres"], number, FIELD_SIZE)[0])


def _annotated(world: World, path: Path) -> None:
    for number, letter in enumerate("abcdefghijklmnopqrstuvwx"):
        image, mask = _simulated(["rings", "fibres"], 10 + number, ANNOTATED_SIZE)
        _write_tiff(path / "images" / f"{letter}.tif", image)
        _write_tiff(path / "masks" / f"{letter}.tif", mask)


def _crops(world: World, path: Path) -> None:
    world.part("images")
    world.run("data", "build", "images/", "--labels", "folder", "--output", path.name)


def _small(world: World, path: Path) -> None:
    # The sizes that users see (embeddings of 384 numbers, 12 layers), with as few other weights as can be.
    torch.manual_seed(0)
    config = StedFmConfig(
        intermediate_size=64, decoder_hidden_size=64, decoder_num_hidden_layers=1, decoder_intermediate_size=64
    )
    StedFmForPreTraining(config).save_pretrained(path)


def _encoder(world: World) -> str:
    """A network that is much faster than `demo`."""
    path = world.folder / "encoder"
    if not path.exists():
        torch.manual_seed(0)
        StedFmForPreTraining(tiny_config(image_size=64)).save_pretrained(path)
    return path.name


def _classifier(world: World, path: Path) -> None:
    world.part("images")
    world.run("finetune", "classification", "--model", _encoder(world), "--dataset", "images/", "--output", path.name)


def _finetuned(world: World, path: Path) -> None:
    world.part("images")
    words = ("--mode", "last-blocks", "--blocks", "2", "--output", path.name)
    world.run("finetune", "classification", "--model", "demo", "--dataset", "images/", *words)


def _segmenter(world: World, path: Path) -> None:
    world.part("annotated")
    classes = ("--classes", "rings", "fibres")
    words = ("--model", _encoder(world), "--dataset", "annotated/", *classes, "--output", path.name)
    world.run("finetune", "segmentation", *words)


def _pretrained(world: World, path: Path) -> None:
    world.part("my-crops")
    world.run("pretrain", "--recipe", "64-p8", "--dataset", "my-crops", "--output", path.name)


def _small_crops(world: World, path: Path) -> None:
    world.part("images")
    world.run("data", "build", "images/", "--labels", "folder", "--crop-size", "64", "--output", path.name)


def _pipeline(world: World, path: Path) -> None:
    world.part("small-crops")
    words = ("--dataset", "small-crops", "--model", "demo", "--output", path.name)
    world.run("pretrain", "generation", "--recipe", "demo", *words)


def _archive_of_crops(world: World, path: Path) -> None:
    write_zip(path, [curated(number, "tubulin" if number % 2 else "actin") for number in range(8)])


def _optim(world: World, path: Path) -> None:
    write_optim(world.folder / "optim-sources")
    shutil.make_archive(str(path.with_suffix("")), "zip", world.folder / "optim-sources")


def _factin(world: World, path: Path) -> None:
    write_factin(world.folder / "factin-sources" / "factin")
    shutil.make_archive(str(path.with_suffix("")), "zip", world.folder / "factin-sources")


def _synaptic(world: World, path: Path) -> None:
    write_synaptic(path)


def _scripts(world: World, path: Path) -> None:
    path.symlink_to(ROOT / "stedfm_hf" / "training")


def _diffusion_model(world: World, path: Path) -> None:
    weights = path.with_suffix(".pth")
    state = {f"model.{key}": tensor for key, tensor in parity.unet_state_dict().items()}
    torch.save({"state_dict": state}, weights)
    with zipfile.ZipFile(path, "w") as file:
        file.write(weights, "checkpoint-69.pth")
    weights.unlink()


PARTS: dict[str, Callable[[World, Path], None]] = {
    "images": _images,
    "cell.tif": _cell,
    "cell.msr": _imspector,
    "stack.tif": _stack,
    "fields": _fields,
    "annotated": _annotated,
    "my-crops": _crops,
    "small-crops": _small_crops,
    "stedfm-vit-small": _small,
    "my-classifier": _classifier,
    "my-finetuned": _finetuned,
    "my-segmenter": _segmenter,
    "my-pipeline": _pipeline,
    "run": _pretrained,
    "STED-FM-subset-dataset-crops.zip": _archive_of_crops,
    "optim-data.zip": _optim,
    "factin-segmentation-data.zip": _factin,
    "synprot": _synaptic,
    "diffusion-model.zip": _diffusion_model,
    "training": _scripts,
}


def write_official_archive(cache: Path) -> None:
    """Write the authors' archive of the small model, with other weights, as if it had been downloaded."""
    url = OFFICIAL_WEIGHTS["MAE_SMALL_STED"].url
    assert url is not None
    folder = cache / "downloads" / sha256(url.encode()).hexdigest()[:16]
    folder.mkdir(parents=True)
    archive = folder / url.rpartition("/")[2]
    torch.save({"state_dict": parity.reference_state_dict("small")}, folder / "weights.pth")
    with zipfile.ZipFile(archive, "w") as file:
        file.write(folder / "weights.pth", "pl_checkpoint-999.pth")
    (folder / "weights.pth").unlink()
    record = {"url": url, "size": archive.stat().st_size, "sha256": sha256_file(archive), "downloaded": "2026-01-01"}
    write_json(folder / "record.json", record)
