"""The faults that `injected_faults.py` injects: one line each, and the tests that should notice."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FAULTS", "Fault"]


class Fault(NamedTuple):
    """One line that is made wrong.

    Attributes:
        path: The file, from the root of the checkout.
        right: Text that is there once, within one line.
        wrong: What takes its place.
        tests: Files that should catch it, from ``tests``.
    """

    path: str
    right: str
    wrong: str
    tests: tuple[str, ...]


_BUDGETS = "envs/budgets.py"
_PROBLEM = "envs/problem.py"
_TABLES = "models/costs/tables.py"
_MULTIPLIERS = "search/lagrangian/multipliers.py"
_RECORD = "search/run/record.py"
_RECORD_TABLES = "search/run/record_tables.py"
_CONTINUATION = "search/run/continuation.py"
_TOGETHER = "search/agents/together"
_SAMPLING = "rewards/evaluation/sampling.py"

_BUDGET = ("envs/test_budget.py",)
_JUDGED = ("envs/test_env.py", "search/test_agents.py")
_COUNTED = ("models/test_structure.py", "models/test_cost_tables.py")
_PRICED = ("search/test_lagrangian_multipliers.py",)
_RECORDED = ("search/test_record.py",)
_CONTINUED = ("search/test_continuation.py",)
_REMEMBERED = ("search/test_history.py", "search/test_finalists.py")
_ALLOCATED = ("search/agents/together/test_allocation.py",)
_MAPPED = (
    "search/agents/together/test_candidate_map.py",
    "search/agents/together/test_learned_costs.py",
)
_IMAGINED = ("search/agents/together/test_imagination.py",)
_BELIEVED = ("search/agents/together/test_learned_costs.py",)
_SAMPLED = ("rewards/test_sampling.py",)

FAULTS = (
    Fault(_BUDGETS, "value / 100, True", "value / 10, True", _BUDGET),
    Fault(_BUDGETS, "if low < reachable:", "if high < reachable:", _BUDGET),
    Fault(
        _BUDGETS, "if value > 1 and cost.tabulated:", "if value > 2 and cost.tabulated:", _BUDGET
    ),
    Fault(
        _BUDGETS,
        "return low + np.linspace(0.0, 1.0, _FRONT)",
        "return low + np.linspace(0.0, 0.9, _FRONT)",
        (*_BUDGET, "search/test_agents.py"),
    ),
    Fault(
        "envs/judge.py",
        "np.where(outcome.succeeded, outcome.rewards, np.nan).tolist()",
        "outcome.rewards.tolist()",
        _JUDGED,
    ),
    Fault(
        "envs/judge.py", "evaluations, limits, self.past", "evaluations, None, self.past", _JUDGED
    ),
    Fault(_PROBLEM, "np.maximum(1.0, limits)", "np.minimum(1.0, limits)", _JUDGED),
    Fault(_PROBLEM, "(costs <= limits).all(axis=1)", "(costs <= limits).any(axis=1)", _JUDGED),
    Fault(_PROBLEM, "rewards[succeeded].min()", "rewards[succeeded].max()", _JUDGED),
    Fault("envs/past.py", "if kept:", "if reward > self.best:", (*_JUDGED, *_IMAGINED)),
    Fault(
        "envs/actions.py",
        "trial[:, step + 1 :] = smallest[step + 1 :]",
        "trial[:, step + 1 :] = candidates[:, step + 1 :]",
        ("envs/test_actions.py", "envs/test_env.py"),
    ),
    Fault(_TABLES, "return 2 * self._positions", "return self._positions", _COUNTED),
    Fault(_TABLES, "inputs * outputs // self._convolution_groups", "inputs * outputs", _COUNTED),
    Fault(_TABLES, '(2 if layer.kind == "norm" else 1)', "1", _COUNTED),
    Fault(
        "models/costs/counted.py",
        "shares[:, 0] += self.constant",
        "shares[:, 0] += 0.0",
        _COUNTED,
    ),
    Fault(
        "models/costs/collection.py",
        "limits[name] * (dense or 1.0)",
        "limits[name]",
        (
            "rewards/test_costs_in_evaluations.py",
            "models/test_artifact.py",
            "models/test_artifact_changes.py",
        ),
    ),
    Fault(_MULTIPLIERS, "rate * damping * violation", "rate * violation", _PRICED),
    Fault(_MULTIPLIERS, "[-(gains.delay + 1) :]", "[-(gains.delay + 2) :]", _PRICED),
    Fault(_MULTIPLIERS, "costs.max(axis=0) <= limits", "costs.max(axis=0) >= limits", _PRICED),
    Fault(_MULTIPLIERS, 'np.array(state["integral"]', 'np.array(state["values"]', _PRICED),
    Fault(
        _RECORD_TABLES,
        "match is None or int(match.group(2), 16) != zlib.crc32(content)",
        "match is None",
        _RECORDED,
    ),
    Fault(_RECORD, "if key not in self._index:", "if key:", _RECORDED),
    Fault(_RECORD_TABLES, "return [not is_lost(error) for", "return [True for", _RECORDED),
    Fault("search/run/history.py", "if later > iteration:", "if later >= iteration:", _REMEMBERED),
    Fault("search/run/history.py", "-candidate.reward)", "candidate.reward)", _REMEMBERED),
    Fault(
        _CONTINUATION,
        'if before["key"][part] != now["key"][part]:',
        'if before["key"].keys() != now["key"].keys():',
        _CONTINUED,
    ),
    Fault(_CONTINUATION, "_TOLERANCE = 0.01", "_TOLERANCE = 1.0", _CONTINUED),
    Fault(
        "models/identity.py",
        "if before.get(label) != now.get(label)",
        "if label not in now",
        _CONTINUED,
    ),
    Fault(
        "search/engine/stopping.py",
        "better < math.ceil(count",
        "better <= math.ceil(count",
        ("search/test_stopping.py",),
    ),
    Fault(
        "models/reductions/channels.py",
        "np.setdiff1d(np.arange(group.size), units)",
        "np.arange(len(units), group.size)",
        ("models/test_slimming.py",),
    ),
    Fault(
        "models/reductions/channels.py",
        "return own_copy(module) if is_batchnorm(module) else None",
        "return None",
        ("models/test_slimming.py",),
    ),
    Fault(
        "models/repair/ridge.py",
        "return weight, mean - weight @ self._mean",
        "return weight, mean",
        ("models/test_ridge.py",),
    ),
    Fault(
        "models/artifact/verifying.py",
        "fractions[name] > limit:",
        "fractions[name] > 1:",
        ("models/test_artifact.py", "models/test_artifact_changes.py"),
    ),
    Fault(f"{_TOGETHER}/allocation.py", "if share > 1", "if share > 1.1", _ALLOCATED),
    Fault(f"{_TOGETHER}/allocation.py", "slope = _STEEPER * (", "slope = (", _ALLOCATED),
    Fault(
        f"{_TOGETHER}/candidate_map.py",
        "np.maximum(limits * spent, self._least)",
        "limits * spent",
        _MAPPED,
    ),
    Fault(f"{_TOGETHER}/candidate_map.py", "_SPENT_RANGE * action", "action", _MAPPED),
    Fault(f"{_TOGETHER}/imagination.py", "(-promises, exceeded", "(promises, exceeded", _IMAGINED),
    Fault(f"{_TOGETHER}/imagination.py", "costs[chosen] = outcome.costs", "pass", _IMAGINED),
    Fault(f"{_TOGETHER}/imagination.py", "again.append(row in seen)", "again.append(0)", _IMAGINED),
    Fault(f"{_TOGETHER}/believed_costs.py", "+ _ERRORS * model", "- _ERRORS * model", _BELIEVED),
    Fault(
        f"{_TOGETHER}/believed_costs.py",
        "costs / limits - 1.0",
        "costs - limits",
        _BELIEVED,
    ),
    Fault(f"{_TOGETHER}/cost_surrogate.py", "weights / np.diag", "weights * np.diag", _BELIEVED),
    Fault(f"{_TOGETHER}/cost_surrogate.py", "-(-value // block)", "value // block", _BELIEVED),
    Fault(_SAMPLING, "weight * (weight - 1) *", "weight * weight *", _SAMPLED),
    Fault(_SAMPLING, "np.full(size, len(stratum) / max(size, 1))", "np.ones(size)", _SAMPLED),
    Fault(
        "rewards/evaluation/evaluation.py",
        "numbers.Integral) or value < 0:",
        "numbers.Integral):",
        ("rewards/test_evaluation.py",),
    ),
    Fault(
        "search/spec/yaml_text.py",
        "if key.value in seen:",
        "if key.value is None:",
        ("search/test_spec.py",),
    ),
    Fault(
        "_registry.py",
        "if given not in keywords.types and not keywords.open:",
        "if not keywords.types and not keywords.open:",
        ("test_registry.py", "search/test_spec.py"),
    ),
)
