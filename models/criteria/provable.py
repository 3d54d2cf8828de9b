"""Provable filter pruning: sensitivities that bound the error of what readers compute."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..calls import record_layer_calls
from ..groups import ChannelGroup
from ..layers import adapter_of, multiplier_of, multiplies
from .criterion import Criterion, Evidence, Ranking
from .importance_sampling import FAILURE, calibration_size, draws_for
from .magnitude import L1
from .sensitivity import input_sensitivities

__all__ = ["ProvableFilterPruning", "Variant"]

Variant = Literal["deterministic", "random", "partly-random"]
"""How units are chosen: see :class:`ProvableFilterPruning`."""


class ProvableFilterPruning(Criterion):
    """Ranks units by how much of what their readers compute comes from them, at most.

    Baykal, Liebenwein et al. 2020, arXiv 1911.07412. A unit that several layers read has its
    largest sensitivity (our choice: the paper has one reader a layer). The agent ``pfp`` finds the
    widths that share one relative error; any other agent may choose them too.

    ``deterministic`` keeps the most sensitive units. ``random`` draws units with replacement by
    their sensitivity, in an order that the seed decides, and readers multiply a unit that was drawn
    n times in m draws with probability p by n / (m p), which keeps what they compute unbiased.
    ``partly-random`` keeps every unit with p >= 1 / m as it is and draws the others.

    Args:
        variant: How units are chosen.
        failure: Delta: the probability with which the bound may not hold, in (0, 1).
        places: Places of each map that are looked at per image; all where there are fewer.

    Raises:
        ValueError: If ``failure`` or ``places`` is out of range.
    """

    name = "pfp"

    def __init__(
        self, variant: Variant = "deterministic", failure: float = FAILURE, places: int = 1024
    ) -> None:
        if not 0.0 < failure < 1.0:
            raise ValueError("failure must be between 0 and 1")
        if places < 1:
            raise ValueError("places must be at least 1")
        self._variant = variant
        self._failure = failure
        self._places = places

    def rank(self, group: ChannelGroup, evidence: Evidence) -> NDArray[np.int64]:
        """Units by falling sensitivity, or in the order in which they are drawn."""
        return self.study(group, evidence).order

    def study(self, group: ChannelGroup, evidence: Evidence) -> Ranking:
        """With ``sensitivity`` [units] in the order of units, ``events`` and ``failure`` [1]."""
        readers = [
            m for m in group.readers() if multiplies(evidence.network.get_submodule(m.layer))
        ]
        if not readers:
            return Ranking(L1().rank(group, evidence))
        images = evidence.images[: self._images(evidence)]
        of_readers = [
            input_sensitivities(
                evidence.network, reader, images, places=self._places, seed=evidence.seed
            )
            for reader in readers
        ]
        sensitivity = np.max(of_readers, axis=0)
        events = _events(evidence, {reader.layer for reader in readers})
        order = np.argsort(-sensitivity, kind="stable").astype(np.int64)
        rescaling = None
        if self._variant != "deterministic":
            rng = np.random.default_rng([evidence.seed, *group.name.encode()])
            order, rescaling = _drawn(
                sensitivity, rng, keep_certain=self._variant == "partly-random"
            )
        return Ranking(
            order,
            {
                "sensitivity": sensitivity[order],
                "events": np.array([events]),
                "failure": np.array([self._failure]),
            },
            rescaling,
        )

    def _images(self, evidence: Evidence) -> int:
        written = [
            adapter.channels(module)[0]
            for module in evidence.network.modules()
            if (adapter := adapter_of(module)) is not None and adapter.multiplies
        ]
        return calibration_size(sum(written), max(written), len(evidence.images), self._failure)


def _events(evidence: Evidence, readers: Collection[str]) -> float:
    """(P + 1) times kernel positions, with P the places of the output map; the most of readers."""
    events = []
    for call in record_layer_calls(evidence.network, evidence.images[:1]):
        if call.name in readers:
            layer = evidence.network.get_submodule(call.name)
            kernel = multiplier_of(layer).weight(layer)[0, 0].numel()
            places = max(height * width for height, width in call.output_sizes)
            events.append((places + 1) * kernel)
    return float(max(events))


def _drawn(
    sensitivity: NDArray[np.float64], rng: np.random.Generator, *, keep_certain: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """An order in which units are drawn with replacement, and the factors of its beginnings.

    The first w units of the order are those that a sample with w different units has. Where a unit
    appears for the first time does not depend on how often it has been drawn before, so an order
    for all widths comes from exponential waiting times (Efraimidis & Spirakis 2006).

    Returns:
        int64 [units], and float64 [units, units] as in :class:`Ranking`.
    """
    units = len(sensitivity)
    # A unit that never counts is drawn last, but it can be drawn.
    possible = np.maximum(sensitivity, 1e-9 * max(float(sensitivity.max()), 1e-300))
    probabilities = possible / possible.sum()
    order = np.argsort(rng.exponential(size=units) / probabilities, kind="stable").astype(np.int64)
    if keep_certain:
        order = _certain_first(order, probabilities)
    factors = np.ones((units, units))
    for kept in range(1, units):
        chosen = order[:kept]
        draws = draws_for(probabilities, kept)
        if not np.isfinite(draws):
            continue
        counts = _counts(probabilities[chosen], draws, rng)
        weights = counts / (draws * probabilities[chosen])
        certain = probabilities[chosen] * draws >= 1.0
        factors[kept - 1, :kept] = np.where(certain, 1.0, weights) if keep_certain else weights
    return order, factors


def _certain_first(
    order: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Units by falling probability as long as they are certain of some sample, then as drawn."""
    falling = np.argsort(-probabilities, kind="stable")
    certain = [
        unit
        for place, unit in enumerate(falling.tolist())
        if probabilities[unit] * min(draws_for(probabilities, place + 1), 1e300) >= 1.0
    ]
    rest = [unit for unit in order.tolist() if unit not in set(certain)]
    return np.array([*certain, *rest], dtype=np.int64)


def _counts(
    probabilities: NDArray[np.float64], draws: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """How often units that were drawn at least once were drawn, float64 [kept].

    Poisson with mean m p, given at least one: what a multinomial sample has in the limit of many
    draws. The first draw of a unit comes after an exponential waiting time that is cut at m.
    """
    means = np.minimum(probabilities * draws, 1e9)
    first = -np.log1p(-rng.uniform(size=len(means)) * -np.expm1(-means))
    return 1.0 + rng.poisson(np.maximum(means - first, 0.0))
