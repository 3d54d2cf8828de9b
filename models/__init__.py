"""Networks, data, channel groups, slimming, repair and training; usable without Ray."""

from __future__ import annotations

from .data import ArrayImages, Data, DataSpec, ImageSource, LabelledImages, load_data
from .progress import SILENT, PlainProgress, Progress, SilentProgress
from .task import PruningTask, TaskSpec, load_task
from .training import TrainingSpec, accuracy, train
from .weights import load_weights, read_weights, save_weights
from .zoo import NETWORKS, NetworkBuilder, PadShortcut, build_network

__all__ = [
    "NETWORKS",
    "SILENT",
    "ArrayImages",
    "Data",
    "DataSpec",
    "ImageSource",
    "LabelledImages",
    "NetworkBuilder",
    "PadShortcut",
    "PlainProgress",
    "Progress",
    "PruningTask",
    "SilentProgress",
    "TaskSpec",
    "TrainingSpec",
    "accuracy",
    "build_network",
    "load_data",
    "load_task",
    "load_weights",
    "read_weights",
    "save_weights",
    "train",
]
