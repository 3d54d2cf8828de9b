"""The conformance check of measures."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..rewards import Batch, Measure
from .expecting import expect

__all__ = ["check_measure"]


def check_measure(measure: Measure, network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Make sure that a measure can be trusted in an evaluation.

    It must give one number for each of its columns; give the same numbers again, however the images
    are cut into batches, after another candidate, after it was fitted twice, and after pickling
    between candidates; and leave no hook on a network.

    Args:
        measure: The measure, as an object that was not fitted.
        network: Any network, in evaluation mode, that stands for the dense one.
        images: Images ready for it, float32 [N, C, H, W], at least 4.
        labels: Their classes, int64 [N].

    Raises:
        AssertionError: With one sentence, at the first thing that is wrong.
    """
    expect(
        isinstance(measure, Measure),
        f"{measure!r} is not an object of a subclass of prunetune.rewards.Measure.",
    )
    name = getattr(measure, "name", None)
    expect(isinstance(name, str) and bool(name), f"{type(measure).__name__} has no name.")
    candidate = copy.deepcopy(network)
    with torch.no_grad():
        for weights in candidate.parameters():
            weights.mul_(0.9)

    def hooks(module: nn.Module) -> int:
        return sum(
            len(each._forward_hooks) + len(each._forward_pre_hooks) for each in module.modules()
        )

    def run(one: Measure, size: int) -> dict[str, float]:
        with torch.inference_mode():
            one.attach(candidate)
            for part, classes in zip(images.split(size), labels.split(size), strict=True):
                one.update(Batch(candidate(part).float(), classes, network(part).float()))
            found = one.compute()
        one.detach()
        expect(hooks(candidate) == 0, f"{name!r} leaves hooks on a candidate after detach.")
        return found

    def fit(size: int) -> None:
        with torch.inference_mode():
            measure.fit(network, iter(images.split(size)))
        expect(hooks(network) == 0, f"{name!r} leaves hooks on the dense network after fit.")

    def equal(found: Mapping[str, float], wanted: Mapping[str, float]) -> bool:
        return all(
            math.isclose(found[key], value, rel_tol=1e-5, abs_tol=1e-6)
            or (math.isnan(found[key]) and math.isnan(value))
            for key, value in wanted.items()
        )

    fit(len(images))
    values = run(measure, len(images))
    expect(
        tuple(values) == tuple(measure.columns)
        and all(isinstance(value, float) for value in values.values()),
        f"{name!r} must compute one float for each of {measure.columns}, not {values!r}.",
    )
    expect(
        equal(run(measure, max(1, len(images) // 3)), values),
        f"{name!r} depends on how the images are cut into batches.",
    )
    try:
        travelled: Measure = pickle.loads(pickle.dumps(measure))
    except Exception as error:
        raise AssertionError(
            f"{name!r} cannot be pickled between candidates: {type(error).__name__}: {error}"
        ) from error
    expect(
        equal(run(travelled, len(images)), values), f"{name!r} gives other values after pickling."
    )
    fit(max(1, len(images) // 2))
    expect(
        equal(run(measure, len(images)), values),
        f"{name!r} gives other values after it was fitted a second time.",
    )
