"""Networks, data, decisions, reductions, costs, repair and training; usable without Ray.

Members are imported when they are asked for: torch takes seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazily

if TYPE_CHECKING:
    from .artifact import Artifact, load_artifact, save_artifact, verify_artifact
    from .builder import CandidateBuilder, Repair
    from .costs.tables import GroupInfo, LayerInfo, Structure
    from .coupling import GroupScope, trace_channel_groups
    from .criteria import CRITERIA, Criterion, make_criterion
    from .data import ArrayImages, Data, DataSpec, ImageSource, LabelledImages, load_data
    from .groups import ChannelGroup, ChannelGroups
    from .progress import SILENT, PlainProgress, Progress, SilentProgress
    from .reductions.channels import ChannelsReduction, slim
    from .reductions.reduction import Reduction
    from .space import Candidate, Decision, SearchSpace
    from .statistics import TaskStatistics, gather_statistics
    from .task import PruningTask, TaskSpec, load_task
    from .training import TrainingSpec, accuracy, train
    from .weights import load_weights, read_weights, save_weights
    from .zoo import NETWORKS, NetworkBuilder, PadShortcut, build_network

__all__ = [
    "CRITERIA",
    "NETWORKS",
    "SILENT",
    "ArrayImages",
    "Artifact",
    "Candidate",
    "CandidateBuilder",
    "ChannelGroup",
    "ChannelGroups",
    "ChannelsReduction",
    "Criterion",
    "Data",
    "DataSpec",
    "Decision",
    "GroupInfo",
    "GroupScope",
    "ImageSource",
    "LabelledImages",
    "LayerInfo",
    "NetworkBuilder",
    "PadShortcut",
    "PlainProgress",
    "Progress",
    "PruningTask",
    "Reduction",
    "Repair",
    "SearchSpace",
    "SilentProgress",
    "Structure",
    "TaskSpec",
    "TaskStatistics",
    "TrainingSpec",
    "accuracy",
    "build_network",
    "gather_statistics",
    "load_artifact",
    "load_data",
    "load_task",
    "load_weights",
    "make_criterion",
    "read_weights",
    "save_artifact",
    "save_weights",
    "slim",
    "trace_channel_groups",
    "train",
    "verify_artifact",
]

_MODULES = {
    ".artifact": ("Artifact", "load_artifact", "save_artifact", "verify_artifact"),
    ".builder": ("CandidateBuilder", "Repair"),
    ".costs.tables": ("GroupInfo", "LayerInfo", "Structure"),
    ".coupling": ("GroupScope", "trace_channel_groups"),
    ".criteria": ("CRITERIA", "Criterion", "make_criterion"),
    ".data": ("ArrayImages", "Data", "DataSpec", "ImageSource", "LabelledImages", "load_data"),
    ".groups": ("ChannelGroup", "ChannelGroups"),
    ".progress": ("PlainProgress", "Progress", "SILENT", "SilentProgress"),
    ".reductions.channels": ("ChannelsReduction", "slim"),
    ".reductions.reduction": ("Reduction",),
    ".space": ("Candidate", "Decision", "SearchSpace"),
    ".statistics": ("TaskStatistics", "gather_statistics"),
    ".task": ("PruningTask", "TaskSpec", "load_task"),
    ".training": ("TrainingSpec", "accuracy", "train"),
    ".weights": ("load_weights", "read_weights", "save_weights"),
    ".zoo": ("NETWORKS", "NetworkBuilder", "PadShortcut", "build_network"),
}
__getattr__ = lazily(
    __name__, {name: module for module, names in _MODULES.items() for name in names}
)
