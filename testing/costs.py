"""The conformance check of costs."""

from __future__ import annotations

import math
import pickle

import numpy as np

from ..models.costs.cost import Cost
from ..models.space import SearchSpace
from .expecting import expect

__all__ = ["check_cost"]


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
    expect(isinstance(cost, Cost), f"{cost!r} is not an object of a subclass of Cost.")
    name = getattr(cost, "name", None)
    expect(isinstance(name, str) and bool(name), f"{type(cost).__name__} has no name.")
    expect(cost.tabulated, f"{name!r} is not tabulated, so that there is nothing to look up.")
    rng = np.random.default_rng(seed)
    rows = rng.integers(space.smallest, space.sizes + 1, size=(count, len(space)))
    rows[0], rows[1] = space.sizes, space.smallest
    whole, shares = np.asarray(cost.fraction(rows)), np.asarray(cost.shares(rows))
    expect(
        whole.shape == (count,) and whole.dtype == np.float64,
        f"{name!r} must give float64 [N], one number a candidate, not {whole.dtype} {whole.shape}.",
    )
    expect(
        bool(np.isfinite(whole).all()) and bool((whole >= 0).all()),
        f"{name!r} gives a cost that is not finite or below 0.",
    )
    expect(
        cost.dense == 0 or math.isclose(whole[0], 1.0, rel_tol=1e-9),
        f"{name!r} says that the dense network costs {whole[0]} of itself; it must be 1.",
    )
    more = np.maximum(rows, np.roll(rows, 1, axis=0))
    expect(
        bool((np.asarray(cost.fraction(more)) >= whole - 1e-12).all()),
        f"{name!r} falls where a candidate keeps more; a tabulated cost must not.",
    )
    expect(
        shares.shape == rows.shape,
        f"The shares of {name!r} must be [N, D], not {shares.shape}.",
    )
    expect(bool((shares >= -1e-12).all()), f"{name!r} has shares below 0.")
    expect(
        bool(np.allclose(shares.sum(axis=1), whole, rtol=1e-9)),
        f"The shares of {name!r} do not add up to its fraction.",
    )
    for step in range(len(space)):
        later = np.roll(rows, 1, axis=0)
        later[:, : step + 1] = rows[:, : step + 1]
        expect(
            bool(np.allclose(np.asarray(cost.shares(later))[:, step], shares[:, step], rtol=1e-9)),
            f"The share of {name!r} at decision {step} depends on decisions after it.",
        )
    travelled: Cost = pickle.loads(pickle.dumps(cost))
    expect(
        bool((travelled.fraction(rows) == whole).all()),
        f"{name!r} gives other values after pickling; it must carry all it needs in itself.",
    )
