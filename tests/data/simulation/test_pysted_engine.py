"""The engine pysted: physics of pySTED, emitters of the simulator, and NumPy's global state unchanged."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stedfm_hf.data import SimulationSettings
from stedfm_hf.data.simulation.physics import class_id
from stedfm_hf.data.simulation.pysted_engine import simulate_field_with_pysted
from stedfm_hf.data.simulation.simulate import simulate
from stedfm_hf.runs import UserError

SIZE: dict[str, Any] = {"height": 48, "width": 40}
SMALL = SimulationSettings(**SIZE, photons=(60.0, 60.0), background=(1.0, 1.0), coverage=(0.3, 0.3))


def test_images_are_deterministic_sharper_than_confocal_and_keep_the_global_random_state() -> None:
    pytest.importorskip("pysted", reason='pysted is not installed (pip install "stedfm-hf[sim]")')
    np.random.seed(7)
    before = np.random.get_state(legacy=False)["state"]["key"].copy()
    field = simulate_field_with_pysted("puncta", seed=0, index=2, settings=SMALL, confocal=True)
    np.testing.assert_array_equal(np.random.get_state(legacy=False)["state"]["key"], before)

    assert field.image.shape == (48, 40)
    assert field.image.dtype == np.uint16
    assert set(np.unique(field.mask)) == {0, class_id("puncta")}
    assert np.corrcoef(field.image.ravel(), field.expected.ravel())[0, 1] > 0.85
    assert field.image.mean() == pytest.approx(field.expected.mean(), rel=0.05)
    assert field.confocal is not None
    contrast = [image.std() / image.mean() for image in (field.image, field.confocal)]
    assert contrast[0] > 1.2 * contrast[1]
    again = simulate_field_with_pysted("puncta", seed=0, index=2, settings=SMALL)
    np.testing.assert_array_equal(field.image, again.image)


def test_the_manifest_names_the_engine(tmp_path: Path) -> None:
    pytest.importorskip("pysted", reason='pysted is not installed (pip install "stedfm-hf[sim]")')
    made = simulate(tmp_path, structures=["fibres"], per_structure=1, **SIZE, engine="pysted", workers=1)
    assert made.manifest.settings["engine"] == "pysted"
    assert (tmp_path / "images" / "fibres" / "fibres_00000.tif").is_file()


def test_without_pysted_the_error_shows_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pysted", None)
    with pytest.raises(UserError, match=r'pip install "stedfm-hf\[sim\]"'):
        simulate(tmp_path / "new", per_structure=1, engine="pysted")
    assert not (tmp_path / "new").exists()
