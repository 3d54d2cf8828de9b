"""Building the network of a candidate: reduce, repair, recalibrate or align."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from .batchnorm import recalibrate_batchnorm
from .inference.precision import Precision, place_images, resolve_precision
from .inference.shortcuts import Shortcuts
from .progress import SILENT, Progress
from .reductions.channels import KeptChannels
from .repair.align import Alignment
from .repair.block import BlockRepair
from .repair.full import FULL, LIGHT, Effort, FullRepair
from .repair.held_out import HeldOutImages
from .repair.quick import QuickRepair
from .space import Candidate
from .statistics import TaskStatistics
from .task import PruningTask

__all__ = ["CandidateBuilder", "FinalRepair", "Finish", "Repair"]

Repair = Literal["none", "quick", "light", "full"]
"""What is fast enough for every candidate of a search, or nearly."""

FinalRepair = Literal["none", "full", "block"]
"""What the best candidates of a search get."""

Finish = Callable[[nn.Module, Candidate], None]
"""Changes the reduced network of a candidate in place; see :meth:`CandidateBuilder.finish`."""

_CPU = torch.device("cpu")
_NO_CHOICE = Shortcuts()
# Of every decision, in the candidates by which a repair is judged for all (our choice).
_REFERENCE_SHARES = (0.3, 0.5, 0.7)
_EFFORTS: dict[Repair, Effort] = {"light": LIGHT, "full": FULL}


class CandidateBuilder:
    """Builds the networks of candidates from one dense network.

    Args:
        task: The task.
        statistics: Its statistics.
        shortcuts: That light and full repair take, on the processor, of precision and order of
            memory; bf16 where the processor computes with it.
    """

    def __init__(
        self, task: PruningTask, statistics: TaskStatistics, shortcuts: Shortcuts = _NO_CHOICE
    ) -> None:
        self._task = task
        # Candidates are repaired on the processor, wherever they are evaluated.
        asked: Precision = "fp32" if shortcuts.precision == "fp32" else "auto"
        self._shortcuts = replace(shortcuts, precision=resolve_precision(asked, _CPU))
        self.statistics = statistics
        self._quick = QuickRepair(
            task.network, statistics.moments, statistics.norms, statistics.input_rankings()
        )
        self._by_effort: dict[Effort, FullRepair] = {}
        self._finish: dict[Repair, Finish] = {}

    def slim(self, candidate: Candidate, repair: Repair) -> nn.Module:
        """The reduced network, repaired but not recalibrated, sharing what did not change.

        For reading only: changing its parameters in place may change the dense network's.

        Args:
            candidate: One value per decision.
            repair: How the layers that read what was reduced are corrected.

        Raises:
            ValueError: If there is no such candidate.
        """
        reduced = self.statistics.reductions.apply(self._task.network, candidate)
        if repair == "none":
            return reduced
        kept = self._kept_channels(candidate)
        self._quick.apply(reduced, kept)
        if repair in _EFFORTS:
            return self._full_repair(_EFFORTS[repair]).apply(reduced, kept)
        return reduced

    def build(
        self, candidate: Candidate, repair: Repair | FinalRepair, progress: Progress = SILENT
    ) -> nn.Module:
        """A network of its own, float32, ready to be used, trained or saved.

        It is judged by calibration images that no repair learns from (:class:`HeldOutImages`): what
        a repair made is delivered if it predicts there as the dense network does, or else whatever
        came before it and is better.

        Args:
            candidate: One value per decision.
            repair: As for :meth:`slim`, or ``block``: full repair, then block by block (see
                :class:`BlockRepair`). After ``none`` follows recalibration.
            progress: Receives a note where a repair is left out.
        """
        # What can be trained must not come out of inference mode.
        with torch.inference_mode(False), torch.no_grad():
            if repair == "none":
                network = self._finished(candidate, "none")
            else:
                network = self._least_divergent(candidate, repair, progress)
        network.requires_grad_(True)
        return network

    def _least_divergent(
        self, candidate: Candidate, repair: Repair | FinalRepair, progress: Progress
    ) -> nn.Module:
        """The best on images held out of what a repair makes and what comes before it."""
        made: dict[str, nn.Module] = {
            "no repair": self.slim(candidate, "none"),
            "recalibration": self._finished(candidate, "none"),
            "quick repair": self.slim(candidate, "quick"),
            "alignment": self._finished(candidate, "quick"),
        }
        if repair == "light":
            made["light repair"] = self.slim(candidate, "light")
        elif repair != "quick":
            made["full repair"] = self.slim(candidate, "full")
        if repair == "block":
            made["block repair"] = self._block_repaired(candidate, made["full repair"])
        divergences = {name: self._held_out.divergence(each) for name, each in made.items()}
        # Of equals the last one.
        best = min(reversed(made), key=lambda name: divergences[name])
        last = next(reversed(made))
        if best != last:
            progress.note(
                f"On calibration images held out, a candidate is nearer to the dense network after "
                f"{best} (divergence {divergences[best]:.3g}) than after {last} "
                f"({divergences[last]:.3g}); what comes after {best} is left out. More calibration "
                "images may help."
            )
        return copy.deepcopy(made[best])

    def _finished(self, candidate: Candidate, repair: Repair) -> nn.Module:
        """A network of its own, finished on the images that repairs learn from."""
        network = copy.deepcopy(self.slim(candidate, repair))
        if repair not in self._finish:
            usual = replace(self._shortcuts, precision="fp32")
            self._finish[repair] = self.finish(repair, self._held_out.learned, usual)
        self._finish[repair](network, candidate)
        return network

    @torch.inference_mode(False)
    @torch.no_grad()
    def judged_repair(self, repair: Repair, progress: Progress = SILENT) -> Repair:
        """The repair that candidates of a search get where they ask for one.

        Light and full repair give way to quick repair for all candidates of a task where it is
        better for some of them, on calibration images held out: their mean divergence over
        candidates of uniform shares decides, once.

        Args:
            repair: The one that is asked for.
            progress: Receives a note where it gives way.
        """
        if repair not in _EFFORTS:
            return repair
        sizes = self.statistics.space.sizes
        asked = usual = 0.0
        for share in _REFERENCE_SHARES:
            candidate = tuple(max(1, round(share * size)) for size in sizes)
            asked += self._held_out.divergence(self.slim(candidate, repair))
            usual += self._held_out.divergence(self._finished(candidate, "quick"))
        if asked <= usual:
            return repair
        progress.note(
            f"On calibration images held out, candidates are further from the dense network after "
            f"{repair} repair (divergence {asked / len(_REFERENCE_SHARES):.3g}) than after quick "
            f"repair ({usual / len(_REFERENCE_SHARES):.3g}), which they get instead. More "
            "calibration images may help."
        )
        return "quick"

    def finish(
        self,
        repair: Repair,
        images: Tensor,
        shortcuts: Shortcuts = _NO_CHOICE,
        device: torch.device = _CPU,
    ) -> Finish:
        """What has to follow :meth:`slim` before a candidate can be evaluated.

        After ``none`` that is recalibration of BatchNorm, after ``quick`` :class:`Alignment`, and
        after the others nothing.

        Args:
            repair: As for :meth:`slim`.
            images: Calibration images, float32 [N, C, H, W], run as one batch.
            shortcuts: Precision and order of memory of the candidates.
            device: Theirs.

        Returns:
            Called with a network, whose BatchNorm layers and classifier are its own, and the
            candidate that it is; changes it in place.
        """
        if repair not in ("none", "quick"):
            return lambda network, candidate: None
        placed = place_images(images, shortcuts.precision, device, shortcuts.channels_last)
        if repair == "none":
            return lambda network, candidate: recalibrate_batchnorm(network, [placed])
        alignment = Alignment(self._task.network, self.statistics.norms, images, device)

        def align(network: nn.Module, candidate: Candidate) -> None:
            alignment.apply(network, self._kept_channels(candidate), placed)

        return align

    def _kept_channels(self, candidate: Candidate) -> KeptChannels:
        return self.statistics.reductions.kept_channels(self._task.network, candidate)

    def _block_repaired(self, candidate: Candidate, full: nn.Module) -> nn.Module:
        channels_last = self._shortcuts.channels_last
        return BlockRepair(
            self._task.network, self._held_out.learned, channels_last=channels_last
        ).apply(full, self._kept_channels(candidate))

    def _full_repair(self, effort: Effort) -> FullRepair:
        if effort not in self._by_effort:
            self._by_effort[effort] = FullRepair(
                self._task.network,
                self._held_out.learned,
                self.statistics.moments,
                effort,
                self._shortcuts.precision,
                self._shortcuts.channels_last,
            )
        return self._by_effort[effort]

    @cached_property
    def _held_out(self) -> HeldOutImages:
        return HeldOutImages(self._task.network, self._task.calibration)
