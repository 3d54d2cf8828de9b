"""The evaluator: slim, repair, align, one forward pass, all measures and costs."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from ...models.builder import CandidateBuilder, FinalRepair, Repair
from ...models.costs.own import OwnCosts, relative_costs, standalone_copy
from ...models.criteria import DEFAULT_CRITERION, CriterionSpec
from ...models.groups import ChannelGroups
from ...models.inference.folding import Precision, cast_network, fold_batchnorm, resolve_precision
from ...models.inference.fused import plan_inference
from ...models.progress import SILENT, Progress
from ...models.space import Candidate
from ...models.statistics import gather_statistics
from ...models.task import PruningTask
from ..measures.accuracy import Accuracy, Loss
from ..measures.agreement import Agreement
from ..measures.measure import Batch, Measure
from ..registry import DEFAULT_MEASURES, MeasureSpec, make_measures
from .evaluation import Evaluation
from .sampling import Sample, anticipated_deviations, check_count, draw_sample
from .validation_images import ValidationImages

__all__ = ["REFERENCE_WIDTHS", "CandidateEvaluator", "EvaluatorSpec", "build_evaluator"]

# Part of every evaluation's key: raise it when the same candidate would get other numbers.
_VERSION = "5"
# Largest difference of the dense network's accuracy that reduced precision may make.
_TOLERATED_DIFFERENCE = 0.002

REFERENCE_WIDTHS = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Shares of every group in the candidates that a sample of images is drawn by (our choice)."""


class EvaluatorSpec(BaseModel):
    """How candidates are evaluated.

    Attributes:
        criterion: Ranks the channels inside a group.
        repair: How the layers that read slimmed groups are corrected for each candidate: ``none``,
            ``quick``, ``light`` (ranks candidates of residual networks as ``full`` does, for about
            twice the time of ``quick``; worse than ``quick`` where layers read thousands of
            columns, as VGG-16's) or ``full``.
        precision: ``auto`` takes bf16 where the processor computes with it and the dense
            network's accuracy stays within 0.2 points.
        recalibration: Calibration images that BatchNorm statistics are re-estimated on, and quick
            repair is aligned on. With fewer, accuracy on ResNet-56 depends on which images they
            are by up to 2 points.
        images: Validation images that every candidate is evaluated on; all when left out. With
            fewer, accuracy, loss and agreement are unbiased estimates of their values on all
            images, and every evaluation says their standard errors. The images are drawn by the
            seed, the same for all candidates, more of those on which uniform candidates differ.
        measures: What is computed of every candidate.
        costs: The user's own costs, ``module:function`` or ``path/to/file.py:function``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    criterion: CriterionSpec = DEFAULT_CRITERION
    repair: Repair = "quick"
    precision: Precision = "auto"
    recalibration: int = Field(default=128, ge=1)
    images: int | None = Field(default=None, ge=2)
    measures: tuple[MeasureSpec, ...] = DEFAULT_MEASURES
    costs: tuple[str, ...] = ()


class CandidateEvaluator:
    """Evaluates candidates of one task; built by :func:`build_evaluator`.

    Attributes:
        builder: Builds the networks of candidates.
        precision: Precision that candidates are evaluated in, ``fp32`` or ``bf16``.
        key: Digest of everything that decides an evaluation beside the widths.
        dense_costs: The user's own costs of the dense network, in their own units.
    """

    def __init__(
        self,
        task: PruningTask,
        spec: EvaluatorSpec,
        builder: CandidateBuilder,
        measures: tuple[Measure, ...],
        device: torch.device,
        precision: Literal["fp32", "bf16"],
        seed: int,
    ) -> None:
        self.builder = builder
        self.precision = precision
        self._spec = spec
        self._measures = measures
        self._device = device
        images = task.calibration[: spec.recalibration]
        self._finish = builder.finish(spec.repair, images, precision, device)
        self._validation = ValidationImages.of(task, precision, device)
        self._own_costs = OwnCosts(spec.costs, task.example_input)
        self.key = _key(task, spec, precision, seed, self._own_costs)
        self.dense_costs = self._own_costs.measure(task.network)
        dense = cast_network(task.network, precision, device)
        with torch.inference_mode():
            folded = fold_batchnorm(dense, builder.statistics.norms)
            self._plan = plan_inference(folded) if device.type == "cpu" else None
        self._fit(folded)
        self._dense = self._measure(
            folded, self.groups.sizes, self.dense_costs, time.perf_counter()
        )
        if spec.images not in (None, len(task.validation)):
            # References are run on all images, as the dense network was.
            self._validation = self._validation.draw(self._sample(spec.images, seed))
            self._fit(folded)

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
            folded = fold_batchnorm(network, self.builder.statistics.norms)
        own: dict[str, float] = {}
        if len(self._own_costs):
            own = self._own_costs.measure(standalone_copy(slimmed, network))
        return self._measure(folded, tuple(widths), own, start)

    def build(self, widths: Candidate, repair: Repair | FinalRepair | None = None) -> nn.Module:
        """A float32 network of its own, for finalists, finished on all calibration images.

        Args:
            widths: Units kept per group.
            repair: Instead of the spec's; ``block`` is for these networks only.
        """
        return self.builder.build(widths, repair or self._spec.repair)

    def kept_units(self, widths: Candidate) -> list[NDArray[np.int64]]:
        """Per group, the units that a candidate keeps, ascending int64 [width]."""
        return list(self.builder.statistics.kept_units(widths))

    def _slim(self, widths: Candidate) -> tuple[nn.Module, nn.Module]:
        """A candidate as the builder makes it, and the same cast and finished."""
        slimmed = self.builder.slim(widths, self._spec.repair)
        network = cast_network(slimmed, self.precision, self._device)
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
                network = fold_batchnorm(self._slim(widths)[1], self.builder.statistics.norms)
                batches = [
                    torch.stack([measure.per_image(batch).double() for measure in measures])
                    for batch in self._batches(network)
                ]
                references.append(torch.cat(batches, dim=1).cpu().numpy())
        right, loss, divergence = np.stack(references, axis=1)
        deviations = anticipated_deviations(right, np.exp(-loss), divergence)
        return draw_sample(deviations, count, _leading(self._measures), seed)

    def _measure(
        self, network: nn.Module, widths: Candidate, own: dict[str, float], start: float
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
        structure = self.groups.structure
        costs = {
            "flops": int(structure.flops(widths)) / structure.dense_flops,
            "params": int(structure.params(widths)) / structure.dense_params,
            **relative_costs(own, self.dense_costs),
        }
        return Evaluation(
            widths, values, costs, time.perf_counter() - start, standard_errors=errors
        )

    def _batches(self, network: nn.Module) -> Iterator[Batch]:
        validation = self._validation
        fused = None if self._plan is None else self._plan.prepare(network)
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
    task: PruningTask, spec: EvaluatorSpec, seed: int, progress: Progress = SILENT
) -> CandidateEvaluator:
    """Prepare a task for evaluating candidates.

    Args:
        task: The task.
        spec: How candidates are evaluated.
        seed: As for :func:`prunetune.models.gather_statistics`.
        progress: Told of what takes long, and when bf16 is not accurate enough.

    Raises:
        PruneTuneError: If the network has nothing to prune, or a name or parameter is wrong.
    """
    measures = make_measures(spec.measures)
    if spec.images is not None:
        check_count(spec.images, len(task.validation), _leading(measures))
    statistics = gather_statistics(task, spec.criterion, seed, progress)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = resolve_precision(spec.precision, device)
    if spec.precision == "auto" and precision == "bf16":
        difference = _bf16_difference(task, device)
        if difference > _TOLERATED_DIFFERENCE:
            progress.note(
                f"In bf16 the dense network's accuracy differs by {100 * difference:.2f} points; "
                "candidates are evaluated in fp32."
            )
            precision = "fp32"
    builder = CandidateBuilder(task, statistics, precision)
    return CandidateEvaluator(task, spec, builder, measures, device, precision, seed)


def _leading(measures: tuple[Measure, ...]) -> int:
    """How many of the first images some measure looks at, whatever is drawn."""
    return max((measure.leading for measure in measures), default=0)


def _is_heard(network: nn.Module) -> bool:
    """Whether a measure listens to any part of the network."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def _bf16_difference(task: PruningTask, device: torch.device) -> float:
    """Absolute difference of the dense network's accuracy between bf16 and fp32."""
    accuracies = []
    for precision in ("fp32", "bf16"):
        validation = ValidationImages.of(task, precision, device)
        network = cast_network(task.network, precision, device)
        with torch.inference_mode():
            right = sum(
                int((network(inputs).argmax(dim=1) == labels).sum())
                for inputs, labels in zip(validation.images, validation.labels, strict=True)
            )
        accuracies.append(right / len(task.validation.labels))
    return abs(accuracies[0] - accuracies[1])


def _key(
    task: PruningTask, spec: EvaluatorSpec, precision: str, seed: int, own_costs: OwnCosts
) -> str:
    facts = {
        "version": _VERSION,
        "task": task.digest,
        "seed": seed,
        "precision": precision,
        **spec.model_dump(mode="json", exclude={"precision", "costs", "images"}),
        **own_costs.digests(),
    }
    if spec.images is not None:
        # Not a fact of evaluations on all images, which older records know without it.
        facts["images"] = spec.images
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
