"""Acquire the structures that a finder of `stedfm serve` finds in an overview.

`python acquire.py` uses a simulated microscope and a server on this computer. For an instrument, replace
`simulated_microscope`, and click on structures in an overview of yours.
"""

import argparse
from pathlib import Path

import tifffile

from stedfm_hf.acquisition import Client, FinderInfo, Microscope, SimulatedMicroscope, make_scene

REGION_UM = 1.6


def acquire_structures(client: Client, microscope: Microscope, finder: FinderInfo, count: int, folder: Path) -> None:
    """Take an overview, and acquire the regions with the highest scores."""
    overview = microscope.overview()
    size, stage = overview.pixel_size_nm, overview.stage
    regions = client.regions(
        overview.pixels, finder, count=count, region_size_um=REGION_UM, pixel_size_nm=size, stage=stage
    )
    folder.mkdir(parents=True, exist_ok=True)
    for region in regions:
        assert region.stage_x_um is not None and region.stage_y_um is not None
        microscope.move_to(region.stage_x_um, region.stage_y_um)
        frame = microscope.acquire(REGION_UM, REGION_UM)
        y, x = (1e7 / each for each in frame.pixel_size_nm)
        file = folder / f"region_{region.rank:02d}.tif"
        tifffile.imwrite(file, frame.pixels, resolution=(x, y), resolutionunit="CENTIMETER")
        print(f"{region.rank}: score {region.score:.2f} at {region.stage_x_um:.2f} µm, {region.stage_y_um:.2f} µm")


def simulated_microscope(seed: int) -> tuple[Microscope, list[tuple[float, float]]]:
    """Simulate a microscope, and clicks on the clusters in its overview (row and column, in pixels)."""
    scene = make_scene(seed, kinds=("clusters", "fibres"), size_um=8, per_kind=3)
    clicks = [(y / 2, x / 2) for y, x in scene.centres[scene.objects("clusters") - 1]]
    return SimulatedMicroscope(scene.molecules, engine="builtin", seed=seed), clicks


def main(client: Client | None = None, arguments: list[str] | None = None) -> None:
    """Fit a finder to clicks in the overview of one sample, and use it in another sample."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="http://127.0.0.1:8321", help="Address of `stedfm serve`.")
    parser.add_argument("--count", type=int, default=3, help="Number of regions.")
    parser.add_argument("--output", type=Path, default=Path("acquired"), help="Folder of the images.")
    given = parser.parse_args(arguments)
    with client or Client(given.url) as server:
        annotated, clicks = simulated_microscope(seed=1)
        finder = server.create_finder(annotated.overview().pixels, clicks=clicks)
        acquire_structures(server, simulated_microscope(seed=2)[0], finder, given.count, given.output)
        server.delete_finder(finder)  # or keep it, and server.token for the next Client


if __name__ == "__main__":
    main()
