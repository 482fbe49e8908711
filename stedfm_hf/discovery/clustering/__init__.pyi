from .consensus import consensus_matrix
from .evidence import LevelEvidence, NodeEvidence, PairEvidence, PartitionEvidence, ReferenceEvidence
from .partition import flat_labels, partition
from .recursion import cluster_tree
from .reference import reference_tree
from .rule import ValleyRule
from .tree import Memberships, Node, Tree

__all__ = [
    "LevelEvidence",
    "Memberships",
    "Node",
    "NodeEvidence",
    "PairEvidence",
    "PartitionEvidence",
    "ReferenceEvidence",
    "Tree",
    "ValleyRule",
    "cluster_tree",
    "consensus_matrix",
    "flat_labels",
    "partition",
    "reference_tree",
]
