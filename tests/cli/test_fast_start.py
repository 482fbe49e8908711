"""Help, wrong arguments, missing files and unusable folders are answered before anything slow is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stedfm_hf.runs.errors import EXIT_USAGE
from stedfm_hf.runs.manifest import Manifest
from tests.command_lines import commands

PROBE = """
import contextlib, io, json, sys
from stedfm_hf.cli import main
for line in sys.stdin.read().splitlines():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as told:
        status = main(json.loads(line))
    slow = sorted({'torch', 'transformers', 'datasets'} & set(sys.modules))
    print(json.dumps([status, slow, told.getvalue()]), flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with nothing to read in it, and with results of commands that are not models."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "thesis.txt").write_text("not ours")
    for name, command in (("crops", "data build"), ("unfinished", "finetune classification")):
        (tmp_path / name).mkdir()
        Manifest(command=command, settings={}).save(tmp_path / name / "manifest.json")
    return tmp_path


def run(lines: list[list[str]], cwd: Path) -> list[tuple[int, list[str], str]]:
    """Exit status, slow modules in memory and standard error after each command line, all in one fresh process."""
    words = "\n".join(json.dumps(line) for line in lines)
    code = [sys.executable, "-c", PROBE]
    found = subprocess.run(code, input=words, capture_output=True, text=True, cwd=cwd, timeout=300, check=False)
    assert found.returncode == 0, found.stderr
    return [tuple(json.loads(line)) for line in found.stdout.splitlines()]


def test_help_and_wrong_options_of_every_command_import_nothing_slow(folder: Path) -> None:
    every = commands()
    assert {("embed",), ("data", "build"), ("finetune", "segmentation"), ("evaluate", "knn")} <= set(every)
    lines = [["--help"]] + [[*command, "--help"] for command in every]
    for line, (status, slow, told) in zip(lines, run(lines, folder), strict=True):
        assert (status, slow) == (0, []), (line, told)
    lines = [[*command, "--no-such-option", "1"] for command in every]
    for line, (status, slow, told) in zip(lines, run(lines, folder), strict=True):
        assert (status, slow) == (EXIT_USAGE, []), (line, told)
        assert "such-option" in told.replace("_", "-") or "is missing" in told, (line, told)


MISTAKES = [
    ("embed missing.tif", "missing.tif: no such file or folder"),
    ("embed empty --model demo", "no files"),
    ("embed {image} --model nowhere", "model nowhere: no such folder"),
    ("embed {image} --model unfinished", "its training has not ended"),
    ("embed {image} --model crops", "is not a model: `stedfm data build` wrote the folder"),
    ("embed {image} --model demo --output occupied", "*.parquet or *.csv"),
    ("embed {image} --model demo --pooling most", "pooling 'most' is unknown"),
    ("embed {image} --model demo --device tpu", "device 'tpu' is unknown"),
    ("classify {image}", "--model is missing"),
    ("classify {image} --model demo", "has no classifier"),
    ("segment empty --model demo", "no files"),
    ("segment {image} --model demo", "has no decoder for masks"),
    ("segment {image} --model demo --output occupied", "holds other files"),
    ("explain empty --model demo", "no files"),
    ("explain {image} --model nowhere", "model nowhere: no such folder"),
    ("explain {image} --model demo --method logit", "has no classifier"),
    ("explain {image} --model demo --output occupied", "holds other files"),
    ("explain {image} --model demo --foreground otsu", "--foreground does not fit the method attention"),
    ("explain {image} --model demo --method similarity", "needs --compare-with MODEL"),
    ("explain {image} --model demo --method similarity --compare-with nowhere", "model nowhere: no such folder"),
    ("explain {image} --model demo --method correspondence --reference-image no.tif", "no.tif: no such file"),
    ("explain {image} --model demo --method pca --components missing", "missing"),
    ("index", "INPUT is missing"),
    ("index missing --model demo", "missing: no such file or folder"),
    ("index {image} --model nowhere", "model nowhere: no such folder"),
    ("index {image} --model demo --output occupied", "holds other files"),
    ("finder fit --output out", "--dataset is missing"),
    ("finder fit --dataset missing --output out", "missing: no such folder"),
    ("finder fit --dataset empty --output occupied", "holds other files"),
    ("finder fit --dataset empty --output out --clicks no.csv", "--clicks no.csv: no such file"),
    ("finder fit --dataset empty --output out --clicks no.csv --masks empty", "remove --masks and --classes"),
    ("finder fit --dataset empty --output out --model nowhere", "model nowhere: no such folder"),
    ("finder fit --dataset empty --output out --method forests", "method 'forests' is unknown"),
    ("finder fit --dataset empty --output out --method logistic --protocol reference", "has no method logistic"),
    ("find {image}", "--finder is missing"),
    ("find {image} --finder missing", "finder missing: no such folder"),
    ("find {image} --finder empty --output occupied", "holds other files"),
    ("find {image} --finder empty --stage no.json", "--stage no.json: no such file"),
    ("find {image} --finder empty --region-size-px 9 --region-size-um 1", "give one of them"),
    ("evaluate acquisition", "--output is missing"),
    ("evaluate acquisition --output out --targets rods", "unknown structure 'rods'"),
    ("evaluate acquisition --output out --seeds 1 1", "names one of them twice"),
    ("evaluate acquisition --output out --engine builtin --model nowhere", "model nowhere: no such folder"),
    ("evaluate acquisition --output occupied --engine builtin --model demo", "holds other files"),
    ("serve --model nowhere", "model nowhere: no such folder"),
    ("serve --model demo --host 0.0.0.0", "other computers reach this address, and there is no token"),
    ("serve --model demo --tokens no.txt", "--tokens no.txt: cannot be read"),
    ("serve --model demo --share missing", "--share missing: no such folder"),
    ("cluster missing", "missing: no such file or folder"),
    ("cluster empty --partition 1", "partition is 1; it must be at least 2"),
    ("cluster empty --partition 2 --protocol reference", "exclude each other"),
    ("cluster empty --output occupied", "holds other files"),
    ("search missing {image}", "missing: no such folder"),
    ("search empty", "QUERY is missing"),
    ("search empty {image} --box 0 0 8 8 --mask {image}", "give one of them"),
    ("search empty {image} --output occupied", "holds other files"),
    ("search empty {image}", "is not an index"),
    ("app --model nowhere", "model nowhere: no such folder"),
    ("app --classifier demo", "has no classifier"),
    ("app --segmenter demo", "has no decoder for masks"),
    ("app --index missing.parquet", "missing.parquet: no such file or folder"),
    ("app --groups empty", "groups empty: holds no tree"),
    ("app --port 99999", "port is 99999; it must be 0 to 65535"),
    ("app --index-images empty", "--index-images needs a table"),
    ("embed {image} --model demo --precision int8", "precision int8 needs the backend onnx"),
    ("export nowhere --format onnx --output out", "model nowhere: no such folder"),
    ("export demo --format onnx --output occupied", "holds other files"),
    ("export demo --format timm --precision int8 --output out", "--format timm has no precision int8"),
    ("info missing.tif", "missing.tif: no such file"),
    ("convert NOPE out", "NOPE"),
    ("convert MAE_SMALL_STED occupied", "occupied"),
    ("data build missing --output out", "missing: no such file or folder"),
    ("data build empty --output out", "no files"),
    ("data build {image} --output occupied", "holds other files"),
    ("data build {image} --output occupied/thesis.txt", "is a file"),
    ("data build {image} --output out --labels missing.csv", "missing.csv: the table of labels cannot be read"),
    ("data build {image} --output out --masks missing", "--masks missing: no such folder"),
    ("data build {image} --output out --crop-size 0", "crop_size is 0; it must be at least 1"),
    ("data simulate --preset nope --output out", "nope"),
    ("data simulate --output out --preset benchmark-v1 --photons 1 2", "fixes photons"),
    ("data simulate --output out --structures rod", "unknown structure 'rod'"),
    ("data simulate --output out --splits train", "split 'train' is not NAME=N"),
    ("data simulate --output out --seed -1", "seed is -1; it must be at least 0"),
    ("data simulate --output occupied", "holds other files"),
    ("data import-archive missing.zip --output out", "missing.zip"),
    ("data import-set nope missing.zip --output out", "nope"),
    ("data import-set optim missing.zip --output out", "missing.zip"),
    ("data import-archive occupied/thesis.txt --output out", "not a tar or zip archive"),
    ("data import-set optim empty --output occupied", "holds other files"),
    ("data stats missing", "missing: no such folder"),
    ("data stats empty", "empty: holds no Parquet file"),
    ("data stats empty --output occupied", "empty: holds no Parquet file"),
    ("data push missing lab/crops", "missing: no such folder"),
    ("data push empty crops", "OWNER/NAME"),
    ("data push empty lab/crops", "empty: has no index.json"),
    ("pretrain --output out", "--dataset is missing"),
    ("pretrain --dataset missing --output out", "missing"),
    ("pretrain --dataset empty --output out --recipe nope", "recipe 'nope' is unknown"),
    ("demo --images missing --output out", "missing: is not a folder"),
    ("demo --output occupied", "holds other files"),
    ("finetune classification --model demo --output out", "--dataset is missing"),
    ("finetune classification --model demo --dataset missing --output out", "missing"),
    ("finetune classification --model nowhere --dataset lab/crops --output out", "nowhere"),
    ("finetune segmentation --model demo --dataset missing --output out", "missing"),
    ("evaluate find --dataset missing --model demo --output out", "missing"),
    ("evaluate find --dataset . --model nowhere --output out", "model nowhere: no such folder"),
    ("evaluate find --dataset . --model demo --output occupied", "holds other files"),
    ("evaluate find --dataset . --finder nowhere --output out", "finder nowhere: no such folder"),
    ("evaluate find --dataset . --protocol reference --method logistic --output out", "has no method logistic"),
    ("evaluate knn --dataset missing --model demo --output out", "missing"),
    ("evaluate knn --dataset empty --model demo --output out", "empty: no files"),
    ("evaluate knn --dataset . --model nowhere --output out", "model nowhere: no such folder"),
    ("evaluate probe --dataset missing --model demo --output out", "missing"),
    ("evaluate retrieval --dataset missing --model demo --output out", "missing"),
    ("evaluate retrieval --dataset . --model demo --output out --k 0", "k is 0"),
    ("evaluate retrieval --dataset . --model demo --output out --classes a b", "add --patches"),
    ("evaluate retrieval --patches --dataset missing --model demo --output out", "missing"),
    ("evaluate segmentation --dataset missing --model demo --output out", "missing"),
    ("evaluate weights --model demo --baselines none --output out", "nothing to compare with"),
    ("evaluate weights --model demo nowhere --output out", "model nowhere: no such folder"),
    ("evaluate weights --model demo --output occupied", "holds other files"),
    ("study simulate missing.yaml", "missing.yaml: cannot be read"),
    ("study serve missing.yaml", "missing.yaml: cannot be read"),
    ("study serve missing.yaml --host 0.0.0.0", "needs --address"),
    ("study invite missing.sqlite", "missing.sqlite: no such file"),
    ("study export image.npy", "is not a file of answers"),
    ("study analyse occupied/thesis.txt answers.parquet", "the file must hold lines like `key: value`"),
]


def test_wrong_input_is_told_before_anything_slow_is_imported(folder: Path) -> None:
    import numpy as np

    np.save(folder / "image.npy", np.zeros((8, 8), np.uint8))
    lines = [words.format(image="image.npy").split() for words, _ in MISTAKES]
    for (words, message), (status, slow, told) in zip(MISTAKES, run(lines, folder), strict=True):
        assert (status, slow) == (EXIT_USAGE, []), (words, told)
        assert message in told and told.startswith("stedfm: "), (words, told)
        assert len(told.splitlines()) <= 2, (words, told)
