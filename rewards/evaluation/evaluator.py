"""The evaluator: slim, repair, align, one forward pass, all measures and costs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...models.builder import CandidateBuilder, FinalRepair, Repair
from ...models.costs.collection import Costs, CostTables
from ...models.costs.own import OwnCosts, standalone_copy
from ...models.costs.registry import gather_costs, own_costs
from ...models.groups import ChannelGroups
from ...models.inference.shortcuts import FastInference, Shortcuts
from ...models.progress import SILENT, Progress
from ...models.space import Candidate
from ...models.statistics import gather_statistics
from ...models.task import PruningTask
from ..measures.accuracy import Accuracy, Loss
from ..measures.agreement import Agreement
from ..measures.measure import Batch, Measure
from ..registry import make_measures
from .applicable import applicable_measures
from .evaluation import Evaluation
from .evaluator_spec import EvaluatorSpec, evaluation_key
from .exactness import choose_shortcuts
from .sampling import Sample, anticipated_deviations, check_count, draw_sample
from .validation_images import ValidationImages

__all__ = ["REFERENCE_WIDTHS", "CandidateEvaluator", "EvaluatorSpec", "build_evaluator"]

REFERENCE_WIDTHS = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Shares of every group in the candidates that a sample of images is drawn by (our choice)."""


class CandidateEvaluator:
    """Evaluates candidates of one task; built by :func:`build_evaluator`.

    Attributes:
        builder: Builds the networks of candidates.
        shortcuts: What candidates are evaluated with; see :func:`choose_shortcuts`.
        key: Digest of everything that decides an evaluation beside the widths.
        costs: All costs that are known of the task.
    """

    def __init__(
        self,
        task: PruningTask,
        spec: EvaluatorSpec,
        builder: CandidateBuilder,
        measures: tuple[Measure, ...],
        costs: Costs,
        device: torch.device,
        shortcuts: Shortcuts,
        seed: int,
        progress: Progress = SILENT,
    ) -> None:
        self.builder = builder
        self.costs = costs
        self.shortcuts = shortcuts
        self._spec = spec
        self._measures = measures
        images = task.calibration[: spec.recalibration]
        self._repair = builder.judged_repair(spec.repair, progress)
        self._finish = builder.finish(self._repair, images, shortcuts, device)
        self._fast = FastInference(task.network, builder.statistics.norms, shortcuts, device)
        self._validation = ValidationImages.of(task, self._fast)
        self._own_costs = OwnCosts(own_costs(spec.costs), task.example_input)
        # More may be known than evaluations tell.
        self._costs = costs.only(spec.costs)
        digests = {**self._own_costs.digests(), **self._costs.tables.digests()}
        self.key = evaluation_key(spec, task.digest, self.precision, seed, digests)
        with torch.inference_mode():
            folded = self._fast.fold(self._fast.cast(task.network))
        self._fit(folded)
        own = self._costs.tables.own
        self._dense = self._measure(folded, self.groups.sizes, own, time.perf_counter())
        if spec.images not in (None, len(task.validation)):
            # References are run on all images, as the dense network was.
            self._validation = self._validation.draw(self._sample(spec.images, seed))
            self._fit(folded)

    @property
    def spec(self) -> EvaluatorSpec:
        """How candidates are evaluated, with the precision and the measures that were decided."""
        return self._spec

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """Precision that candidates are evaluated in."""
        return self.shortcuts.precision

    @property
    def groups(self) -> ChannelGroups:
        """The channel groups that candidates give widths to."""
        return self.builder.statistics.groups

    @property
    def dense(self) -> Evaluation:
        """The evaluation of the dense network as it was given, on all validation images."""
        return self._dense

    def evaluate(self, widths: Candidate) -> Evaluation:
        """Compute all measures and costs of one candidate.

        Args:
            widths: Units kept per group, each in 1..size.

        Raises:
            ValueError: If a width is out of range.
            EvaluationError: If one of the user's own costs cannot be computed.
        """
        start = time.perf_counter()
        with torch.inference_mode():
            slimmed, network = self._slim(widths)
            folded = self._fast.fold(network)
        own: dict[str, float] = {}
        if len(self._own_costs):
            own = self._own_costs.measure(standalone_copy(slimmed, network))
        return self._measure(folded, tuple(widths), own, start)

    def build(
        self,
        widths: Candidate,
        repair: Repair | FinalRepair | None = None,
        progress: Progress = SILENT,
    ) -> nn.Module:
        """A float32 network of its own, for finalists; see :meth:`CandidateBuilder.build`.

        Args:
            widths: Units kept per group.
            repair: Instead of the one that evaluations get; ``block`` is for these networks only.
            progress: Receives a note where a repair is left out.
        """
        return self.builder.build(widths, repair or self._repair, progress)

    def kept_units(self, widths: Candidate) -> list[NDArray[np.int64]]:
        """Per group, the units that a candidate keeps, ascending int64 [width]."""
        return list(self.builder.statistics.kept_units(widths))

    def _slim(self, widths: Candidate) -> tuple[nn.Module, nn.Module]:
        """A candidate as the builder makes it, and the same cast and finished."""
        slimmed = self.builder.slim(widths, self._repair)
        network = self._fast.cast(slimmed)
        self._finish(network, widths)
        return slimmed, network

    def _fit(self, dense: nn.Module) -> None:
        """Get ready to compare with the dense network on the validation images."""
        with torch.inference_mode():
            self._dense_outputs = tuple(dense(images).float() for images in self._validation.images)
            for measure in self._measures:
                measure.fit(dense, iter(self._validation.images))

    def _sample(self, count: int, seed: int) -> Sample:
        """Draw the images that candidates are evaluated on."""
        measures = Accuracy(), Loss(), Agreement()
        references = []
        with torch.inference_mode():
            for share in REFERENCE_WIDTHS:
                widths = tuple(max(1, round(share * size)) for size in self.groups.sizes)
                network = self._fast.fold(self._slim(widths)[1])
                batches = [
                    torch.stack([measure.per_image(batch).double() for measure in measures])
                    for batch in self._batches(network)
                ]
                references.append(torch.cat(batches, dim=1).cpu().numpy())
        right, loss, divergence = np.stack(references, axis=1)
        deviations = anticipated_deviations(right, np.exp(-loss), divergence)
        return draw_sample(deviations, count, _leading(self._measures), seed)

    def _measure(
        self, network: nn.Module, widths: Candidate, own: Mapping[str, float], start: float
    ) -> Evaluation:
        values: dict[str, float] = {}
        errors: dict[str, float] = {}
        with ExitStack() as stack, torch.inference_mode():
            for measure in self._measures:
                measure.attach(network)
                stack.callback(measure.detach)
            for batch in self._batches(network):
                for measure in self._measures:
                    measure.update(batch)
            for measure in self._measures:
                values.update(measure.compute())
                errors.update(measure.standard_errors())
        costs = self._costs.of_one(widths, own)
        return Evaluation(
            widths, values, costs, time.perf_counter() - start, standard_errors=errors
        )

    def _batches(self, network: nn.Module) -> Iterator[Batch]:
        validation = self._validation
        fused = self._fast.fuse(network)
        for inputs, labels, dense, sample in zip(
            validation.images,
            validation.labels,
            self._dense_outputs,
            validation.samples(),
            strict=True,
        ):
            # Most measures listen to the first images only; nothing can listen inside a fused one.
            chosen = network if fused is None or _is_heard(network) else fused
            yield Batch(chosen(inputs).float(), labels, dense, sample)


def build_evaluator(
    task: PruningTask,
    spec: EvaluatorSpec,
    seed: int,
    progress: Progress = SILENT,
    tables: CostTables | None = None,
    shortcuts: Shortcuts | None = None,
    needed: Mapping[str, str] = MappingProxyType({}),
) -> CandidateEvaluator:
    """Prepare a task for evaluating candidates.

    Args:
        task: The task.
        spec: How candidates are evaluated.
        seed: As for :func:`prunetune.models.gather_statistics`.
        progress: Receives a note of what takes long, and of shortcuts that are given up.
        tables: What is known of costs, such as a latency table that another process measured.
        shortcuts: What another process found to be exact for this task; when left out it is checked
            here.
        needed: The reward that reads a column of a measure, by the column's name. Measures that a
            spec has by default, that do not apply to the network and that no reward reads, are left
            out.

    Raises:
        PruneTuneError: If the network has nothing to prune, a name or parameter is wrong, or a cost
            cannot be computed.
    """
    listed = applicable_measures(spec.measures, task, needed, progress)
    measures = make_measures(listed)
    if spec.images is not None:
        check_count(spec.images, len(task.validation), _leading(measures))
    statistics = gather_statistics(task, spec.criterion, seed, progress)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if shortcuts is None:
        shortcuts, builder = choose_shortcuts(task, statistics, spec, device, seed, progress)
    else:
        builder = CandidateBuilder(task, statistics, shortcuts)
    costs = gather_costs(spec.costs, task, statistics.groups, tables, progress)
    spec = spec.model_copy(update={"precision": shortcuts.precision, "measures": listed})
    return CandidateEvaluator(
        task, spec, builder, measures, costs, device, shortcuts, seed, progress
    )


def _leading(measures: tuple[Measure, ...]) -> int:
    """How many of the first images some measure looks at, whatever is drawn."""
    return max((measure.leading for measure in measures), default=0)


def _is_heard(network: nn.Module) -> bool:
    """Whether a measure listens to any part of the network."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
