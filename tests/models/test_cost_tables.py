"""Costs against the tables they come from."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from prunetune.models.costs.activation_memory import ActivationMemoryCost, ActivationTable
from prunetune.models.costs.counted import counted_costs
from prunetune.models.costs.tables import Structure

from ..envs.structures import structures


def _widths(structure: Structure, data: st.DataObject, count: int = 3) -> np.ndarray:
    rows = st.tuples(*(st.integers(1, int(size)) for size in structure.sizes))
    return np.array(data.draw(st.lists(rows, min_size=count, max_size=count)), dtype=np.int64)


@settings(max_examples=50, deadline=None)
@given(structures(), st.data())
def test_fractions_are_those_of_the_tables(structure: Structure, data: st.DataObject) -> None:
    widths = _widths(structure, data)
    costs = counted_costs(structure)
    flops = structure.flops(widths) / structure.dense_flops
    params = structure.params(widths) / structure.dense_params
    np.testing.assert_allclose(costs["flops"].fraction(widths), flops, rtol=1e-12)
    np.testing.assert_allclose(costs["params"].fraction(widths), params, rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(structures(), st.data())
def test_shares_add_up_and_depend_on_decided_groups_only(
    structure: Structure, data: st.DataObject
) -> None:
    widths, others = _widths(structure, data), _widths(structure, data)
    rows = data.draw(
        st.lists(
            st.lists(st.integers(0, 9), min_size=widths.shape[1] + 1, max_size=widths.shape[1] + 1),
            min_size=1,
            max_size=4,
        )
    )
    # Something is always alive: the input.
    table = ActivationTable(
        tuple(tuple(row[:-1]) for row in rows), tuple(row[-1] + 1 for row in rows)
    )
    memory = ActivationMemoryCost(table, structure.sizes)
    for cost in (*counted_costs(structure).values(), memory):
        shares = cost.shares(widths)
        assert (shares >= 0).all()
        np.testing.assert_allclose(shares.sum(axis=1), cost.fraction(widths), rtol=1e-9)
        for step in range(widths.shape[1]):
            mixed = others.copy()
            mixed[:, : step + 1] = widths[:, : step + 1]
            np.testing.assert_allclose(cost.shares(mixed)[:, step], shares[:, step], rtol=1e-9)
