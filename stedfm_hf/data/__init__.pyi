from .archives.import_archive import import_archive
from .building.build import build
from .official.import_set import import_set
from .official.registry import OFFICIAL_SETS, OfficialSet
from .publishing.push import push
from .publishing.stats import dataset_stats
from .repository.decoding import decode, to_unit_range
from .simulation.fields import SimulatedField, simulate_field, simulate_image
from .simulation.physics import SimulationSettings
from .simulation.simulate import simulate
from .simulation.structures import STRUCTURES
from .streaming.local import EpochBatches, LocalCrops
from .streaming.stream import CropStream, stream

__all__ = [
    "OFFICIAL_SETS",
    "STRUCTURES",
    "CropStream",
    "EpochBatches",
    "LocalCrops",
    "OfficialSet",
    "SimulatedField",
    "SimulationSettings",
    "build",
    "dataset_stats",
    "decode",
    "import_archive",
    "import_set",
    "push",
    "simulate",
    "simulate_field",
    "simulate_image",
    "stream",
    "to_unit_range",
]
