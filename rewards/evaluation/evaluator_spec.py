"""How candidates are evaluated, as plain data, and the key of evaluations that it makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from ..._registry import NamedSpec
from ...models.builder import Repair
from ...models.criteria import DEFAULT_CRITERION, CriterionSpec
from ...models.inference.precision import Precision
from ..registry import DEFAULT_MEASURES

__all__ = ["EvaluatorSpec", "evaluation_key"]

# Part of every evaluation's key: raise it when the same candidate would get other numbers.
_VERSION = "7"


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
        costs: What evaluations have beside ``flops`` and ``params``: ``latency``,
            ``activation-memory``, or the user's own ``module:function`` or
            ``path/to/file.py:function``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    criterion: CriterionSpec = DEFAULT_CRITERION
    repair: Repair = "quick"
    precision: Precision = "auto"
    recalibration: int = Field(default=128, ge=1)
    images: int | None = Field(default=None, ge=2)
    measures: tuple[NamedSpec, ...] = DEFAULT_MEASURES
    costs: tuple[str, ...] = ()


def evaluation_key(
    spec: EvaluatorSpec, task: str, precision: str, seed: int, costs: Mapping[str, str]
) -> str:
    """Digest of everything that decides an evaluation beside the candidate.

    Args:
        spec: How candidates are evaluated.
        task: Digest of the task.
        precision: The precision that was decided.
        seed: Seed of the statistics and of the sample of images.
        costs: Digests of what the costs beside ``flops`` and ``params`` come from, by name.
    """
    facts = {
        "version": _VERSION,
        "task": task,
        "seed": seed,
        "precision": precision,
        **spec.model_dump(mode="json", exclude={"precision", "costs", "images"}),
        **costs,
    }
    if spec.images is not None:
        # Not a fact of evaluations on all images, which older records know without it.
        facts["images"] = spec.images
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
