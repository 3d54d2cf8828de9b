"""Reward fidelity says whether what a search maximises ranks candidates as fine-tuning does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from ..._references import only_ours
from ...errors import EvaluationError, PluginError, PruneTuneError
from ...models.space import Candidate
from ...rewards import Evaluation, NamedSpec, Reward, make_reward, score
from ...rewards.single import SINGLE_REWARDS
from ..spec.reading import read_spec
from ..spec.trials import comparison_trials
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
    """Judge every reward of the run, then those of ours on one recorded measure.

    An evaluation does not depend on the reward, so the record tells what each reward says about
    each candidate, whoever asked for it. A reward of the user's own is not run for a report, which
    may be about somebody else's folder: what its own searches recorded of it counts. Budgets are
    kept apart: between them accuracy differs because of the cost. The candidates are those that
    searches chose as their best, which is not a random sample: they are better, and more alike,
    than candidates in general.

    Returns:
        In the order of budgets, then rewards. What is known of fewer than eight candidates is left
        out.
    """
    judges = list(_judges(results))
    found = (
        _fidelity(judge, budget, accuracies)
        for budget, accuracies in _fine_tuned(results).items()
        for judge in judges
    )
    return tuple(each for each in found if each.candidates >= _FEWEST)


def rank_correlation(
    one: Sequence[float], other: Sequence[float]
) -> tuple[float, float | None, float | None]:
    """Compute Spearman's rank correlation with its 95 % interval.

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


def _fine_tuned(results: Results) -> dict[str, dict[Candidate, float]]:
    """Find the test accuracy after fine-tuning of every different candidate, by budgets."""
    found: dict[str, dict[Candidate, float]] = {}
    for best in results.bests:
        accuracy = delivered_accuracy(best)
        if best.candidate is not None and best.feasible and math.isfinite(accuracy):
            found.setdefault(budget_text(best.budget), {})[best.candidate] = accuracy
    return found


@dataclass(frozen=True)
class _Judge:
    """A reward and what it says.

    Attributes:
        reward: Its name and parameters.
        compared: Whether a search of the run maximised it.
        value: Of a candidate; ``None`` where the run does not tell.
    """

    reward: str
    compared: bool
    value: Callable[[Candidate], float | None]


def _judges(results: Results) -> Iterator[_Judge]:
    compared = (results.spec.get("compare") or {}).get("rewards") or [results.spec.get("reward")]
    names = set()
    for value in compared:
        try:
            spec = NamedSpec.model_validate(value)
        except ValueError:
            continue
        try:
            with only_ours():
                reward = make_reward(spec)
        except PluginError:
            yield _Judge(spec.title, True, _recorded(results, spec).get)
        except PruneTuneError:
            continue
        else:
            names.add(reward.name)
            yield _Judge(spec.title, True, _computed(results, reward))
    for name, reward_class in SINGLE_REWARDS.items():
        if name not in names:
            yield _Judge(name, False, _computed(results, reward_class()))


def _recorded(results: Results, reward: NamedSpec) -> dict[Candidate, float]:
    """Find what the searches that maximised a reward recorded of it, by candidate."""
    try:
        trials = comparison_trials(read_spec(results.spec, check=False))
    except PruneTuneError:
        return {}
    return {
        asked.candidate: asked.reward
        for trial in trials
        if trial.reward == reward
        for asked in results.histories.get(trial.name, ())
        if math.isfinite(asked.reward)
    }


def _computed(results: Results, reward: Reward) -> Callable[[Candidate], float | None]:
    """Compute what a reward says of recorded evaluations."""
    dense = Evaluation(
        candidate=tuple(results.dense.groups.values()),
        measures=results.dense.measures,
        costs={"flops": 1.0, "params": 1.0},
    )

    def value(candidate: Candidate) -> float | None:
        evaluation = results.evaluations.get(candidate)
        try:
            return None if evaluation is None else score(reward, evaluation, dense)
        except EvaluationError:
            return None

    return value


def _fidelity(judge: _Judge, budget: str, accuracies: Mapping[Candidate, float]) -> Fidelity:
    judged = {candidate: judge.value(candidate) for candidate in accuracies}
    known = {candidate: value for candidate, value in judged.items() if value is not None}
    return Fidelity(
        judge.reward,
        judge.compared,
        budget,
        len(known),
        *rank_correlation(list(known.values()), [accuracies[each] for each in known]),
    )
