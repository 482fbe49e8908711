"""What a loop needs of a microscope: an overview, a stage, and images of regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from stedfm_hf.acquisition.stage import Stage
from stedfm_hf.modeling.io_types_stedfm import StedImage


@dataclass(frozen=True, eq=False)
class Frame:
    """Image that a microscope acquired, with its position on the stage.

    Attributes:
        pixels: Pixels (H, W), usually photon counts.
        pixel_size_nm: Height and width of a pixel, in nm.
        centre_um: x and y of the centre of the image on the stage, in µm; x grows with the columns, and y with the
            rows.

    Example:
        >>> frame = Frame(np.zeros((100, 200)), (20.0, 20.0), (1000.0, 500.0))
        >>> frame.position_um(y=0, x=99.5)
        (1000.0, 499.01)
    """

    pixels: np.ndarray
    pixel_size_nm: tuple[float, float]
    centre_um: tuple[float, float]

    @property
    def stage(self) -> np.ndarray:
        """Matrix (2, 3) that maps (x, y, 1) in pixels to x and y on the stage in µm, as in `Stage`."""
        (height, width), (dy, dx) = self.pixels.shape, (each / 1000 for each in self.pixel_size_nm)
        x, y = self.centre_um
        return np.array([[dx, 0, x - dx * (width - 1) / 2], [0, dy, y - dy * (height - 1) / 2]])

    def position_um(self, y: float, x: float) -> tuple[float, float]:
        """Return x and y on the stage of a position in the image, in µm.

        Args:
            y: Row, in pixels; 0 is the centre of the first row.
            x: Column, in pixels.
        """
        return Stage({}, self.stage).position_um("", y, x)

    def image(self, name: str = "overview") -> StedImage:
        """Return the pixels as an image of the package.

        Args:
            name: Name of the image.
        """
        return StedImage(np.array(self.pixels[None]), self.pixel_size_nm, ("0",), {}, name, name)


@runtime_checkable
class Microscope(Protocol):
    """Microscope that a loop can use; implement these three methods for an instrument."""

    def overview(self) -> Frame:
        """Acquire an overview: a large, gentle image in which regions are chosen.

        Returns:
            Pixels (H, W), with pixel size in nm and position in µm.
        """

    def move_to(self, x_um: float, y_um: float) -> None:
        """Move the centre of the next region.

        Args:
            x_um: x on the stage, in µm.
            y_um: y on the stage, in µm.
        """

    def acquire(self, height_um: float, width_um: float) -> Frame:
        """Acquire an image of the region around the current position.

        Args:
            height_um: Height of the region, in µm.
            width_um: Width of the region, in µm.
        """
