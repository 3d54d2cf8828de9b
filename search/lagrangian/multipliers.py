"""Lagrange multipliers: how they follow the costs of a policy, and their exact state."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Constraints", "Multipliers", "PidGains", "Rule", "held_costs"]

Rule = Literal["lagrange", "pid"]


@dataclass(frozen=True)
class PidGains:
    """Gains of the ``pid`` rule (Stooke et al. 2020, Algorithm 2), in multiplier per cost.

    Attributes:
        proportional: Weight of the smoothed violation; it damps.
        integral: Weight of the sum of violations.
        derivative: Weight of the rise of the cost; a falling cost counts as 0.
        smoothing: Exponential smoothing of the proportional and derivative terms, in [0, 1);
            0 takes the latest value alone.
        delay: Updates over which the rise is taken, at least 1.
    """

    proportional: float = 5.0
    integral: float = 1.0
    derivative: float = 5.0
    smoothing: float = 0.3
    delay: int = 1


@dataclass(frozen=True)
class Constraints:
    """What is constrained, and how the multipliers move.

    Attributes:
        limits: Largest admissible mean episode cost, one per cost.
        names: Names of the costs in results.
        rule: ``lagrange`` (projected gradient) or ``pid``.
        learning_rate: Step of the ``lagrange`` rule, in multiplier per cost.
        damping: How much the ``lagrange`` rule reacts to the violation itself beside the sum of
            violations: 0 is the plain projected gradient, which overshoots.
        pid: Gains of the ``pid`` rule.
        initial: Initial multipliers, one per cost, in [0, maximum].
        maximum: Largest value of a multiplier.
        window: Updates over whose mean cost a violation is taken, at least 1.
    """

    limits: tuple[float, ...]
    names: tuple[str, ...]
    rule: Rule = "lagrange"
    learning_rate: float = 1.0
    damping: float = 5.0
    pid: PidGains = PidGains()
    initial: tuple[float, ...] = ()
    maximum: float = 100.0
    window: int = 1

    def __post_init__(self) -> None:
        count = len(self.limits)
        if count == 0 or not np.isfinite(self.limits).all():
            raise ValueError(f"constraints need one finite limit per cost, got {self.limits}")
        if len(self.names) != count or len(set(self.names)) != count:
            raise ValueError(f"{count} limits need {count} different names, got {self.names}")
        if self.rule not in get_args(Rule):
            raise ValueError(f"unknown rule {self.rule!r}: choose one of {get_args(Rule)}")
        gains = (self.pid.proportional, self.pid.integral, self.pid.derivative)
        if min(self.learning_rate, self.damping, self.maximum, *gains) < 0:
            raise ValueError("multiplier steps, gains and maximum must not be negative")
        if not 0 <= self.pid.smoothing < 1 or min(self.pid.delay, self.window) < 1:
            raise ValueError("pid smoothing must be in [0, 1), delay and window at least 1")
        initial = self.initial or (0.0,) * count
        if len(initial) != count or not all(0 <= value <= self.maximum for value in initial):
            raise ValueError(
                f"{count} limits need {count} initial multipliers in [0, {self.maximum}], "
                f"got {initial}"
            )
        object.__setattr__(self, "initial", initial)


class Multipliers:
    """The multipliers of a constrained problem, all of whose state can be saved exactly.

    Args:
        constraints: What is constrained and by which rule.
    """

    def __init__(self, constraints: Constraints) -> None:
        self._constraints = constraints
        self._limits = np.array(constraints.limits, dtype=np.float64)
        self._values = np.array(constraints.initial, dtype=np.float64)
        self._integral = self._values.copy()
        self._proportional = np.zeros_like(self._values)
        self._smoothed: list[NDArray[np.float64]] = []
        self._recent: deque[NDArray[np.float64]] = deque(maxlen=constraints.window)

    @property
    def values(self) -> NDArray[np.float64]:
        """The multipliers, float64 [B], each in [0, maximum]."""
        return self._values.copy()

    def update(self, costs: ArrayLike) -> NDArray[np.float64]:
        """Move the multipliers after one batch of episodes.

        ``lagrange``: I <- clip(I + eta delta), lambda <- clip(I + eta damping delta), where delta
        is the violation: the projected gradient of the dual problem, and beside it a term
        proportional to the violation, which damps (our choice).
        ``pid``: Stooke et al. 2020, Algorithm 2, with the integral, too, held below the maximum.

        Args:
            costs: Mean undiscounted cost of an episode, [B]. Not finite means not known: nothing
                moves then.

        Returns:
            The multipliers after the update, float64 [B].
        """
        latest = np.asarray(costs, dtype=np.float64)
        if latest.shape != self._limits.shape:
            raise ValueError(f"expected costs of shape {self._limits.shape}, got {latest.shape}")
        if np.isfinite(latest).all():
            self._recent.append(latest)
            mean = np.mean(self._recent, axis=0)
            step = self._pid if self._constraints.rule == "pid" else self._lagrange
            self._values = np.clip(step(mean), 0.0, self._constraints.maximum)
        return self.values

    def get_state(self) -> dict[str, Any]:
        """Everything that :meth:`update` depends on."""
        return {
            "values": self.values,
            "integral": self._integral.copy(),
            "proportional": self._proportional.copy(),
            "smoothed": [cost.copy() for cost in self._smoothed],
            "recent": [cost.copy() for cost in self._recent],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`get_state` returned."""
        self._values = np.array(state["values"], dtype=np.float64)
        self._integral = np.array(state["integral"], dtype=np.float64)
        self._proportional = np.array(state["proportional"], dtype=np.float64)
        self._smoothed = [np.array(cost, dtype=np.float64) for cost in state["smoothed"]]
        self._recent.clear()
        self._recent.extend(np.array(cost, dtype=np.float64) for cost in state["recent"])

    def _lagrange(self, costs: NDArray[np.float64]) -> NDArray[np.float64]:
        violation = costs - self._limits
        rate, damping = self._constraints.learning_rate, self._constraints.damping
        self._integral = np.clip(self._integral + rate * violation, 0.0, self._constraints.maximum)
        return np.asarray(self._integral + rate * damping * violation)

    def _pid(self, costs: NDArray[np.float64]) -> NDArray[np.float64]:
        gains, keep = self._constraints.pid, self._constraints.pid.smoothing
        violation = costs - self._limits
        self._integral = np.clip(
            self._integral + gains.integral * violation, 0.0, self._constraints.maximum
        )
        self._proportional = keep * self._proportional + (1 - keep) * violation
        latest = self._smoothed[-1] if self._smoothed else costs
        self._smoothed.append(keep * latest + (1 - keep) * costs)
        self._smoothed = self._smoothed[-(gains.delay + 1) :]
        rise = np.maximum(0.0, self._smoothed[-1] - self._smoothed[0])
        return np.asarray(
            gains.proportional * self._proportional + self._integral + gains.derivative * rise
        )


def held_costs(
    costs: NDArray[np.float64], limits: NDArray[np.float64], deviations: float
) -> NDArray[np.float64]:
    """What the multipliers hold at the limits, so that most episodes keep them (our choice).

    It is the mean cost plus some standard deviations. Where costs are spread so widely that this
    exceeds a limit although no episode does, something else cuts them off there, such as
    candidates moved to keep it; the mean is enough then.

    Args:
        costs: Of N finished episodes, [N, B].
        limits: Of the costs, [B].
        deviations: How many standard deviations, at least 0.

    Returns:
        float64 [B]; not-a-number without an episode.
    """
    if not len(costs):
        return np.full(costs.shape[1], np.nan)
    mean = costs.mean(axis=0)
    most = mean + deviations * costs.std(axis=0)
    cut_off = (costs.max(axis=0) <= limits) & (most > limits)
    return np.asarray(np.where(cut_off, mean, most))
