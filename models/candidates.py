"""Building the network of a candidate: slim, repair, recalibrate."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import nn

from .batchnorm import recalibrate_batchnorm
from .repair.full import FullRepair
from .repair.quick import QuickRepair
from .slimming import kept_channels, slim
from .statistics import TaskStatistics
from .structure import Widths
from .task import PruningTask

__all__ = ["CandidateBuilder", "Repair"]

Repair = Literal["none", "quick", "full"]


class CandidateBuilder:
    """Builds the networks of candidates from one dense network.

    Args:
        task: The task.
        statistics: Its statistics.
    """

    def __init__(self, task: PruningTask, statistics: TaskStatistics) -> None:
        self._task = task
        self.statistics = statistics
        self._quick = QuickRepair(
            task.network, statistics.moments, statistics.norms, statistics.input_rankings()
        )
        self._full: FullRepair | None = None

    def slim(self, widths: Widths, repair: Repair) -> nn.Module:
        """The slim network, repaired but not recalibrated, sharing what did not change.

        For reading only: changing its parameters in place may change the dense network's.

        Args:
            widths: Units kept per group.
            repair: How the layers that read slimmed groups are corrected.
        """
        kept = self.statistics.kept_units(widths)
        groups = self.statistics.groups
        slimmed = slim(self._task.network, groups, kept)
        if repair == "none":
            return slimmed
        channels = kept_channels(self._task.network, groups, kept)
        self._quick.apply(slimmed, channels)
        if repair == "full":
            if self._full is None:
                self._full = FullRepair(self._task.network, self._task.calibration)
            return self._full.apply(slimmed, channels)
        return slimmed

    def build(self, widths: Widths, repair: Repair) -> nn.Module:
        """A network of its own, float32, ready to be used, trained or saved.

        Args:
            widths: Units kept per group.
            repair: As for :meth:`slim`. After ``none`` and ``quick`` BatchNorm statistics are
                re-estimated on all calibration images; full repair sets them itself.
        """
        network = copy.deepcopy(self.slim(widths, repair))
        network.requires_grad_(True)
        if repair != "full":
            with torch.inference_mode(False):
                recalibrate_batchnorm(network, [self._task.calibration])
        return network
