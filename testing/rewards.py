"""The conformance check of rewards, and evaluations to try them on."""

from __future__ import annotations

import copy
import math
import numbers
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from ..rewards import Evaluation, Reward
from .expecting import expect

__all__ = [
    "COST_RANGES",
    "MEASURE_RANGES",
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
    expect(
        (candidates, dense) == originals,
        f"{reward.name!r} changes the evaluations it is given; it must only read them.",
    )
    again = [_value(reward, candidate, dense) for candidate in reversed(candidates)]
    expect(
        again[::-1] == values,
        f"{reward.name!r} gives one evaluation two values; it must depend on its arguments only, "
        "not on chance, on time or on what it saw before.",
    )
    later = [
        _value(reward, replace(candidate, seconds=candidate.seconds + 1), dense)
        for candidate in candidates
    ]
    expect(
        later == values,
        f"{reward.name!r} depends on how long an evaluation took, which no two machines agree on.",
    )
    travelled = _travelled(reward)
    expect(
        [_value(travelled, candidate, dense) for candidate in candidates] == values,
        f"{reward.name!r} gives other values after pickling; it must carry all it needs in itself.",
    )
    _check_signals(reward, values)
    for name in increases_with:
        _check_trend(reward, name, measures, costs, direction=1)
    for name in decreases_with:
        _check_trend(reward, name, measures, costs, direction=-1)


def _check_declaration(reward: object, measures: Ranges, costs: Ranges) -> None:
    expect(
        isinstance(reward, Reward),
        f"{reward!r} is not an object of a subclass of prunetune.rewards.Reward.",
    )
    name = getattr(reward, "name", None)
    expect(
        isinstance(name, str) and bool(name.strip()),
        f"{type(reward).__name__} has no name; give it one, such as name = 'my-reward'.",
    )
    for kind, ranges in (("measures", measures), ("costs", costs)):
        declared = getattr(reward, kind, None)
        expect(
            isinstance(declared, tuple) and all(isinstance(one, str) for one in declared),
            f"{name!r} must declare {kind} as a tuple of names, not {declared!r}.",
        )
        for one in declared or ():
            expect(
                one in ranges,
                f"{name!r} needs {one!r}, which is not among the {kind} "
                f"{', '.join(sorted(ranges))}; if it is your own, pass its range to check_reward.",
            )


def _check_signals(reward: Reward, values: Sequence[float]) -> None:
    given = np.array(values)
    feasible = np.arange(len(given)) % 2 == 0
    for best in (-math.inf, float(given.min()), float(given.max())):
        told = np.asarray(reward.signals(given.copy(), feasible, best))
        expect(
            told.shape == given.shape and bool(np.isfinite(told).all()),
            f"{reward.name!r} must tell agents one finite number a candidate in signals, "
            f"not {told!r}.",
        )


def _check_trend(
    reward: Reward, name: str, measures: Ranges, costs: Ranges, direction: int
) -> None:
    ranges = measures if name in measures else costs
    expect(name in ranges, f"{name!r} is neither a measure nor a cost.")
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
            expect(
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
    expect(
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
