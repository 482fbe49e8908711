"""Run every command and every piece of code of the README and the docs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from stedfm_hf.cards.published import CARD, card_for_hub
from tests.docs.blocks import PAGES, Block, name_of, read_blocks
from tests.docs.running import SnippetError, run_blocks
from tests.docs.world import World, needed_parts, write_official_archive
from tests.hub_server import Hub, hub_server, use_hub

LANGUAGES = {"bash", "python", "text", "yaml", "json"}
# Why a block is not run, and in how many blocks at most. Prefer code that runs: there are data, models and a Hub.
REASONS = {
    "CI runs these targets": 1,
    "installs packages": 3,
    "logs in to the Hub": 2,
    "needs a bucket": 1,
    "needs a clone of the repository": 1,
    "needs a cluster": 4,
    "needs a GPU": 2,
    "needs a microscope": 1,
    "needs an Inference Endpoint": 1,
    "needs Docker and the network": 1,
    "needs the server of the block above": 6,
    "needs torchvision and the scripts of transformers": 1,
    "serves until it is stopped": 7,
    "takes hours": 2,
    "tests run it with a server": 1,
    "takes minutes": 3,
}
# Pages that take more than a few seconds; tests/cli/test_documented_commands.py checks their commands quickly.
SLOW = {
    "README.md",
    "docs/index.md",
    "docs/how-to/app.md",
    "docs/how-to/build-a-dataset.md",
    "docs/how-to/cluster.md",
    "docs/how-to/compare-weights.md",
    "docs/how-to/convert-weights.md",
    "docs/how-to/embed.md",
    "docs/how-to/evaluate-classification.md",
    "docs/how-to/evaluate-retrieval.md",
    "docs/how-to/evaluate-segmentation.md",
    "docs/how-to/explain.md",
    "docs/how-to/export.md",
    "docs/how-to/find-structures.md",
    "docs/how-to/finetune-classification.md",
    "docs/how-to/finetune-segmentation.md",
    "docs/how-to/generate.md",
    "docs/how-to/pretrain.md",
    "docs/how-to/publish.md",
    "docs/how-to/run-a-study.md",
    "docs/how-to/run-on-a-cluster.md",
    "docs/how-to/search.md",
    "docs/how-to/segment.md",
    "docs/how-to/show-an-attribute.md",
    "docs/how-to/simulate.md",
    "docs/how-to/train-on-a-cluster.md",
    "docs/how-to/trust-on-my-microscope.md",
}
# Data sets on the Hub that pages may use: a server on this machine has them.
HUB = {"my-lab/my-crops": "my-crops", "lab/other-crops": "my-crops"}


def runnable(page: Path) -> list[Block]:
    """Blocks of a page that are run; text and JSON are output."""
    return [block for block in read_blocks(page) if block.not_run is None and block.language not in ("text", "json")]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the authors' archive, which all pages share: embeddings are computed once."""
    folder = tmp_path_factory.mktemp("docs") / "cache"
    write_official_archive(folder)
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server on this machine in the place of the Hub, to which somebody is logged in."""
    with hub_server() as hub:
        use_hub(hub, monkeypatch)
        yield hub
        huggingface_hub.HfFileSystem.clear_instance_cache()


PAGE_PARAMETERS = [
    pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] if name_of(page) in SLOW else [])
    for page in PAGES
    if runnable(page)
]


@pytest.mark.parametrize("page", PAGE_PARAMETERS)
def test_a_page_runs(
    page: Path, world: World, cache: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDFM_CACHE", str(cache))
    blocks = runnable(page)
    text = "".join(block.code for block in blocks)
    for name, part in HUB.items():
        if name in text:
            files = hub.add("dataset", name, world.part(part), private=True).files
            files[CARD] = card_for_hub(
                files[CARD].decode(), world.part(part), name
            ).encode()  # as `data push` uploads it
    parts = needed_parts(blocks)
    world.copy(parts, tmp_path)
    monkeypatch.chdir(tmp_path)
    failure = ""
    try:
        run_blocks(blocks, parts)
    except SnippetError as error:
        failure = str(error)
    if failure:
        pytest.fail(failure, pytrace=False)


def test_every_block_has_a_language_and_few_are_not_run() -> None:
    blocks = [block for page in PAGES for block in read_blocks(page)]
    assert not [str(block) for block in blocks if block.language not in LANGUAGES]
    not_run = [block for block in blocks if block.not_run is not None]
    assert not [(str(block), block.not_run) for block in not_run if block.not_run not in REASONS]
    counts = Counter(block.not_run for block in not_run)
    assert not {reason: count for reason, count in counts.items() if count > REASONS[str(reason)]}


def test_every_slow_page_is_there() -> None:
    assert {name_of(page) for page in PAGES} >= SLOW
