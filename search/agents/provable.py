"""Widths that share one relative error: the allocation of provable filter pruning."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.judge import Judge
from ...envs.problem import Outcome, Problem
from ...errors import SpecError
from ...models.criteria.importance_sampling import SampledLayer
from .agent import BlackBoxAgent

__all__ = ["ProvableAgent", "guarantee", "relative_errors", "sampled_layers"]

# Of relative errors; beyond these every layer keeps one unit, or all.
_SMALLEST, _LARGEST = 1e-12, 1e12
_BISECTIONS = 80
# Errors that are tried, and how many times larger the last one is, where costs are measured.
_LEAST, _WORSE = 1.0, 1e6


class ProvableAgent(BlackBoxAgent):
    """Finds the smallest relative error, the same in all layers, with which the budgets are met.

    Baykal, Liebenwein et al. 2020, arXiv 1911.07412, with budgets of any tabulated cost. It reads
    what the criterion ``pfp`` says of each decision. Other decisions stay as in the dense network.
    It asks for one candidate for each set of limits; where a budget can only be measured, for some
    that get smaller and smaller.

    Args:
        judge: Judges candidates.
        seed: Not used; the criterion draws, where its variant draws at random.
        evaluations: Candidates that it may ask for in all.
        steps: Candidates, where a budget can only be measured; at least 1.

    Raises:
        SpecError: If the criterion says nothing of sensitivities.
    """

    name = "pfp"
    follows_ranges = True

    def __init__(self, judge: Judge, seed: int, evaluations: int, steps: int = 16) -> None:
        if steps < 1:
            raise ValueError("steps must be at least 1")
        super().__init__(judge, seed, evaluations, candidates=steps)
        self._layers = sampled_layers(self.problem)
        if not any(self._layers):
            raise SpecError(
                "The agent 'pfp' reads the sensitivities of the criterion 'pfp', which this search "
                "does not use; add `criterion: pfp` to the spec."
            )
        self._waiting = self._candidates(steps)

    def ask(self, count: int) -> NDArray[np.int64]:
        """See `BlackBoxAgent.ask`."""
        candidates, self._waiting = self._waiting[:count], self._waiting[count:]
        return candidates

    def tell(self, candidates: NDArray[np.int64], outcome: Outcome) -> None:
        """Nothing is learned."""

    def get_state(self) -> Any:
        """See `BlackBoxAgent.get_state`."""
        return self._waiting

    def set_state(self, state: Any) -> None:
        """See `BlackBoxAgent.set_state`."""
        self._waiting = state

    def _candidates(self, steps: int) -> NDArray[np.int64]:
        """What it will ask for, without repeats, int64 [N, D]."""
        problem = self.problem
        if len(problem.tabulated):
            found = [self._within(limits) for limits in problem.limits]
        else:
            found = []
        if len(problem.tabulated) < len(problem.budgets):
            first = np.log(self._error_of(found[-1]) if found else _LEAST)
            # From an error that removes nearly nothing, or that other budgets ask for, up.
            errors = np.exp(np.linspace(first, first + np.log(_WORSE), steps))
            found += [self._at(error) for error in errors]
        return np.array(list(dict.fromkeys(map(tuple, found))), dtype=np.int64)

    def _within(self, limits: NDArray[np.float64]) -> tuple[int, ...]:
        """The candidate of the smallest error that keeps the tabulated budgets."""
        low, high = np.log(_SMALLEST), np.log(_LARGEST)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            candidate = np.array([self._at(float(np.exp(middle)))])
            kept = bool(self.problem.tabulated.keep(candidate, limits[None])[0])
            low, high = (low, middle) if kept else (middle, high)
        return self._at(float(np.exp(high)))

    def _error_of(self, candidate: tuple[int, ...]) -> float:
        errors = [
            layer.error(value)
            for layer, value in zip(self._layers, candidate, strict=True)
            if layer is not None
        ]
        return max(*errors, _LEAST)

    def _at(self, error: float) -> tuple[int, ...]:
        """The candidate of a relative error."""
        decisions = self.problem.space.decisions
        return tuple(
            decision.size if layer is None else max(decision.smallest, layer.kept(error))
            for decision, layer in zip(decisions, self._layers, strict=True)
        )


def sampled_layers(problem: Problem) -> list[SampledLayer | None]:
    """What the criterion ``pfp`` says of each decision; None where it says nothing."""
    return [_sampled(problem.figures.get(name, {})) for name in problem.space.names]


def relative_errors(problem: Problem, candidate: tuple[int, ...]) -> dict[str, float]:
    """The relative error that each decision of a candidate stands for.

    Args:
        problem: Of a search with the criterion ``pfp``.
        candidate: One value per decision.

    Returns:
        Per decision that the criterion says something of, `SampledLayer.error` of its value.
    """
    return {
        name: layer.error(value)
        for name, layer, value in zip(
            problem.space.names, sampled_layers(problem), candidate, strict=True
        )
        if layer is not None
    }


def guarantee(problem: Problem, candidate: tuple[int, ...]) -> tuple[str, ...]:
    """What provable filter pruning promises of a candidate, in a sentence for people.

    Args:
        problem: Of any search.
        candidate: One value per decision.

    Returns:
        One sentence, or none where the criterion is another one.
    """
    errors = relative_errors(problem, candidate)
    if not errors:
        return ()
    failure = max(layer.failure for layer in sampled_layers(problem) if layer is not None)
    worst = max(errors, key=lambda name: errors[name])
    below = sum(error < 1.0 for error in errors.values())
    return (
        f"Provable filter pruning: with probability 1 - {failure:g} or more, a layer that reads "
        f"a sample of so many channels is off by at most {errors[worst]:.3g} of its value (the "
        f"largest of {len(errors)} groups, {worst}); for {below} of them that is less than 1, "
        "which is where the bound says something.",
    )


def _sampled(figures: Any) -> SampledLayer | None:
    if "sensitivity" not in figures or "events" not in figures:
        return None
    return SampledLayer(
        np.asarray(figures["sensitivity"]),
        float(figures["events"][0]),
        float(figures["failure"][0]),
    )
