"""Building the network of a candidate: slim, repair, recalibrate."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import nn

from .batchnorm import recalibrate_batchnorm
from .fusion import Precision, resolve_precision
from .repair.block import BlockRepair
from .repair.full import FULL, LIGHT, Effort, FullRepair
from .repair.quick import QuickRepair
from .slimming import kept_channels, slim
from .statistics import TaskStatistics
from .structure import Widths
from .task import PruningTask

__all__ = ["CandidateBuilder", "FinalRepair", "Repair", "is_recalibrated"]

Repair = Literal["none", "quick", "light", "full"]
"""What is fast enough for every candidate of a search, or nearly."""

FinalRepair = Literal["full", "block"]
"""What the best candidates of a search get."""

_EFFORTS: dict[Repair, Effort] = {"light": LIGHT, "full": FULL}


def is_recalibrated(repair: Repair | FinalRepair) -> bool:
    """Whether BatchNorm statistics are re-estimated after a repair, which does not set them."""
    return repair not in (*_EFFORTS, "block")


class CandidateBuilder:
    """Builds the networks of candidates from one dense network.

    Args:
        task: The task.
        statistics: Its statistics.
        precision: That light and full repair run candidates in, on the processor; ``auto`` and
            ``bf16`` take bf16 where the processor computes with it.
    """

    def __init__(
        self, task: PruningTask, statistics: TaskStatistics, precision: Precision = "auto"
    ) -> None:
        self._task = task
        # Candidates are repaired on the processor, wherever they are evaluated.
        asked: Precision = "fp32" if precision == "fp32" else "auto"
        self._precision = resolve_precision(asked, torch.device("cpu"))
        self.statistics = statistics
        self._quick = QuickRepair(
            task.network, statistics.moments, statistics.norms, statistics.input_rankings()
        )
        self._by_effort: dict[Effort, FullRepair] = {}

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
        if repair in _EFFORTS:
            return self._full_repair(_EFFORTS[repair]).apply(slimmed, channels)
        return slimmed

    def build(self, widths: Widths, repair: Repair | FinalRepair) -> nn.Module:
        """A network of its own, float32, ready to be used, trained or saved.

        Args:
            widths: Units kept per group.
            repair: As for :meth:`slim`, or ``block``: full repair, then block by block (see
                :class:`BlockRepair`). After ``none`` and ``quick`` BatchNorm statistics are
                re-estimated on all calibration images; the others set them themselves.
        """
        if repair == "block":
            network = self._block_repaired(widths)
        else:
            network = copy.deepcopy(self.slim(widths, repair))
        network.requires_grad_(True)
        if is_recalibrated(repair):
            with torch.inference_mode(False):
                recalibrate_batchnorm(network, [self._task.calibration])
        return network

    def _block_repaired(self, widths: Widths) -> nn.Module:
        statistics = self.statistics
        kept = statistics.kept_units(widths)
        return BlockRepair(self._task.network, self._task.calibration).apply(
            self.slim(widths, "full"), kept_channels(self._task.network, statistics.groups, kept)
        )

    def _full_repair(self, effort: Effort) -> FullRepair:
        if effort not in self._by_effort:
            self._by_effort[effort] = FullRepair(
                self._task.network,
                self._task.calibration,
                self.statistics.moments,
                effort,
                self._precision,
            )
        return self._by_effort[effort]
