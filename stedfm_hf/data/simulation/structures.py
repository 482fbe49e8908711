"""Structures that the simulator knows, one function each.

Every function takes the random generator of a field and the scene, and returns fluorescent emitters; some lie outside
the field. `fields` applies the same blur, photon counts and noise to all structures, so
they differ only in geometry. Sizes are typical values, not fitted to images.

Source:
    Structures seen with STED in cultured neurons: actin rings every 190 nm around an axon (Xu et al. 2013), actin
    fibres along a dendrite, a mesh of microtubules, postsynaptic puncta and larger, diffuse assemblies near a
    dendrite, and the outer membranes of mitochondria. Polymer rings are not from neurons.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stedfm_hf.data.simulation.scene import (
    Emitters,
    Scene,
    centre_lines,
    count_objects,
    neurite_widths,
    positions_near_dendrites,
    random_positions,
    rotate_points,
)

RING_PERIOD_NM = 190.0


def rings(rng: np.random.Generator, scene: Scene) -> Emitters:
    """Place emitters on periodic actin: rings every 190 nm around axons, each a circle seen from the side."""
    widths = neurite_widths(rng, scene)
    position, normal = centre_lines(rng, scene, len(widths), persistence_nm=14_000.0)
    period = scene.pixels(RING_PERIOD_NM)
    per_ring, per_gap = 30, 8
    clouds, brightness = [], []
    for centre, across, width in zip(position, normal, widths, strict=True):
        offsets = np.arange(rng.uniform(0.0, period), scene.reach - 1.0, period)
        offsets = offsets + rng.normal(0.0, 0.05 * period, len(offsets))
        # Most emitters sit on the rings, some on the membrane between them.
        along = np.repeat(offsets, per_ring + per_gap).reshape(len(offsets), -1)
        along[:, :per_ring] += rng.normal(0.0, scene.pixels(9.0), (len(offsets), per_ring))
        along[:, per_ring:] += rng.uniform(0.0, period, (len(offsets), per_gap))
        at = np.clip(2.0 * along, 0, len(centre) - 1).astype(np.intp).ravel()
        around = np.sin(rng.uniform(0.0, 2.0 * np.pi, (at.size, 1)))
        clouds.append(centre[at] + 0.5 * width * around * across[at])
        label = rng.gamma(4.0, 0.25, (len(offsets), 1)) * rng.exponential(width, along.shape)
        brightness.append(label.ravel())
    return Emitters(np.concatenate(clouds), np.concatenate(brightness))


def fibres(rng: np.random.Generator, scene: Scene) -> Emitters:
    """Place emitters on longitudinal actin: bundles of fibres that follow a neurite and drift across it."""
    widths = neurite_widths(rng, scene)
    position, normal = centre_lines(rng, scene, len(widths), persistence_nm=14_000.0)
    clouds, brightness = [], []
    points = position.shape[1]
    for centre, across, width in zip(position, normal, widths, strict=True):
        count = 2 + int(width / scene.pixels(110.0))
        drift = rng.normal(0.0, 0.035, (count, points)).cumsum(axis=1) + rng.uniform(0.0, 2.0 * np.pi, (count, 1))
        fibre = centre + 0.5 * width * np.sin(drift)[..., None] * across
        clouds.append(fibre.reshape(-1, 2))
        label = rng.gamma(2.0, 0.5, (count, 1)) * rng.exponential(1.0, (count, points))
        brightness.append(label.ravel())
    return Emitters(np.concatenate(clouds), np.concatenate(brightness))


def microtubules(rng: np.random.Generator, scene: Scene) -> Emitters:
    """Place emitters on microtubules: single smooth filaments that cross the field in all directions."""
    count = 3 + int(scene.area / (scene.pixels(85.0) * max(scene.height, scene.width)))
    position, _ = centre_lines(rng, scene, count, persistence_nm=8_000.0)
    label = rng.gamma(3.0, 1.0 / 3.0, (count, 1)) * rng.exponential(1.0, position.shape[:2])
    return Emitters(position.reshape(-1, 2), label.ravel())


def puncta(rng: np.random.Generator, scene: Scene) -> Emitters:
    """Place emitters in PSD95-like synaptic puncta: clusters of 80 to 350 nm, most of them near a dendrite."""
    sigma = scene.pixels(38.0) * rng.lognormal(0.0, 0.4, 400)
    sigma = sigma[: count_objects((np.pi * (1.6 * sigma) ** 2).cumsum(), scene)]
    return place_puncta(rng, positions_near_dendrites(rng, scene, len(sigma), distance_nm=300.0), sigma)


def place_puncta(rng: np.random.Generator, centre: np.ndarray, sigma: np.ndarray) -> Emitters:
    """Place the emitters of puncta with given centres and sizes.

    Args:
        rng: Random generator of the field.
        centre: Centres (y, x) in pixels, (count, 2).
        sigma: Standard deviation of the emitters along the longer axis of each punctum, in pixels, (count,).
    """
    count, per_cluster = len(sigma), 50
    # An ellipse with a random axis ratio and direction: scaffolds are seen face on and edge on.
    axes = sigma[:, None] * np.stack([np.ones(count), rng.uniform(0.4, 1.0, count)], axis=-1)
    angle = rng.uniform(0.0, np.pi, count)
    rotated = rotate_points(rng.normal(0.0, 1.0, (count, per_cluster, 2)) * axes[:, None, :], angle)
    label = rng.gamma(5.0, 0.2, (count, 1)) * sigma[:, None] ** 2 * rng.exponential(1.0, (count, per_cluster))
    return Emitters((centre[:, None, :] + rotated).reshape(-1, 2), label.ravel() / per_cluster)


def clusters(rng: np.random.Generator, scene: Scene) -> Emitters:
    """Place emitters in CaMKII-like assemblies: irregular, uneven, diffuse patches of 300 to 900 nm near dendrites."""
    radius = scene.pixels(150.0) * rng.lognormal(0.0, 0.4, 200)
    radius = radius[: count_objects((1.7 * np.pi * radius**2).cumsum(), scene)]
    count, lumps, per_lump = len(radius), 8, 80
    centre = positions_near_dendrites(rng, scene, count, distance_nm=350.0)
    # A chain of overlapping lumps has the ragged outline of an assembly; a single blob does not.
    steps = rng.normal(0.0, 0.62, (count, lumps, 2)).cumsum(axis=1)
    lump = centre[:, None] + radius[:, None, None] * (steps - steps.mean(axis=1, keepdims=True))
    sigma = radius[:, None] * rng.uniform(0.3, 0.75, (count, lumps))
    local = rng.normal(0.0, 1.0, (count, lumps, per_lump, 2)) * sigma[..., None, None]
    label = rng.gamma(5.0, 0.2, (count, 1, 1)) * rng.gamma(3.0, 1.0 / 3.0, (count, lumps, 1))
    label = label * radius[:, None, None] ** 2 * rng.exponential(1.0, (count, lumps, per_lump))
    return Emitters((lump[:, :, None] + local).reshape(-1, 2), label.ravel())


def mitochondria(rng: np.random.Generator, scene: Scene) -> Emitters:
    """Place emitters on outer membranes of mitochondria: bent closed tubes, 250 to 500 nm wide, 0.6 to 3 um long."""
    width = scene.pixels(250.0) + scene.pixels(250.0) * rng.random(200)
    length = width + scene.pixels(350.0) + scene.pixels(2_200.0) * rng.random(200) ** 2
    count = count_objects((0.75 * width * length).cumsum(), scene)
    width, length = width[:count], length[:count]
    points = 2 * int(scene.pixels(3_100.0))
    turn = np.sqrt(0.5 / scene.pixels(2_500.0))
    heading = rng.normal(0.0, turn, (count, points)).cumsum(axis=1) + rng.uniform(0.0, 2.0 * np.pi, (count, 1))
    along = np.stack([np.sin(heading), np.cos(heading)], axis=-1)
    path = 0.5 * along.cumsum(axis=1)
    middle = np.take_along_axis(path, length.astype(np.intp)[:, None, None], axis=1)
    path += random_positions(rng, scene, count)[:, None] - middle
    # Import pores of the outer membrane form patches, as an antibody against TOM20 shows.
    per_patch, patches = 4, 220
    offset = rng.random((count, patches)) * length[:, None]
    half = 0.5 * width[:, None]
    to_end = np.minimum(offset, length[:, None] - offset).clip(0.0, half)
    swelling = 1.0 + 0.12 * np.sin(offset / scene.pixels(180.0) + rng.uniform(0.0, 2.0 * np.pi, (count, 1)))
    outline = swelling * np.sqrt(half**2 - (half - to_end) ** 2)
    # The focal plane cuts the tube: most of the light comes from its two walls, some from above and below.
    wall = np.where(
        rng.random(offset.shape) < 0.7, rng.choice([-1.0, 1.0], offset.shape), rng.uniform(-1.0, 1.0, offset.shape)
    )
    at = np.clip(2.0 * offset, 0, points - 1).astype(np.intp)
    centre = np.take_along_axis(path, at[..., None], axis=1)
    direction = np.take_along_axis(along, at[..., None], axis=1)
    across = np.stack([direction[..., 1], -direction[..., 0]], axis=-1)
    position = centre + (outline * wall)[..., None] * across
    cloud = position[:, :, None] + rng.normal(0.0, scene.pixels(14.0), (count, patches, per_patch, 2))
    label = rng.gamma(5.0, 0.2, (count, 1, 1)) * rng.gamma(3.0, 1.0 / 3.0, (count, patches, 1))
    label = label * length[:, None, None] * rng.exponential(1.0, (count, patches, per_patch))
    return Emitters(cloud.reshape(-1, 2), label.ravel())


def polymer_rings(rng: np.random.Generator, scene: Scene) -> Emitters:
    """Place emitters on polymer rings: closed, nearly round loops of 250 to 700 nm, single or in small heaps."""
    radius = scene.pixels(125.0) + scene.pixels(225.0) * rng.random(300) ** 1.5
    count = count_objects((2.0 * np.pi * radius * scene.pixels(85.0)).cumsum(), scene)
    radius, per_ring = radius[:count, None], 160
    position = random_positions(rng, scene, count)
    heap = rng.random((count, 1)) < 0.4
    neighbour = position[rng.integers(0, count, count)] + scene.pixels(420.0) * rng.normal(0.0, 1.0, (count, 2))
    centre = np.where(heap, neighbour, position)
    angle = rng.uniform(0.0, 2.0 * np.pi, (count, per_ring))
    shape = rng.normal(0.0, 0.05, (2, count, 1))
    phase = rng.uniform(0.0, 2.0 * np.pi, (2, count, 1))
    loop = radius * (1.0 + shape[0] * np.cos(2.0 * angle + phase[0]) + shape[1] * np.cos(3.0 * angle + phase[1]))
    loop = loop + rng.normal(0.0, scene.pixels(10.0), loop.shape)
    local = np.stack([loop * np.sin(angle), loop * np.cos(angle)], axis=-1)
    label = rng.gamma(3.0, 1.0 / 3.0, (count, 1)) * radius * rng.exponential(1.0, (count, per_ring))
    return Emitters((centre[:, None] + local).reshape(-1, 2), label.ravel())


STRUCTURES: dict[str, Callable[[np.random.Generator, Scene], Emitters]] = {
    "rings": rings,
    "fibres": fibres,
    "microtubules": microtubules,
    "puncta": puncta,
    "clusters": clusters,
    "mitochondria": mitochondria,
    "polymer_rings": polymer_rings,
}
"""Function of each structure, by name. The order defines the class ids of masks, from 1: add new ones at the end."""
