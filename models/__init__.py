"""Networks, data, channel groups, slimming, repair and training; usable without Ray."""

from __future__ import annotations

from .artifact import Artifact, load_artifact, save_artifact, verify_artifact
from .candidates import CandidateBuilder, Repair
from .coupling import GroupScope, trace_channel_groups
from .criteria import CRITERIA, Criterion, make_criterion
from .data import ArrayImages, Data, DataSpec, ImageSource, LabelledImages, load_data
from .groups import ChannelGroup, ChannelGroups
from .progress import SILENT, PlainProgress, Progress, SilentProgress
from .slimming import slim
from .statistics import TaskStatistics, gather_statistics
from .structure import GroupInfo, LayerInfo, Structure, Widths
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
    "CandidateBuilder",
    "ChannelGroup",
    "ChannelGroups",
    "Criterion",
    "Data",
    "DataSpec",
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
    "Repair",
    "SilentProgress",
    "Structure",
    "TaskSpec",
    "TaskStatistics",
    "TrainingSpec",
    "Widths",
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
