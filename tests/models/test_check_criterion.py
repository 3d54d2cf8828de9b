"""Criteria of ours pass their conformance check, and faulty ones are told what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from prunetune.models import CRITERIA, ChannelGroup, Criterion, make_criterion
from prunetune.models.criteria import Evidence
from prunetune.testing import check_criterion

from .networks import images_for, traced_own


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_criteria_of_ours_pass(name: str) -> None:
    network, groups = traced_own("SmallNet")
    check_criterion(make_criterion(name), network, images_for(groups, 8))


class _Backwards(Criterion):
    name = "backwards"

    def rank(self, group: ChannelGroup, evidence: Evidence) -> NDArray[np.int64]:
        return np.arange(group.size)[::-1].astype(np.int64)


class _Repeats(_Backwards):
    def rank(self, group: ChannelGroup, evidence: Evidence) -> NDArray[np.int64]:
        return np.zeros(group.size, dtype=np.int64)


class _Floats(_Backwards):
    def rank(self, group: ChannelGroup, evidence: Evidence) -> NDArray[np.int64]:
        return np.arange(group.size) / 1.0  # type: ignore[return-value]


class _Fickle(_Backwards):
    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def rank(self, group: ChannelGroup, evidence: Evidence) -> NDArray[np.int64]:
        return self._rng.permutation(group.size)


class _Nameless(_Backwards):
    name = ""


class _Overwrites(_Backwards):
    def rank(self, group: ChannelGroup, evidence: Evidence) -> NDArray[np.int64]:
        evidence.network.get_submodule("linear").bias.data.add_(1)
        return super().rank(group, evidence)


def test_one_of_ones_own_passes() -> None:
    network, groups = traced_own("SmallNet")
    check_criterion(_Backwards(), network, images_for(groups, 8))


@pytest.mark.parametrize(
    ("faulty", "sentence"),
    [
        (_Repeats, "must rank each of the"),
        (_Floats, "as int64"),
        (_Fickle, "in another order when it is asked again"),
        (_Nameless, "has no name"),
    ],
)
def test_what_is_wrong_is_said(faulty: type[Criterion], sentence: str) -> None:
    network, groups = traced_own("SmallNet")
    with pytest.raises(AssertionError, match=sentence):
        check_criterion(faulty(), network, images_for(groups, 8))


def test_a_criterion_must_not_change_the_network() -> None:
    traced_own.cache_clear()
    network, groups = traced_own("SmallNet")
    with pytest.raises(AssertionError, match="changes the network"):
        check_criterion(_Overwrites(), network, images_for(groups, 8))
    traced_own.cache_clear()


def test_what_is_no_criterion_is_refused() -> None:
    network, groups = traced_own("SmallNet")
    with pytest.raises(AssertionError, match="is not an object of a subclass"):
        check_criterion(object(), network, images_for(groups, 8))  # type: ignore[arg-type]
