"""Actions, the uniform start and the shield."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from prunetune.envs.actions import ActionMap, TabulatedBudgets, uniform_fraction
from prunetune.envs.budgets import Budget
from prunetune.models.costs.counted import counted_costs
from prunetune.models.costs.tables import Structure

from .structures import chain, space, structures


def _reachable_budgets(structure: Structure, data: st.DataObject) -> list[Budget]:
    narrowest = space(structure).smallest[None]
    budgets = []
    for name, cost in counted_costs(structure).items():
        low = float(cost.fraction(narrowest)[0])
        assume(low < 1)
        budgets.append(Budget(name, data.draw(st.floats(low, 1.0))))
    return budgets


def test_the_ends_and_the_middle_of_the_action_range() -> None:
    mapping = ActionMap(space(chain([16, 10]), smallest=0.2), start=0.5)
    ends = np.array([-1.0, 0.0, 1.0])
    assert mapping.values(0, ends).tolist() == [4, 8, 16]
    assert mapping.values(1, ends).tolist() == [2, 5, 10]
    assert mapping.values(0, np.array([-7.0, 7.0])).tolist() == [4, 16]


@settings(max_examples=50, deadline=None)
@given(structures(), st.floats(0, 1), st.data())
def test_actions_invert_widths(structure: Structure, start: float, data: st.DataObject) -> None:
    mapping = ActionMap(space(structure), start)
    rows = st.tuples(*(st.integers(1, int(size)) for size in structure.sizes))
    widths = np.array(data.draw(rows), dtype=np.int64)[None]
    actions = mapping.actions(widths)
    assert (np.abs(actions) <= 1).all()
    for step in range(widths.shape[1]):
        assert mapping.values(step, actions[:, step]).tolist() == widths[:, step].tolist()


@settings(max_examples=50, deadline=None)
@given(structures(), st.data())
def test_the_uniform_start_is_feasible_and_no_uniform_candidate_above_it_is(
    structure: Structure, data: st.DataObject
) -> None:
    budgets = _reachable_budgets(structure, data)
    costs = [counted_costs(structure)[budget.cost] for budget in budgets]
    limits = TabulatedBudgets(budgets, costs)
    start = uniform_fraction(space(structure), budgets, costs)
    uniform = ActionMap(space(structure), start).uniform
    assert limits.keep(uniform[None])[0]
    candidates = {
        tuple(np.clip(np.rint(f * structure.sizes), 1, None).astype(int).tolist())
        for f in (np.arange(200) + 0.37) / 200
    }
    wider = [c for c in candidates if (np.array(c) >= uniform).all() and c != tuple(uniform)]
    if wider:
        assert not limits.keep(np.array(wider)).any()


@settings(max_examples=80, deadline=None)
@given(structures(), st.data())
def test_the_shield_keeps_the_budgets_and_gives_way_no_more_than_needed(
    structure: Structure, data: st.DataObject
) -> None:
    budgets = _reachable_budgets(structure, data)
    costs = [counted_costs(structure)[budget.cost] for budget in budgets]
    limits, minimum = TabulatedBudgets(budgets, costs), space(structure).smallest
    rows = st.tuples(*(st.integers(1, int(size)) for size in structure.sizes))
    proposals = np.array(data.draw(st.lists(rows, min_size=2, max_size=2)), dtype=np.int64)
    widths = proposals.copy()
    for step in range(widths.shape[1]):
        widths[:, step] = limits.clip(widths, step, minimum)
        trial = widths.copy()
        trial[:, step + 1 :] = minimum[step + 1 :]
        assert limits.keep(trial).all()
        trial[:, step] = np.minimum(widths[:, step] + 1, structure.sizes[step])
        narrowed = widths[:, step] < proposals[:, step]
        assert not limits.keep(trial)[narrowed].any()
    assert limits.keep(widths).all()
