"""Registry of the published sets: tasks, files and addresses.

Source: the authors' page and notebooks, July 2025 (sizes and addresses).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from stedfm_hf.data.settings import ListSettings
from stedfm_hf.runs.errors import UserError
from stedfm_hf.runs.result import Result
from stedfm_hf.runs.settings import takes_settings
from stedfm_hf.runs.wording import text_table

NOT_STATED = "not stated"
PREPRINT = "Bilodeau et al., bioRxiv 10.1101/2025.06.06.656993 (2025)"
_BUCKET = "https://s3.valeria.science/flclab-foundation-models"
_ROOT = f"{_BUCKET}/evaluation-data"
_ZENODO = "the test file is in the record 10.5281/zenodo.15480470; for the others, ask the authors of STED-FM"
_ASK = "no public address is known; ask the authors of STED-FM"


@dataclass(frozen=True)
class OfficialSet:
    """Description of one published set.

    Attributes:
        name: Name for `stedfm data import-set`.
        reference_name: Name in `get_dataset` of the reference code.
        task: Classes, masks or regression target.
        files: Names and formats of the authors' files.
        size: Number of images per split, where it is known.
        availability: How to obtain the files.
        url: Public address of the files, or None.
        licence: Licence of the images.
        citation: Publication.
        module: Name of the module of `stedfm_hf.data.official` that imports the set.
        options: Keyword arguments of the `plan` function of that module.

    Example:
        >>> OFFICIAL_SETS["low-high-quality"].licence
        'not stated'
    """

    name: str
    reference_name: str
    task: str
    files: str
    size: str
    availability: str
    url: str | None = None
    licence: str = NOT_STATED
    citation: str = PREPRINT
    module: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


_POLYMER = OfficialSet(
    "polymer-rings",
    "polymer-rings",
    "classes CdvB1, CdvB2",
    "TIFF files, three text lists",
    "test 79 (inferred)",
    _ASK,
    module="polymer_rings",
)
_SYNAPTIC = OfficialSet(
    "synaptic-semantic-segmentation",
    "synaptic-semantic-segmentation",
    "votes for round, elongated, perforated, multidomains",
    "{train,valid,test}_2024-05-16.hdf5 with crops, labels, masks, original_images",
    "train 1191, validation 354, test 375 crops",
    _ZENODO,
    citation=f"Synaptic Protein Zoo, 10.5281/zenodo.15480470; {PREPRINT}",
    module="synaptic",
)
_SETS = (
    OfficialSet(
        "optim",
        "optim",
        "classes actin, tubulin, CaMKII_Neuron, PSD95_Neuron",
        "folders optim_train, optim_valid, optim-data of .npz files; a zip",
        "train 1536, validation 147, test 438",
        "the address holds the test set; for the other two folders, ask the authors of STED-FM",
        url=f"{_ROOT}/optim-data.zip",
        citation=f"Durand et al., Nature Communications 9, 5247 (2018); {PREPRINT}",
        module="optim",
    ),
    OfficialSet(
        "neural-activity-states",
        "neural-activity-states",
        "classes Block, 0MgGlyBic, GluGly, 48hTTX",
        "NAS_PSD95_{train,valid,test}_v2.tar of .npz files",
        "train 6021, validation 1176, test 1510 before balancing",
        "the address holds the test set; for the other two tars, ask the authors of STED-FM",
        url=f"{_ROOT}/NeuralActivityStates/NAS_PSD95_test_v2.tar",
        module="neural_activity_states",
    ),
    OfficialSet(
        "peroxisome",
        "peroxisome",
        "classes 4hMeOH, 6hMeOH, 8hMeOH, 16hMeOH",
        "TIFF files, three text lists",
        "test 244 (inferred)",
        _ASK,
        module="peroxisome",
    ),
    _POLYMER,
    OfficialSet(
        "polymer-rings-4",
        "polymer-rings (superclasses=False)",
        "classes CdvB1 and CdvB2, with and without CdvB",
        _POLYMER.files,
        _POLYMER.size,
        _ASK,
        module="polymer_rings",
        options={"four_classes": True},
    ),
    OfficialSet(
        "dl-sim",
        "dl-sim",
        "classes adhesion, factin, microtubule, mitochondrial",
        "TIFF files, three text lists",
        "train 5863, validation 2535, test 1242",
        "the images are those of DL-SIM; no public address of the authors' selection is known",
        citation=f"Jin et al., Nature Communications 11, 1934 (2020); {PREPRINT}",
        module="dl_sim",
    ),
    OfficialSet(
        "synaptic-proteins",
        "synaptic-proteins",
        "four proteins",
        "{train,valid,test}_v2.hdf5 with images, proteins, conditions",
        NOT_STATED,
        _ASK,
        module="synaptic_proteins",
    ),
    OfficialSet(
        "resolution",
        "resolution",
        "regression: resolution in nm",
        "HDF5 with data, labels",
        NOT_STATED,
        _ASK,
        module="resolution",
    ),
    OfficialSet(
        "low-high-quality",
        "low-high-quality",
        "classes low, high",
        "HDF5 with groups low, high; a zip",
        NOT_STATED,
        "at the address",
        url=f"{_ROOT}/low-high-quality.zip",
        module="low_high_quality",
    ),
    OfficialSet(
        "factin",
        "factin (segmentation)",
        "masks of rings and fibres, which overlap; the dendrite",
        "{training,validation,testing}_small-dataset_20240418.hdf5; a zip",
        NOT_STATED,
        "at the address",
        url=f"{_BUCKET}/segmentation-data/factin-segmentation-data.zip",
        module="factin",
    ),
    OfficialSet(
        "footprocess",
        "footprocess",
        "masks of foot processes (FP) and slit diaphragms (SD)",
        "TIFF files in images, labels and test; training.txt, validation.txt",
        NOT_STATED,
        _ASK,
        module="footprocess",
    ),
    OfficialSet(
        "lioness",
        "lioness",
        "masks of cells and their boundaries, which overlap",
        "folders train, valid, test of HDF5 and TIFF volumes",
        NOT_STATED,
        _ASK,
        module="lioness",
    ),
    _SYNAPTIC,
    replace(
        _SYNAPTIC,
        name="perforated-segmentation",
        reference_name="perforated-segmentation",
        task="votes for perforated",
        size=NOT_STATED,
        options={"task": "perforated"},
    ),
    replace(
        _SYNAPTIC,
        name="multidomain-detection",
        reference_name="multidomain-detection",
        task="map of the density of domains",
        size=NOT_STATED,
        options={"task": "multidomain"},
    ),
    OfficialSet(
        "mitochondria",
        "mitochondria",
        "masks of mitochondria that divide",
        "Mito.h5 and Proc.h5 in training_data",
        "train 24000, validation 6000, test 7000 frames",
        _ASK,
        module="mitochondria",
    ),
)
OFFICIAL_SETS: dict[str, OfficialSet] = {each.name: each for each in _SETS}
"""Published sets by name."""


def official_set(name: str) -> OfficialSet:
    """Return the published set with a name.

    Args:
        name: Name of the set.

    Raises:
        UserError: The name is unknown.

    Example:
        >>> official_set("dl-sim").task
        'classes adhesion, factin, microtubule, mitochondrial'
    """
    if name not in OFFICIAL_SETS:
        raise UserError(f"{name!r}: not a published set. Choose one of {', '.join(OFFICIAL_SETS)}.")
    return OFFICIAL_SETS[name]


@dataclass(frozen=True)
class SetList(Result):
    """List of published sets.

    Attributes:
        sets: Published sets in the order of the list.
    """

    sets: tuple[OfficialSet, ...]

    def summary(self) -> str:
        """Return a table with one row per set."""
        rows = [(each.name, each.task, each.size, each.licence, each.url or each.availability) for each in self.sets]
        return text_table(("name", "task", "images", "licence", "files"), rows)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the public fields of every set."""
        hidden = {"module", "options"}
        return [{key: value for key, value in asdict(each).items() if key not in hidden} for each in self.sets]


@takes_settings(ListSettings)
def list_sets(settings: ListSettings) -> SetList:
    """List the published sets.

    Example:
        >>> len(list_sets().sets)
        16
    """
    return SetList(_SETS)
