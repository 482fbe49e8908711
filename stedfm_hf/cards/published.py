"""Cards of published repositories, whose code loads the repository by its id on the Hub."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from stedfm_hf.runs.upload import Part

CARD = "README.md"
_BLOCK = re.compile(r"^```\w*\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r"^# (.+?)\s*$", re.MULTILINE)
_LOADS = r"(?P<loads>(?:\bfrom_pretrained\(|\bload_dataset\(|\bmodel=|--model[ =])\s*[\"']?)"
_IMPORT = "from huggingface_hub import snapshot_download\n"


def card_for_hub(card: str, folder: Path, hub_id: str) -> str:
    r"""Return a card whose code loads the repository from the Hub, and not from a folder of this computer.

    Only code blocks are changed, and in them only what loads a model or a data set by the name of the folder or by the
    title of the card.

    Args:
        card: Text of the card.
        folder: Folder of the card.
        hub_id: Id of the repository.

    Example:
        >>> card = '# my-model\n```bash\nstedfm embed images/ --model my-model --output my-model.parquet\n```\n'
        >>> print(card_for_hub(card, Path("my-model"), "my-lab/my-model").splitlines()[2])
        stedfm embed images/ --model my-lab/my-model --output my-model.parquet
    """
    short = hub_id.partition("/")[2]
    names = {folder.resolve().name, *_TITLE.findall(_BLOCK.sub("", card))[:1]}
    name = rf"(?:\./)?(?:{'|'.join(map(re.escape, sorted(names)))})/?"

    def on_hub(block: re.Match[str]) -> str:
        code = re.sub(rf"{_LOADS}{name}(?=[\"'\s,)]|$)", rf"\g<loads>{hub_id}", block["code"])
        code = re.sub(rf"local-dir:{name}(?=[\"'])", f"hf-hub:{hub_id}", code)  # timm
        code = re.sub(r'^repo = "PATH".*$', f'repo = "{hub_id}"', code, flags=re.MULTILINE)  # cards of data sets
        # The backends onnx and openvino take the folder of an export; onnxruntime and OpenVINO open its files.
        download = rf"hf download {hub_id} --local-dir {short}\n\g<1>{short}\g<2>"
        code = re.sub(rf"^(.*--model ){hub_id}( --backend .*)$", download, code, flags=re.MULTILINE)
        code, count = re.subn(rf'"{name}(/model\.\w+)"', rf'snapshot_download("{hub_id}") + "\1"', code)
        return block[0].replace(block["code"], _IMPORT * bool(count) + code) if block["code"] else block[0]

    return _BLOCK.sub(on_hub, card)


@contextmanager
def parts_with_card(parts: Sequence[Part], card: str) -> Iterator[list[Part]]:
    """Replace the card in the last part of an upload, without changing the folder of the card.

    Args:
        parts: Parts of an upload; the card belongs to the last one.
        card: Text of the card to upload.

    Yields:
        Parts, the last one with copies of its files in a temporary folder.
    """
    *others, last = parts
    with TemporaryDirectory(prefix="stedfm-publish-") as temporary:
        copies = Path(temporary)
        for name in last.names:
            (copies / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(last.folder / name, copies / name)
        (copies / CARD).write_text(card, encoding="utf-8", newline="\n")
        yield [*others, replace(last, folder=copies)]
