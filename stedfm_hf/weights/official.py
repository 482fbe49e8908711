"""Registry of the weights that the authors of STED-FM name, with their URLs and facts."""

from __future__ import annotations

from dataclasses import dataclass

from stedfm_hf.runs.errors import UserError

__all__ = ["OFFICIAL_WEIGHTS", "OfficialWeights", "find_official", "is_official_name"]


@dataclass(frozen=True)
class OfficialWeights:
    """Named set of weights.

    Attributes:
        name: Name in the reference, such as `MAE_SMALL_STED`.
        architecture: Name of its architecture in this package, such as `stedfm-vit-small`.
        corpus: Pretraining data: `STED`, `SIM`, `HPA`, `JUMP`, ...
        url: URL of its file, or None if no public file is known.
        sha256: SHA-256 of the downloaded file, or None if it is not recorded.
        training: Facts about the pretraining, one sentence each.
        licence: Licence of the weights, as the Hub names it.
        licence_note: Origin of the licence.

    Source:
        Paper and reference repository.
    """

    name: str
    architecture: str
    corpus: str
    url: str | None = None
    sha256: str | None = None
    training: tuple[str, ...] = ()
    licence: str = "mit"
    licence_note: str = "MIT, the licence of the reference repository; the file itself states none"

    @property
    def hub_id(self) -> str:
        """Id of the repository that is planned for the weights.

        Example:
            >>> find_official("MAE_SMALL_STED").hub_id, OFFICIAL_WEIGHTS["MAE_BASE_HPA"].hub_id
            ('flclab/stedfm-vit-small', 'flclab/stedfm-vit-base-hpa')
        """
        return f"{OWNER}/stedfm-vit-" + self.name.removeprefix("MAE_").removesuffix("_STED").lower().replace("_", "-")


OWNER = "flclab"
"""Namespace of the official repositories on the Hub."""

_SMALL_STED = OfficialWeights(
    name="MAE_SMALL_STED",
    architecture="stedfm-vit-small",
    corpus="STED",
    url="https://s3.valeria.science/flclab-foundation-models/models/mae-small-sted.zip",
    training=(
        "Masked autoencoder, 75 % of the patches hidden, mean squared error on the raw pixels of the hidden patches.",
        "About one million crops of 224 x 224 pixels out of 37,387 STED images of one channel, from the microscopes "
        "of one group of laboratories; the pixel sizes of the crops are not recorded.",
        "Each image was clipped to its 0.1 and 99.9 percentiles and scaled to [0, 1] before cropping; no mean or "
        "standard deviation is subtracted.",
        "1,000 epochs.",
    ),
)

_UNPUBLISHED = (
    *(OfficialWeights(f"MAE_{size}_STED", f"stedfm-vit-{size.lower()}", "STED") for size in ("TINY", "BASE", "LARGE")),
    *(
        OfficialWeights(f"MAE_{size}_{corpus}", f"stedfm-vit-{size.lower()}", corpus)
        for corpus in ("HPA", "JUMP")
        for size in ("TINY", "SMALL", "BASE", "LARGE")
    ),
    OfficialWeights("MAE_SMALL_SIM", "stedfm-vit-small", "SIM"),
    OfficialWeights("MAE_SMALL_HYBRID", "stedfm-vit-small", "HPA + SIM + STED"),
    OfficialWeights("MAE_64_P8", "stedfm-vit-64-p8", "STED, crops centred on proteins"),
    OfficialWeights("MAE_224_P16", "stedfm-vit-small", "STED"),
)

OFFICIAL_WEIGHTS: dict[str, OfficialWeights] = {weights.name: weights for weights in (_SMALL_STED, *_UNPUBLISHED)}
"""Named weights of the reference with one of the five architectures, by name."""


def is_official_name(name: str) -> bool:
    """Return whether `name` is a name of weights (`MAE_…`) rather than a path or a URL."""
    return name.upper().startswith("MAE_") and not any(mark in name for mark in "./\\:")


def find_official(name: str) -> OfficialWeights:
    """Look up named weights that can be downloaded.

    Raises:
        UserError: If the name is unknown, or no public file exists.

    Example:
        >>> find_official("mae_small_sted").architecture
        'stedfm-vit-small'
    """
    public = ", ".join(weights.name for weights in OFFICIAL_WEIGHTS.values() if weights.url)
    weights = OFFICIAL_WEIGHTS.get(name.upper())
    if weights is None:
        others = ", ".join(weights.name for weights in OFFICIAL_WEIGHTS.values() if not weights.url)
        raise UserError(f"{name}: no such weights; public: {public}; named by the authors but not published: {others}")
    if weights.url is None:
        raise UserError(
            f"{weights.name}: the authors name these weights but have published no file of them; "
            f"public: {public}; if you have the file, give its path instead"
        )
    return weights
