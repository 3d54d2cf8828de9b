"""Which shortcuts leave a network's outputs what they are, asked once per task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import NetworkError
from ...models.builder import CandidateBuilder
from ...models.inference.precision import resolve_precision
from ...models.inference.shortcuts import FastInference, Shortcuts
from ...models.progress import SILENT, Progress
from ...models.space import Candidate
from ...models.statistics import TaskStatistics
from ...models.task import PruningTask
from .evaluations import sentence
from .evaluator_spec import EvaluatorSpec

__all__ = ["choose_shortcuts"]

_IMAGES, _BATCH = 32, 100
_LEAST = 1e-30
# Largest difference of outputs, as a share of their root mean square. In float32 rounding makes
# less than 1e-5 of it (a graphics card may multiply in TF32), and a lost rectifier about 1; what is
# wrong shows there. In bf16 the same shortcut can only show that a kernel computes nonsense.
_TOLERATED = {"fp32": 1e-3, "bf16": 0.25}
_TOLERATED_ON_A_CARD = 1e-2
# Largest difference of the dense network's accuracy that reduced precision may make.
_TOLERATED_ACCURACY = 0.002
# Shares of the dense values that the random candidate's lie between.
_NARROWEST, _WIDEST = 0.3, 0.9


def choose_shortcuts(
    task: PruningTask,
    statistics: TaskStatistics,
    spec: EvaluatorSpec,
    device: torch.device,
    seed: int,
    progress: Progress = SILENT,
) -> tuple[Shortcuts, CandidateBuilder]:
    """Compare the plain network with what is run in its place, and give up what differs.

    The dense network and one random candidate, slim and repaired, run on some validation images: as
    they are, cast, with BatchNorm folded, and fused. A shortcut that raises, or gives other outputs
    than rounding explains, is not taken.

    Args:
        task: The task.
        statistics: Its statistics.
        spec: How candidates are evaluated; ``precision: auto`` takes bf16 where the device computes
            with it, the network's own code runs in it, and the dense network's accuracy stays.
        device: Where candidates are evaluated.
        seed: Draws the candidate.
        progress: Receives a note of everything that is given up, and why.

    Returns:
        The shortcuts that are taken, and a builder of candidates that fits them.

    Raises:
        NetworkError: If the network cannot run on the device, or the spec asks for bf16 and it
            cannot run in it.
    """
    return _Choice(task, statistics, spec, device, seed, progress).made()


@dataclass(frozen=True)
class _Choice:
    task: PruningTask
    statistics: TaskStatistics
    spec: EvaluatorSpec
    device: torch.device
    seed: int
    progress: Progress

    @torch.inference_mode()
    def made(self) -> tuple[Shortcuts, CandidateBuilder]:
        """Every shortcut in float32 first, where rounding is no excuse; then the precision."""
        shortcuts = self._with_layout(Shortcuts())
        shortcuts = self._without_differences(shortcuts, self.task.network, "The network")
        shortcuts = self._in_precision(shortcuts)
        builder = self._builder(shortcuts)
        try:
            network, shortcuts, builder = self._candidate(shortcuts, builder)
        except Exception:
            # Whatever it is, the evaluation of every such candidate will say it.
            return shortcuts, builder
        return self._without_differences(shortcuts, network, "A candidate"), builder

    def _with_layout(self, shortcuts: Shortcuts) -> Shortcuts:
        network = self.task.network
        expected = network(self.task.validation.images[:_IMAGES])
        reason = self._difference(lambda: self._bare(shortcuts), network, expected)
        if reason is None:
            return shortcuts
        usual = replace(shortcuts, channels_last=False)
        try:
            fast = self._bare(usual)
            fast.cast(network)(self._images(fast))
        except Exception as error:
            raise NetworkError(
                f"The network runs as it was given, but not on {self.device} ({sentence(error)}); "
                "keep all tensors that it computes with as parameters or buffers."
            ) from error
        self.progress.warn(
            f"With its memory channels last, which is faster, the network {reason}; evaluations "
            "keep the usual order."
        )
        return usual

    def _without_differences(
        self, shortcuts: Shortcuts, network: nn.Module, which: str
    ) -> Shortcuts:
        """The shortcuts less those that change a network that is ready to be cast."""
        bare = self._bare(shortcuts)
        expected = bare.cast(network)(self._images(bare)).float()
        if shortcuts.folds:
            reason = self._difference(
                lambda: self._fast(replace(shortcuts, fuses=False)), network, expected
            )
            if reason is not None:
                self.progress.warn(
                    f"{which} with BatchNorm folded {reason}; evaluations do not fold it."
                )
                shortcuts = replace(shortcuts, folds=False)
        if shortcuts.fuses:
            reason = self._difference(lambda: self._fast(shortcuts), network, expected)
            if reason is not None:
                self.progress.warn(
                    f"{which} with fused convolutions {reason}; evaluations do not fuse them."
                )
                shortcuts = replace(shortcuts, fuses=False)
        return shortcuts

    def _in_precision(self, shortcuts: Shortcuts) -> Shortcuts:
        """The shortcuts with the precision that is asked for, or that ``auto`` finds to be fine."""
        wanted = resolve_precision(self.spec.precision, self.device)
        if wanted == "fp32":
            return shortcuts
        lower = replace(shortcuts, precision=wanted)
        try:
            difference = abs(self._accuracy(shortcuts) - self._accuracy(lower))
        except Exception as error:
            if self.spec.precision != "auto":
                raise NetworkError(
                    f"The network cannot run in {wanted} ({sentence(error)}); write precision: "
                    "auto or fp32."
                ) from error
            self.progress.warn(
                f"The network cannot run in {wanted} ({sentence(error)}); candidates are evaluated "
                "in fp32."
            )
            return shortcuts
        if self.spec.precision == "auto" and not difference <= _TOLERATED_ACCURACY:
            self.progress.warn(
                f"In {wanted} the dense network's accuracy differs by {100 * difference:.2f} "
                "points; candidates are evaluated in fp32."
            )
            return shortcuts
        return self._without_differences(lower, self.task.network, f"In {wanted} the network")

    def _candidate(
        self, shortcuts: Shortcuts, builder: CandidateBuilder
    ) -> tuple[nn.Module, Shortcuts, CandidateBuilder]:
        """A random candidate, slim, repaired and finished, and what it could be built with."""
        space = self.statistics.space
        shares = np.random.default_rng(self.seed).uniform(_NARROWEST, _WIDEST, len(space))
        values = np.maximum(space.smallest, np.rint(shares * space.sizes).astype(np.int64))
        candidate = tuple(int(value) for value in space.canonical(values[None])[0])
        try:
            return self._finished(candidate, shortcuts, builder), shortcuts, builder
        except Exception as error:
            if self.spec.precision != "auto" or shortcuts.precision == "fp32":
                raise
            higher = replace(shortcuts, precision="fp32")
            builder = self._builder(higher)
            network = self._finished(candidate, higher, builder)
            self.progress.warn(
                f"A candidate cannot run in {shortcuts.precision} ({sentence(error)}); candidates "
                "are evaluated in fp32."
            )
            return network, higher, builder

    def _finished(
        self, candidate: Candidate, shortcuts: Shortcuts, builder: CandidateBuilder
    ) -> nn.Module:
        fast = self._bare(shortcuts)
        network = fast.cast(builder.slim(candidate, self.spec.repair))
        images = self.task.calibration[: self.spec.recalibration]
        builder.finish(self.spec.repair, images, shortcuts, self.device)(network, candidate)
        return network

    def _builder(self, shortcuts: Shortcuts) -> CandidateBuilder:
        return CandidateBuilder(self.task, self.statistics, shortcuts)

    def _fast(self, shortcuts: Shortcuts) -> FastInference:
        network, norms = self.task.network, self.statistics.norms
        return FastInference(network, norms, shortcuts, self.device)

    def _bare(self, shortcuts: Shortcuts) -> FastInference:
        """Nothing but the precision and the order of memory."""
        return self._fast(replace(shortcuts, folds=False, fuses=False))

    def _images(self, fast: FastInference) -> Tensor:
        return fast.images(self.task.validation.images[:_IMAGES])

    def _difference(
        self, made: Callable[[], FastInference], network: nn.Module, expected: Tensor
    ) -> str | None:
        """What is wrong with a network that takes shortcuts; None if nothing is."""
        try:
            fast = made()
            folded = fast.fold(fast.cast(network))
            found = (fast.fuse(folded) or folded)(self._images(fast)).float()
        except Exception as error:
            return f"cannot run ({sentence(error)})"
        expected = expected.to(found.device)
        known = expected.isfinite()
        if not known.any():
            return None
        scale = float(expected[known].square().mean().sqrt())
        distance = float((found - expected)[known].square().mean().sqrt())
        if distance <= self._tolerated(fast.shortcuts.precision) * scale:
            return None
        return f"gives other outputs (off by {100 * distance / max(scale, _LEAST):.3g} %)"

    def _tolerated(self, precision: Literal["fp32", "bf16"]) -> float:
        if precision == "fp32" and self.device.type != "cpu":
            return _TOLERATED_ON_A_CARD
        return _TOLERATED[precision]

    def _accuracy(self, shortcuts: Shortcuts) -> float:
        """The dense network's, on all validation images."""
        fast = self._bare(shortcuts)
        network, validation = fast.cast(self.task.network), self.task.validation
        right = 0
        for images, labels in zip(
            validation.images.split(_BATCH), validation.labels.split(_BATCH), strict=True
        ):
            right += int((network(fast.images(images)).argmax(dim=1).cpu() == labels).sum())
        return right / len(validation.labels)
