"""The simulated microscope and that of Imspector: positions, noise, bleaching and dose."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from stedfm_hf.acquisition import Frame, ImspectorMicroscope, Microscope, SimulatedMicroscope, measure_power
from stedfm_hf.acquisition.imspector import STAGE
from stedfm_hf.acquisition.simulated_microscope import OVERVIEW, STED
from stedfm_hf.data.simulation.optics import Scan, kernels, pysted_microscope
from stedfm_hf.runs import UserError

MISSING = 'pysted is not installed (pip install "stedfm-hf[sim]")'
PIXEL_NM = 60.0  # the beams of pySTED are computed 9 times faster than with 20 nm


@pytest.fixture
def sample() -> np.ndarray:
    """Molecules in the middle of the right half of a sample."""
    molecules = np.zeros((60, 80), np.int64)
    molecules[20:40, 50:70] = 30
    return molecules


def make(sample: np.ndarray, **options: Any) -> SimulatedMicroscope:
    values: dict[str, Any] = {"engine": "builtin", "seed": 0} | options
    return SimulatedMicroscope(sample, **values)


def test_a_region_shows_what_the_overview_shows_there(sample: np.ndarray) -> None:
    microscope = make(sample, corner_um=(100.0, -5.0))
    assert isinstance(microscope, Microscope)
    overview = microscope.overview()
    assert overview.pixels.shape == (30, 40) and overview.pixel_size_nm == (40.0, 40.0)
    rows, cols = np.nonzero(overview.pixels > overview.pixels.max() / 2)
    x_um, y_um = overview.position_um(rows.mean(), cols.mean())
    assert (x_um, y_um) == pytest.approx((100 + 60 * 0.02, -5 + 30 * 0.02), abs=0.03)
    microscope.move_to(x_um, y_um)
    region = microscope.acquire(0.4, 0.8)
    assert region.pixels.shape == (20, 40) and region.centre_um == pytest.approx((x_um, y_um), abs=0.011)
    assert region.pixels[:, 12:28].mean() > 5 * region.pixels[:, :4].mean()
    back = region.stage @ (19.5, 9.5, 1)
    assert back == pytest.approx(region.centre_um)


def test_noise_is_independent_and_reproducible(sample: np.ndarray) -> None:
    first, second, other = make(sample), make(sample), make(sample, seed=1)
    images = [first.overview().pixels, first.overview().pixels, second.overview().pixels, other.overview().pixels]
    assert (images[0] == images[2]).all()
    assert (images[0] != images[1]).any() and (images[0] != images[3]).any()
    assert (sample[20:40, 50:70] == 30).all()


def test_bleaching_persists_near_the_region_and_the_dose_is_counted(sample: np.ndarray) -> None:
    microscope = make(sample)
    microscope.overview()
    assert microscope.dose.bleached == 0 and microscope.dose.photons > 0
    means = []
    for _ in range(3):
        microscope.move_to(1.2, 0.4)
        means.append(microscope.acquire(0.4, 0.4).pixels.mean())
    assert means[0] > 1.2 * means[1] > 1.2 * means[2]
    lost = sample - microscope.molecules
    assert (lost >= 0).all() and lost.sum() == microscope.dose.bleached
    assert lost[20:25, 55:65].sum() > 3 * lost[35:40, 55:65].sum()
    pixels = 30 * 40, 3 * 20 * 20
    energy = sum(
        count * scan.power_w * scan.dwell_us * 1e-3 for count, scan in zip(pixels, (OVERVIEW, STED), strict=True)
    )
    assert microscope.dose.energy_mj == pytest.approx(energy)
    assert microscope.dose.seconds == pytest.approx(0.4 + pixels[0] * 10e-6 + pixels[1] * 38e-6)


def test_the_scan_of_lines_is_a_convolution_where_little_bleaches(sample: np.ndarray) -> None:
    weak = Scan(3.0, 1e-6, 38.0)
    frames = [make(sample).scan(-10, 40, 50, 60, scan, 2) for scan in (weak, Scan(3.0, 0.0, 38.0))]
    assert frames[0].pixels.shape == (25, 30)
    assert (frames[0].pixels == frames[1].pixels).all() and frames[0].pixels.max() > 50


def test_a_position_outside_of_the_sample_is_refused(sample: np.ndarray) -> None:
    with pytest.raises(UserError, match="outside of the sample, which reaches from 0, 0 to 1.6, 1.2"):
        make(sample).move_to(1.7, 0.5)
    with pytest.raises(UserError, match="whole numbers"):
        make(sample * 0.5)


def test_the_kernels_of_pysted_agree_with_its_own_raster() -> None:
    base = pytest.importorskip("pysted.base", reason=MISSING)
    molecules = np.zeros((24, 24), np.int64)
    molecules[6:18, 8:16] = 3000
    scan = Scan(3.0, 60.0, 38.0)
    microscope, pixel_m = pysted_microscope(), PIXEL_NM * 1e-9
    datamap = base.Datamap(molecules, pixel_m)
    datamap.set_roi(microscope.cache(pixel_m)[0], intervals="max")
    counts, after, _ = microscope.get_signal_and_bleach(
        datamap, pixel_m, pdt=38e-6, p_ex=3e-6, p_sted=60e-3, bleach=True, update=False, seed=1
    )
    ours = SimulatedMicroscope(molecules, PIXEL_NM, engine="pysted", seed=2, background_per_s=0)
    frame = ours.scan(0, 0, 24, 24, scan)
    left = after["base"][datamap.roi]
    assert 0.3 < left.sum() / molecules.sum() < 0.95
    assert ours.molecules.sum() == pytest.approx(left.sum(), rel=0.02)
    assert ours.molecules[8:12, 9:15].mean() == pytest.approx(left[8:12, 9:15].mean(), rel=0.03)
    assert frame.pixels.sum() == pytest.approx(counts.sum(), rel=0.03)
    assert np.abs(frame.pixels - counts).mean() < 0.06 * counts.max()


@pytest.mark.parametrize("engine", ["builtin", "pysted"])
def test_bleaching_and_resolution_change_with_the_power(engine: str) -> None:
    if engine == "pysted":
        pytest.importorskip("pysted", reason=MISSING)
    rows = measure_power(
        (0.0, 60.0, 250.0), structures=["puncta"], engine=engine, size_px=96, pixel_size_nm=PIXEL_NM, seeds=(3,)
    )
    none, weak, strong = rows
    assert none.bleached == 0 and abs(none.signal_loss) < 0.1
    assert 0.02 < weak.bleached < strong.bleached < 1
    assert 0.02 < weak.signal_loss < strong.signal_loss
    assert strong.resolution_nm < none.resolution_nm or np.isnan(strong.resolution_nm)


def test_kernels_without_pysted_say_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pysted", None)
    with pytest.raises(UserError, match=r'pip install "stedfm-hf\[sim\]"'):
        kernels("pysted", 61.0, STED)


class FakeStack:
    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def data(self) -> np.ndarray:
        return self.pixels


class FakeConfiguration:
    """Configuration as specpy returns it: parameters in metres, and stacks that hold the last image."""

    def __init__(self, name: str, length: float, pixel: float, planes: int = 1) -> None:
        self._name, self.planes = name, planes
        self.values = {f"ExpControl/scan/range/{axis}/{key}": 0.0 for axis in "xy" for key in ("off", "len", "psz")}
        for axis in "xy":
            self.values[f"ExpControl/scan/range/{axis}/len"] = length
            self.values[f"ExpControl/scan/range/{axis}/psz"] = pixel
            self.values[f"ExpControl/scan/range/coarse_{axis}/g_off"] = 0.0

    def name(self) -> str:
        return self._name

    def parameters(self, path: str) -> float:
        return self.values[path]

    def set_parameters(self, path: str, value: float) -> None:
        assert path in self.values
        self.values[path] = value

    def stack(self, index: int) -> FakeStack:
        size = [
            round(self.values[f"ExpControl/scan/range/{a}/len"] / self.values[f"ExpControl/scan/range/{a}/psz"])
            for a in "yx"
        ]
        return FakeStack(np.full((self.planes, *size), 7, np.uint16))


class FakeImspector:
    """Application with one measurement, which is also its own measurement."""

    def __init__(self, *configurations: FakeConfiguration) -> None:
        self.configurations = {each.name(): each for each in configurations}
        self.ran: list[str] = []
        self.active = ""

    def active_measurement(self) -> FakeImspector:
        return self

    def configuration_names(self) -> list[str]:
        return list(self.configurations)

    def configuration(self, name: str) -> FakeConfiguration:
        return self.configurations[name]

    def activate(self, configuration: FakeConfiguration) -> None:
        self.active = configuration.name()

    def run(self, measurement: FakeImspector) -> None:
        self.ran.append(self.active)


def test_imspector_runs_the_configurations_at_the_position() -> None:
    wide, small = FakeConfiguration("wide", 20e-6, 100e-9), FakeConfiguration("sted", 1e-6, 20e-9)
    application = FakeImspector(wide, small)
    microscope = ImspectorMicroscope("wide", "sted", application=application)
    assert isinstance(microscope, Microscope)
    with pytest.raises(UserError, match="call move_to first"):
        microscope.acquire(1, 1)
    overview = microscope.overview()
    assert overview.pixels.shape == (200, 200) and overview.pixel_size_nm == pytest.approx((100, 100))
    microscope.move_to(2.5, -4.0)
    frame = microscope.acquire(1.2, 1.6)
    assert application.ran == ["wide", "sted"]
    assert frame.pixels.shape == (60, 80) and frame.centre_um == pytest.approx((2.5, -4.0))
    assert small.values["ExpControl/scan/range/x/off"] == pytest.approx(2.5e-6)
    moved = ImspectorMicroscope("wide", "sted", application=application, position=STAGE)
    moved.move_to(100, 50)
    assert moved.acquire(1, 1).centre_um == pytest.approx((100, 50))
    assert small.values["ExpControl/scan/range/coarse_y/g_off"] == pytest.approx(50e-6)


def test_imspector_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    wide, stack = FakeConfiguration("wide", 2e-6, 100e-9), FakeConfiguration("stack", 2e-6, 100e-9, planes=3)
    with pytest.raises(UserError, match="no configuration 'sted'; it has wide, stack"):
        ImspectorMicroscope("wide", "sted", application=FakeImspector(wide, stack))
    microscope = ImspectorMicroscope("stack", "wide", application=FakeImspector(wide, stack))
    with pytest.raises(UserError, match="acquire one image"):
        microscope.overview()
    monkeypatch.setitem(sys.modules, "specpy", None)
    with pytest.raises(UserError, match=r"stedfm-hf\[imspector\]"):
        ImspectorMicroscope("wide", "sted")


def test_a_frame_is_an_image_of_the_package() -> None:
    image = Frame(np.zeros((4, 6), np.uint16), (20.0, 30.0), (0.0, 0.0)).image("a")
    assert image.array.shape == (1, 4, 6) and image.pixel_size_nm == (20.0, 30.0)
