"""Checks that users run on their own plug-ins, in any test framework or none."""

from __future__ import annotations

import copy
import math
import numbers
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from .models.costs.cost import Cost
from .models.space import SearchSpace
from .rewards import Evaluation, Reward

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .rewards import Measure

__all__ = [
    "COST_RANGES",
    "MEASURE_RANGES",
    "check_cost",
    "check_measure",
    "check_reward",
    "random_evaluations",
]

Ranges = Mapping[str, tuple[float, float]]

MEASURE_RANGES: Ranges = MappingProxyType(
    {
        "accuracy": (0.0, 1.0),
        "loss": (0.0, 10.0),
        "agreement": (0.0, 10.0),
        "spatial-entropy": (0.0, 1.0),
        "spatial-entropy-256": (0.0, 2 * math.log(256)),
        "neuron-entropy": (0.0, 1.0),
        "feature-distance": (0.0, 1.0),
    }
)
"""Every column that is recorded by default, and the values it can have."""

COST_RANGES: Ranges = MappingProxyType({"flops": (0.0, 1.0), "params": (0.0, 1.0)})
"""Every cost that is always known, as a fraction of the dense network's."""


def random_evaluations(
    measures: Ranges, costs: Ranges, count: int = 64, seed: int = 0
) -> tuple[list[Evaluation], Evaluation]:
    """Valid evaluations with values anywhere in their ranges, the ends included.

    Args:
        measures: Columns to fill, with their lowest and highest values.
        costs: Costs to fill, likewise.
        count: How many candidates, at least 2.
        seed: Of the random values.

    Returns:
        The candidates' evaluations and the dense network's, whose costs are 1.
    """
    rng = np.random.default_rng(seed)

    def between(ranges: Ranges, index: int) -> dict[str, float]:
        if index < 2:
            return {name: float(limits[index]) for name, limits in ranges.items()}
        return {name: float(rng.uniform(*limits)) for name, limits in ranges.items()}

    candidates = [
        Evaluation(
            candidate=tuple(int(width) for width in rng.integers(1, 64, size=4)),
            measures=between(measures, index),
            costs=between(costs, index),
            seconds=float(rng.uniform(0.1, 1.0)),
        )
        for index in range(count)
    ]
    dense = Evaluation(
        candidate=(64, 64, 64, 64),
        measures=between(measures, 2),
        costs=dict.fromkeys(costs, 1.0),
        seconds=1.0,
    )
    return candidates, dense


def check_reward(
    reward: Reward,
    *,
    measures: Ranges | None = None,
    costs: Ranges | None = None,
    increases_with: Sequence[str] = (),
    decreases_with: Sequence[str] = (),
) -> None:
    """Make sure that a reward can be trusted in a search.

    It must be a ``Reward`` with a name and declared, known measures and costs; return a finite
    number for every valid evaluation that holds no more than it declared; give equal values to
    equal evaluations, in any order, after pickling, and however long the evaluation took; leave
    what it is given unchanged; and tell learning agents one finite number a candidate.

    Args:
        reward: The reward, as an object.
        measures: Ranges of measures of the user's own that a search would record too.
        costs: Ranges of costs of the user's own.
        increases_with: Measures or costs with which, all else equal, the reward must never fall.
        decreases_with: Measures or costs with which, all else equal, it must never rise.

    Raises:
        AssertionError: With one sentence, at the first thing that is wrong.
    """
    measures = {**MEASURE_RANGES, **(measures or {})}
    costs = {**COST_RANGES, **(costs or {})}
    _check_declaration(reward, measures, costs)
    candidates, dense = random_evaluations(
        {name: measures[name] for name in reward.measures},
        {name: costs[name] for name in reward.costs},
    )
    originals = copy.deepcopy((candidates, dense))
    values = [_value(reward, candidate, dense) for candidate in candidates]
    _expect(
        (candidates, dense) == originals,
        f"{reward.name!r} changes the evaluations it is given; it must only read them.",
    )
    again = [_value(reward, candidate, dense) for candidate in reversed(candidates)]
    _expect(
        again[::-1] == values,
        f"{reward.name!r} gives one evaluation two values; it must depend on its arguments only, "
        "not on chance, on time or on what it saw before.",
    )
    later = [
        _value(reward, replace(candidate, seconds=candidate.seconds + 1), dense)
        for candidate in candidates
    ]
    _expect(
        later == values,
        f"{reward.name!r} depends on how long an evaluation took, which no two machines agree on.",
    )
    travelled = _travelled(reward)
    _expect(
        [_value(travelled, candidate, dense) for candidate in candidates] == values,
        f"{reward.name!r} gives other values after pickling; it must carry all it needs in itself.",
    )
    _check_signals(reward, values)
    for name in increases_with:
        _check_trend(reward, name, measures, costs, direction=1)
    for name in decreases_with:
        _check_trend(reward, name, measures, costs, direction=-1)


def _check_declaration(reward: object, measures: Ranges, costs: Ranges) -> None:
    _expect(
        isinstance(reward, Reward),
        f"{reward!r} is not an object of a subclass of prunetune.rewards.Reward.",
    )
    name = getattr(reward, "name", None)
    _expect(
        isinstance(name, str) and bool(name.strip()),
        f"{type(reward).__name__} has no name; give it one, such as name = 'my-reward'.",
    )
    for kind, ranges in (("measures", measures), ("costs", costs)):
        declared = getattr(reward, kind, None)
        _expect(
            isinstance(declared, tuple) and all(isinstance(one, str) for one in declared),
            f"{name!r} must declare {kind} as a tuple of names, not {declared!r}.",
        )
        for one in declared or ():
            _expect(
                one in ranges,
                f"{name!r} needs {one!r}, which is not among the {kind} "
                f"{', '.join(sorted(ranges))}; if it is your own, pass its range to check_reward.",
            )


def _check_signals(reward: Reward, values: Sequence[float]) -> None:
    given = np.array(values)
    feasible = np.arange(len(given)) % 2 == 0
    for best in (-math.inf, float(given.min()), float(given.max())):
        told = np.asarray(reward.signals(given.copy(), feasible, best))
        _expect(
            told.shape == given.shape and bool(np.isfinite(told).all()),
            f"{reward.name!r} must tell agents one finite number a candidate in signals, "
            f"not {told!r}.",
        )


def _check_trend(
    reward: Reward, name: str, measures: Ranges, costs: Ranges, direction: int
) -> None:
    ranges = measures if name in measures else costs
    _expect(name in ranges, f"{name!r} is neither a measure nor a cost.")
    candidates, dense = random_evaluations(
        {one: measures[one] for one in dict.fromkeys((*reward.measures, name)) if one in measures},
        {one: costs[one] for one in dict.fromkeys((*reward.costs, name)) if one in costs},
        count=16,
    )
    for candidate in candidates:
        previous = -math.inf
        for level in np.linspace(*ranges[name], 9)[::direction]:
            changed = {name: float(level)}
            if name in measures:
                other = replace(candidate, measures={**candidate.measures, **changed})
            else:
                other = replace(candidate, costs={**candidate.costs, **changed})
            value = _value(reward, other, dense)
            _expect(
                # Rounding may lower a value that should stay the same.
                value >= previous - 1e-9 * max(1.0, abs(value)),
                f"{reward.name!r} {'falls' if direction > 0 else 'rises'} as {name!r} grows, "
                "all else equal.",
            )
            previous = value


def _value(reward: Reward, evaluation: Evaluation, dense: Evaluation) -> float:
    try:
        value: object = reward(evaluation, dense)
    except KeyError as missing:
        raise AssertionError(
            f"{reward.name!r} reads {missing} without declaring it in its measures or costs."
        ) from missing
    except Exception as error:
        raise AssertionError(
            f"{reward.name!r} raises {type(error).__name__}: {error}, for the valid evaluation "
            f"{evaluation}."
        ) from error
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise AssertionError(f"{reward.name!r} returns {value!r}, which is not a number.")
    _expect(
        math.isfinite(value),
        f"{reward.name!r} returns {value}, which is not finite, for the valid evaluation "
        f"{evaluation}.",
    )
    return float(value)


def _travelled(reward: Reward) -> Reward:
    try:
        travelled: Reward = pickle.loads(pickle.dumps(reward))
    except Exception as error:
        raise AssertionError(
            f"{reward.name!r} cannot be pickled to travel to other machines: "
            f"{type(error).__name__}: {error}"
        ) from error
    return travelled


def _expect(condition: bool, sentence: str) -> None:
    # Not an assert statement: the check must also hold under python -O.
    if not condition:
        raise AssertionError(sentence)


def check_cost(cost: Cost, space: SearchSpace, count: int = 64, seed: int = 0) -> None:
    """Make sure that a tabulated cost can be trusted in a search.

    It must give one finite number of at least 0 per candidate, 1 for the dense network (or what it
    says the dense network costs is 0), and never less for a candidate that keeps more. Its shares
    must add up to the whole, none of them below 0, and none may look at later decisions. It must be
    the same after pickling.

    Args:
        cost: The cost, as an object.
        space: The decisions of the network that it is a cost of.
        count: How many random candidates are looked at.
        seed: Seeds them.

    Raises:
        AssertionError: With one sentence, at the first thing that is wrong.
    """
    _expect(isinstance(cost, Cost), f"{cost!r} is not an object of a subclass of Cost.")
    name = getattr(cost, "name", None)
    _expect(isinstance(name, str) and bool(name), f"{type(cost).__name__} has no name.")
    _expect(cost.tabulated, f"{name!r} is not tabulated, so that there is nothing to look up.")
    rng = np.random.default_rng(seed)
    rows = rng.integers(space.smallest, space.sizes + 1, size=(count, len(space)))
    rows[0], rows[1] = space.sizes, space.smallest
    whole, shares = np.asarray(cost.fraction(rows)), np.asarray(cost.shares(rows))
    _expect(
        whole.shape == (count,) and whole.dtype == np.float64,
        f"{name!r} must give float64 [N], one number a candidate, not {whole.dtype} {whole.shape}.",
    )
    _expect(
        bool(np.isfinite(whole).all()) and bool((whole >= 0).all()),
        f"{name!r} gives a cost that is not finite or below 0.",
    )
    _expect(
        cost.dense == 0 or math.isclose(whole[0], 1.0, rel_tol=1e-9),
        f"{name!r} says that the dense network costs {whole[0]} of itself; it must be 1.",
    )
    more = np.maximum(rows, np.roll(rows, 1, axis=0))
    _expect(
        bool((np.asarray(cost.fraction(more)) >= whole - 1e-12).all()),
        f"{name!r} falls where a candidate keeps more; a tabulated cost must not.",
    )
    _expect(
        shares.shape == rows.shape,
        f"The shares of {name!r} must be [N, D], not {shares.shape}.",
    )
    _expect(bool((shares >= -1e-12).all()), f"{name!r} has shares below 0.")
    _expect(
        bool(np.allclose(shares.sum(axis=1), whole, rtol=1e-9)),
        f"The shares of {name!r} do not add up to its fraction.",
    )
    for step in range(len(space)):
        later = np.roll(rows, 1, axis=0)
        later[:, : step + 1] = rows[:, : step + 1]
        _expect(
            bool(np.allclose(np.asarray(cost.shares(later))[:, step], shares[:, step], rtol=1e-9)),
            f"The share of {name!r} at decision {step} depends on decisions after it.",
        )
    travelled: Cost = pickle.loads(pickle.dumps(cost))
    _expect(
        bool((travelled.fraction(rows) == whole).all()),
        f"{name!r} gives other values after pickling; it must carry all it needs in itself.",
    )


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
    import torch

    from .rewards import Batch, Measure

    _expect(
        isinstance(measure, Measure),
        f"{measure!r} is not an object of a subclass of prunetune.rewards.Measure.",
    )
    name = getattr(measure, "name", None)
    _expect(isinstance(name, str) and bool(name), f"{type(measure).__name__} has no name.")
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
        _expect(hooks(candidate) == 0, f"{name!r} leaves hooks on a candidate after detach.")
        return found

    def fit(size: int) -> None:
        with torch.inference_mode():
            measure.fit(network, iter(images.split(size)))
        _expect(hooks(network) == 0, f"{name!r} leaves hooks on the dense network after fit.")

    def equal(found: Mapping[str, float], wanted: Mapping[str, float]) -> bool:
        return all(
            math.isclose(found[key], value, rel_tol=1e-5, abs_tol=1e-6)
            or (math.isnan(found[key]) and math.isnan(value))
            for key, value in wanted.items()
        )

    fit(len(images))
    values = run(measure, len(images))
    _expect(
        tuple(values) == tuple(measure.columns)
        and all(isinstance(value, float) for value in values.values()),
        f"{name!r} must compute one float for each of {measure.columns}, not {values!r}.",
    )
    _expect(
        equal(run(measure, max(1, len(images) // 3)), values),
        f"{name!r} depends on how the images are cut into batches.",
    )
    try:
        travelled: Measure = pickle.loads(pickle.dumps(measure))
    except Exception as error:
        raise AssertionError(
            f"{name!r} cannot be pickled between candidates: {type(error).__name__}: {error}"
        ) from error
    _expect(
        equal(run(travelled, len(images)), values), f"{name!r} gives other values after pickling."
    )
    fit(max(1, len(images) // 2))
    _expect(
        equal(run(measure, len(images)), values),
        f"{name!r} gives other values after it was fitted a second time.",
    )
