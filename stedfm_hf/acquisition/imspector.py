"""Imspector of Abberior Instruments as a `Microscope`, through its Python interface specpy.

No instrument was available: the code was tested with an application object that behaves as documented. Check on a test
sample that a region shows what the overview shows there, before you use it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stedfm_hf.acquisition.microscope import Frame
from stedfm_hf.runs import UserError

SCANNER = "ExpControl/scan/range/{}/off"
"""Parameter of the position of the scanner, in metres: fast and exact within the field of the scanner."""
STAGE = "ExpControl/scan/range/coarse_{}/g_off"
"""Parameter of the position of the stage, in metres."""
_LENGTH, _PIXEL = "ExpControl/scan/range/{}/len", "ExpControl/scan/range/{}/psz"
_AXES = ("y", "x")


class ImspectorMicroscope:
    """Microscope that Imspector controls; satisfies the protocol `Microscope`.

    Prepare one measurement in Imspector with two configurations: one for overviews, and one for regions. This class
    sets position and size of the scan; beams, dwell times and detectors stay as you set them there.

    Args:
        overview: Name of the configuration for overviews.
        region: Name of the configuration for regions.
        application: Application of specpy; None connects to Imspector on this computer, or on `host`.
        host: Name of the computer that runs Imspector.
        stack: Number of the stack of a configuration that is returned, if it acquires several.
        position: Parameter of the position, `SCANNER` or `STAGE`, with `{}` for the axis.

    Raises:
        UserError: If specpy is not installed, Imspector does not answer, or a configuration does not exist.

    Example:
        >>> microscope = ImspectorMicroscope("overview", "region")  # doctest: +SKIP
    """

    def __init__(
        self,
        overview: str,
        region: str,
        *,
        application: Any = None,
        host: str | None = None,
        stack: int = 0,
        position: str = SCANNER,
    ) -> None:
        self.application = _connect(host) if application is None else application
        self.overview_name, self.region_name = overview, region
        self.stack, self.position = stack, position
        self._centre_um: tuple[float, float] | None = None
        known = list(self._measurement().configuration_names())
        for name in (overview, region):
            if name not in known:
                raise UserError(
                    f"Imspector: the measurement has no configuration {name!r}; it has {', '.join(map(str, known))}"
                )

    def overview(self) -> Frame:
        """Acquire the overview with the size and position that its configuration has in Imspector."""
        return self._run(self._activate(self.overview_name))

    def move_to(self, x_um: float, y_um: float) -> None:
        """Set the centre of the next region.

        Args:
            x_um: x in the coordinates of `position`, in µm.
            y_um: y in the coordinates of `position`, in µm.
        """
        self._centre_um = float(x_um), float(y_um)

    def acquire(self, height_um: float, width_um: float) -> Frame:
        """Acquire a region with the pixel size of its configuration.

        Args:
            height_um: Height, in µm.
            width_um: Width, in µm.

        Raises:
            UserError: If `move_to` was not called.
        """
        if self._centre_um is None:
            raise UserError("no position is set; call move_to first")
        configuration = self._activate(self.region_name)
        x_um, y_um = self._centre_um
        for axis, centre, length in zip(_AXES, (y_um, x_um), (height_um, width_um), strict=True):
            configuration.set_parameters(self.position.format(axis), centre * 1e-6)
            configuration.set_parameters(_LENGTH.format(axis), length * 1e-6)
        return self._run(configuration)

    def _measurement(self) -> Any:
        return self.application.active_measurement()

    def _activate(self, name: str) -> Any:
        """Make a configuration the one that runs, and return it."""
        measurement = self._measurement()
        configuration = measurement.configuration(name)
        measurement.activate(configuration)
        return configuration

    def _run(self, configuration: Any) -> Frame:
        """Run the measurement, and read the image of the configuration.

        Raises:
            UserError: If the stack is not one image.
        """
        self.application.run(self._measurement())
        pixels = np.squeeze(np.array(configuration.stack(self.stack).data()))
        if pixels.ndim != 2:
            raise UserError(
                f"Imspector: stack {self.stack} of {configuration.name()} has the shape {pixels.shape}; acquire one "
                "image (x, y) without z or time, or choose another stack"
            )
        height, width = (1e9 * float(configuration.parameters(_PIXEL.format(axis))) for axis in _AXES)
        y, x = (1e6 * float(configuration.parameters(self.position.format(axis))) for axis in _AXES)
        return Frame(pixels, (height, width), (x, y))


def _connect(host: str | None) -> Any:
    """Connect to a running Imspector."""
    try:
        import specpy
    except ImportError as error:
        raise UserError('Imspector needs specpy: pip install "stedfm-hf[imspector]"') from error
    try:
        return specpy.get_application() if host is None else specpy.get_application(host)
    except RuntimeError as error:
        where = "this computer" if host is None else host
        raise UserError(
            f"Imspector on {where} does not answer; start it, and run its server (menu Tools > Run Server)"
        ) from error
