"""Reward fidelity: does what a search maximises rank candidates as fine-tuning does?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from ...errors import EvaluationError, PruneTuneError
from ...rewards import Evaluation, Reward, RewardSpec, make_reward, score
from ...rewards.single import SINGLE_REWARDS
from .results import Results, budget_text, delivered_accuracy

__all__ = ["Fidelity", "rank_correlation", "reward_fidelities"]

# Over fewer, a correlation says next to nothing: over two it is always 1 or -1 (our choice).
_FEWEST = 8
_TWO_SIDED = 0.975


@dataclass(frozen=True)
class Fidelity:
    """How well one reward ranks the fine-tuned candidates of one set of budgets.

    Attributes:
        reward: Its name.
        compared: Whether a search of the run maximised it.
        budget: The budgets, in words.
        candidates: Different candidates that were fine-tuned and that the reward can judge.
        correlation: Spearman's rank correlation between the reward inside the search and test
            accuracy after fine-tuning, in [-1, 1]; not-a-number where it is not defined.
        low: Lower end of its 95 % interval, or ``None`` where it is not defined.
        high: Its upper end, likewise.
    """

    reward: str
    compared: bool
    budget: str
    candidates: int
    correlation: float
    low: float | None
    high: float | None


def reward_fidelities(results: Results) -> tuple[Fidelity, ...]:
    """Every reward of the run, then those of ours on one recorded measure.

    An evaluation does not depend on the reward, so the record tells what each reward says about
    each candidate, whoever asked for it. Budgets are kept apart: between them accuracy differs
    because of the cost. The candidates are those that searches chose as their best, which is not a
    random sample: they are better, and more alike, than candidates in general.

    Returns:
        In the order of budgets, then rewards. What is known of fewer than eight candidates is left
        out, and so is a reward of the user's own that can no longer be loaded.
    """
    dense = Evaluation(
        candidate=tuple(results.dense.groups.values()),
        measures=results.dense.measures,
        costs={"flops": 1.0, "params": 1.0},
    )
    rewards = list(_rewards(results))
    found = (
        _fidelity(reward, name, compared, budget, accuracies, results.evaluations, dense)
        for budget, accuracies in _fine_tuned(results).items()
        for name, compared, reward in rewards
    )
    return tuple(each for each in found if each.candidates >= _FEWEST)


def rank_correlation(
    one: Sequence[float], other: Sequence[float]
) -> tuple[float, float | None, float | None]:
    """Spearman's rank correlation with its 95 % interval.

    The interval is that of Bonett & Wright (2000): normal in Fisher's z with the standard error
    ``sqrt((1 + r^2 / 2) / (n - 3))``. A perfect correlation has no finite z; it is taken as half a
    swap of two neighbours away from perfect (our choice).

    Returns:
        Correlation, lower and upper end; not-a-number and ``None`` where they are not defined.
    """
    count = len(one)
    if count < 2 or len(set(one)) < 2 or len(set(other)) < 2:
        return math.nan, None, None
    correlation = float(stats.spearmanr(one, other).statistic)
    if count < 4:  # the formula needs as many
        return correlation, None, None
    most = 1 - 6 / (count**3 - count)
    inner = min(max(correlation, -most), most)
    error = math.sqrt((1 + inner**2 / 2) / (count - 3))
    reach = float(stats.norm.ppf(_TWO_SIDED)) * error
    return correlation, math.tanh(math.atanh(inner) - reach), math.tanh(math.atanh(inner) + reach)


def _fine_tuned(results: Results) -> dict[str, dict[tuple[int, ...], float]]:
    """By budgets, test accuracy after fine-tuning of every different candidate."""
    found: dict[str, dict[tuple[int, ...], float]] = {}
    for best in results.bests:
        accuracy = delivered_accuracy(best)
        if best.candidate is not None and best.feasible and math.isfinite(accuracy):
            found.setdefault(budget_text(best.budget), {})[best.candidate] = accuracy
    return found


def _rewards(results: Results) -> Iterator[tuple[str, bool, Reward]]:
    compared = (results.spec.get("compare") or {}).get("rewards") or [results.spec.get("reward")]
    names = set()
    for value in compared:
        if value is None:
            continue
        try:
            spec = RewardSpec.model_validate(value)
            reward = make_reward(spec)
        except (PruneTuneError, ValueError):
            continue
        names.add(reward.name)
        yield spec.title, True, reward
    for name, reward_class in SINGLE_REWARDS.items():
        if name not in names:
            yield name, False, reward_class()


def _fidelity(
    reward: Reward,
    name: str,
    compared: bool,
    budget: str,
    accuracies: Mapping[tuple[int, ...], float],
    evaluations: Mapping[tuple[int, ...], Evaluation],
    dense: Evaluation,
) -> Fidelity:
    values, judged = [], []
    for widths, accuracy in accuracies.items():
        evaluation = evaluations.get(widths)
        if evaluation is None:
            continue
        try:
            values.append(score(reward, evaluation, dense))
        except EvaluationError:
            continue
        judged.append(accuracy)
    return Fidelity(name, compared, budget, len(values), *rank_correlation(values, judged))
