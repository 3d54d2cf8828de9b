"""Optuna's optimisers as agents: TPE and CMA-ES, on actions in [-1, 1]."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Literal

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial

from ...envs.judge import Judge
from ...envs.problem import Outcome
from .agent import BlackBoxAgent

__all__ = ["CmaEsAgent", "OptunaAgent", "TpeAgent"]

_VIOLATIONS = "violations"


class OptunaAgent(BlackBoxAgent):
    """Optimises the actions of all decisions at once; its first candidate is the uniform one.

    Args:
        judge: Judges candidates.
        seed: Seeds the sampler.
        evaluations: Candidates that it may ask for in all.
        candidates: Candidates of one iteration.
    """

    sampler: ClassVar[Literal["tpe", "cma-es"]]

    def __init__(self, judge: Judge, seed: int, evaluations: int, candidates: int = 16) -> None:
        super().__init__(judge, seed, evaluations, candidates)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space: dict[str, Any] = {
            f"{decision:04d}": FloatDistribution(-1.0, 1.0)
            for decision in range(len(self.problem.space))
        }
        with warnings.catch_warnings():
            # Experimental in Optuna 4 or deprecated in 5, and in both the only way.
            warnings.simplefilter("ignore")
            self._study = optuna.create_study(direction="maximize", sampler=self._make_sampler())
        self._study.enqueue_trial(dict.fromkeys(self._space, 0.0))
        self._asked: list[optuna.trial.Trial] = []
        self._worst = np.inf

    def ask(self, count: int) -> NDArray[np.int64]:
        """See `BlackBoxAgent.ask`."""
        self._asked = [self._study.ask(self._space) for _ in range(count)]
        actions = np.array([[t.params[name] for name in self._space] for t in self._asked])
        action_map, tabulated = self.problem.action_map, self.problem.tabulated
        candidates = np.repeat(action_map.uniform[None], count, axis=0)
        for decision in range(len(self._space)):
            candidates[:, decision] = action_map.values(decision, actions[:, decision])
            if self.problem.shield:
                candidates[:, decision] = tabulated.clip(candidates, decision, action_map.smallest)
        return candidates

    def tell(self, candidates: NDArray[np.int64], outcome: Outcome) -> None:
        """See `BlackBoxAgent.tell`."""
        limits = np.array([budget.limit for budget in self.problem.budgets])
        violations = outcome.costs - limits
        # A failed evaluation keeps its budgets perhaps, but must not look feasible.
        failed = ~outcome.feasible & (violations <= 0).all(axis=1)
        violations[failed] = 1.0
        self._worst = min(self._worst, float(outcome.rewards.min()))
        for trial, reward, violation in zip(self._asked, outcome.rewards, violations, strict=True):
            trial.set_user_attr(_VIOLATIONS, violation.tolist())
            self._study.tell(trial, self._value(float(reward), violation))
        self._asked = []

    def get_state(self) -> Any:
        """See `BlackBoxAgent.get_state`."""
        return self._study, self._worst

    def set_state(self, state: Any) -> None:
        """See `BlackBoxAgent.set_state`."""
        self._study, self._worst = state

    def _value(self, reward: float, violations: NDArray[np.float64]) -> float:
        return reward

    def _make_sampler(self) -> optuna.samplers.BaseSampler:
        raise NotImplementedError


class TpeAgent(OptunaAgent):
    """Tree-structured Parzen estimators with constraints (Watanabe & Hutter 2023, in Optuna)."""

    name = "tpe"

    def _make_sampler(self) -> optuna.samplers.BaseSampler:
        return optuna.samplers.TPESampler(
            seed=self.seed,
            n_startup_trials=min(32, max(self.evaluations // 4, 1)),
            multivariate=True,
            constant_liar=True,
            constraints_func=_violations,
        )


class CmaEsAgent(OptunaAgent):
    """CMA-ES from the uniform candidate; infeasible candidates rank below all feasible ones.

    The ranking is Deb's (2000): among infeasible candidates the smaller violation is better.
    """

    name = "cma-es"

    def _make_sampler(self) -> optuna.samplers.BaseSampler:
        return optuna.samplers.CmaEsSampler(
            x0=dict.fromkeys(self._space, 0.0),
            # The standard deviation that Lagrangian PPO's policy starts with.
            sigma0=0.3,
            seed=self.seed,
            n_startup_trials=0,
            popsize=self.candidates,
            warn_independent_sampling=False,
        )

    def _value(self, reward: float, violations: NDArray[np.float64]) -> float:
        excess = float(np.maximum(violations, 0.0).sum())
        return reward if excess == 0.0 else self._worst - excess


def _violations(trial: FrozenTrial) -> list[float]:
    violations: list[float] = trial.user_attrs[_VIOLATIONS]
    return violations
