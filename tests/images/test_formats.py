"""What holds for the formats of all libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stedfm_hf.images import ImageReadError, list_series, readable_suffixes
from stedfm_hf.images.stacks import parse_xml

FILES = {
    "a.lif": ("liffile", b"\x70\0\0\0"),
    "a.czi": ("pylibCZIrw", b"ZISRAWFILE\0"),
    "a.nd2": ("nd2", b"\xda\xce\xbe\x0a"),
    "a.oib": ("oiffile", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
    "a.zarr": ("zarr", b""),
    "a.msr": ("obffile", b"OMAS_BF\n\xff\xff"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_library_that_is_not_installed_is_named(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library, head = FILES[name]
    path = tmp_path / name
    if head:
        path.write_bytes(head + bytes(100))
    else:
        path.mkdir()
        (path / ".zgroup").write_text('{"zarr_format": 2}')
    for module in [each for each in sys.modules if each.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImageReadError, match=f"{library}, which is not installed; pip install"):
        list_series(path)


def test_every_suffix_is_known_without_its_library() -> None:
    code = (
        "import sys\nfrom stedfm_hf.images import readable_suffixes\nprint(*readable_suffixes())\n"
        "assert not {'liffile', 'pylibCZIrw', 'nd2', 'oiffile', 'zarr', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(readable_suffixes())
    assert {".lif", ".czi", ".nd2", ".oib", ".oif", ".lsm", ".zarr", ".xlif", ".lof"} <= set(readable_suffixes())


def test_entities_are_never_expanded() -> None:
    laughs = '<!ENTITY a "ha">' + "".join(f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 10))
    for text in (f"<!DOCTYPE r [{laughs}]><r>&a9;</r>", '<!DOCTYPE r SYSTEM "file:///etc/passwd"><r/>'):
        with pytest.raises(ImageReadError, match="declares entities"):
            parse_xml(text)
