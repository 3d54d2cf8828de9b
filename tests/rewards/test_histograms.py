"""Joint tables and entropies against slow, obvious counting and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prunetune.rewards.measures import histograms
from scipy import stats


def slow_tables(levels: NDArray[np.int64], bins: int, rows: int, columns: int) -> NDArray[np.int64]:
    images, channels, height, width = levels.shape
    tables = np.zeros((channels, 2, bins, bins), dtype=np.int64)
    for n in range(images):
        for c in range(channels):
            for i in range(0, height, rows):
                for j in range(0, width, columns):
                    if i + 1 < height:
                        tables[c, 0, levels[n, c, i, j], levels[n, c, i + 1, j]] += 1
                    if j + 1 < width:
                        tables[c, 1, levels[n, c, i, j], levels[n, c, i, j + 1]] += 1
    return tables


def relative(maps: torch.Tensor, bins: int) -> float:
    tables = histograms.joint_tables(maps, float(maps.min()), float(maps.max()), bins)
    return float(histograms.relative_entropy(tables).mean())


@settings(deadline=None, max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(2, 19), st.integers(2, 19)),
    bins=st.integers(2, 40),
    grid=st.sampled_from([None, 2, 4, 8]),
    channels_last=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_tables_are_those_of_four_nested_loops(
    shape: tuple[int, int, int, int], bins: int, grid: int | None, channels_last: bool, seed: int
) -> None:
    levels = np.random.default_rng(seed).integers(0, bins, size=shape)
    # The middle of each level, so that quantising gives the level back.
    maps = (torch.from_numpy(levels).float() + 0.5) / bins
    if channels_last:
        maps = maps.contiguous(memory_format=torch.channels_last)
    rows = max(1, shape[2] // grid) if grid else 1
    columns = max(1, shape[3] // grid) if grid else 1

    tables = histograms.joint_tables(maps, 0.0, 1.0, bins, grid)

    np.testing.assert_array_equal(tables.numpy(), slow_tables(levels, bins, rows, columns))


@settings(deadline=None, max_examples=30)
@given(cut=st.integers(1, 9), bins=st.sampled_from([2, 16, 256]), grid=st.sampled_from([None, 4]))
def test_tables_of_parts_add_up_to_the_table_of_the_whole(
    cut: int, bins: int, grid: int | None
) -> None:
    maps = torch.randn(10, 3, 12, 9, generator=torch.Generator().manual_seed(cut))

    parts = [histograms.joint_tables(part, -2.0, 2.0, bins, grid) for part in maps.split(cut)]

    whole = histograms.joint_tables(maps, -2.0, 2.0, bins, grid)
    assert torch.equal(sum(parts[1:], parts[0]), whole)


@pytest.mark.parametrize("bins", [8, 256])
def test_entropies_agree_with_scipy(bins: int) -> None:
    maps = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).relu()
    tables = histograms.joint_tables(maps, 0.0, 3.0, bins)
    counts = tables.numpy()

    pairs = stats.entropy(counts.reshape(3, 2, -1), axis=-1)
    single = (stats.entropy(counts.sum(-1), axis=-1) + stats.entropy(counts.sum(-2), axis=-1)) / 2

    np.testing.assert_allclose(histograms.bivariate_entropy(tables), pairs, rtol=1e-12)
    np.testing.assert_allclose(histograms.level_entropy(tables), single, rtol=1e-12)
    np.testing.assert_allclose(
        histograms.relative_entropy(tables), (pairs - single) / single, rtol=1e-9
    )


@settings(deadline=None, max_examples=50)
@given(
    counts=st.lists(st.lists(st.integers(0, 1000), min_size=4, max_size=4), min_size=4, max_size=4)
)
def test_pair_entropy_lies_between_once_and_twice_the_level_entropy(
    counts: list[list[int]],
) -> None:
    tables = torch.tensor(counts, dtype=torch.int32)
    single, pairs = histograms.level_entropy(tables), histograms.bivariate_entropy(tables)

    assert single - 1e-9 <= pairs <= 2 * single + 1e-9
    assert 0 <= histograms.relative_entropy(tables) <= 1


def test_checkerboard_is_as_varied_as_one_site_and_fully_determined() -> None:
    board = (torch.arange(8)[:, None] + torch.arange(8)[None, :]).remainder(2).float()[None, None]
    tables = histograms.joint_tables(board, 0.0, 1.0, 2)

    # Half of the pairs are (0, 1), half (1, 0): one bit, as for a single site.
    assert histograms.bivariate_entropy(tables)[0].tolist() == pytest.approx([math.log(2)] * 2)
    assert histograms.relative_entropy(tables)[0].tolist() == pytest.approx([0, 0], abs=1e-12)


def test_constant_map_has_no_entropy() -> None:
    tables = histograms.joint_tables(torch.full((2, 1, 6, 6), 3.0), 0.0, 5.0, 16)

    assert histograms.bivariate_entropy(tables).tolist() == [[0.0, 0.0]]
    assert histograms.relative_entropy(tables).tolist() == [[0.0, 0.0]]


def test_horizontal_gradient_is_determined_in_both_directions() -> None:
    gradient = torch.arange(8).float().expand(1, 1, 8, 8)
    tables = histograms.joint_tables(gradient, 0.0, 8.0, 8)

    # Down a column the level stays: 8 equal pairs. Along a row it rises by one: 7 equal pairs.
    assert histograms.bivariate_entropy(tables)[0].tolist() == pytest.approx(
        [math.log(8), math.log(7)]
    )
    assert histograms.relative_entropy(tables)[0].tolist() == pytest.approx([0, 0], abs=1e-12)


def test_stripes_of_random_rows_are_determined_along_rows_only() -> None:
    rows = torch.rand(200, 1, 8, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 8, 8)

    down, along = histograms.relative_entropy(histograms.joint_tables(rows, 0.0, 1.0, 4))[0]

    assert down > 0.98
    assert along == pytest.approx(0.0, abs=1e-12)


def test_white_noise_on_one_small_map_shows_why_many_bins_need_many_pairs() -> None:
    noise = torch.randn(100, 1, 16, 16, generator=torch.Generator().manual_seed(0))

    few, some, many = (
        np.mean([relative(one[None], bins) for one in noise]) for bins in (8, 16, 256)
    )

    # Independent neighbours have relative entropy 1; 240 pairs cannot show it in 65,536 cells.
    assert few > 0.9
    assert few > some > 0.8
    assert many < 0.25


def test_white_noise_over_many_maps_is_nearly_independent() -> None:
    noise = torch.rand(64, 1, 32, 32, generator=torch.Generator().manual_seed(0))

    assert relative(noise, 16) > 0.99


def test_quantised_levels_are_equal_parts_of_the_range_with_the_rest_at_its_ends() -> None:
    values = torch.tensor([-9.0, 0.0, 0.24, 0.25, 0.5, 0.99, 1.0, 9.0], dtype=torch.float64)

    assert histograms.quantise(values, 0.0, 1.0, 4).tolist() == [0, 0, 0, 1, 2, 3, 3, 3]


def test_quantise_leaves_its_argument_alone() -> None:
    values = torch.tensor([0.2, 0.8])
    histograms.quantise(values, 0.0, 1.0, 4)

    assert values.tolist() == pytest.approx([0.2, 0.8])


def test_empty_distribution_has_no_entropy() -> None:
    assert histograms.entropy_of_counts(torch.zeros(3, 5, dtype=torch.int64)).tolist() == [0, 0, 0]


def test_not_a_number_gets_the_lowest_level() -> None:
    levels = histograms.quantise(torch.tensor([torch.nan, 1.0] * 40), 0.0, 1.0, 4)

    assert levels.tolist() == [0, 3] * 40
