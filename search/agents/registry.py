"""Agents by name, with parameters, as users write them."""

from __future__ import annotations

import inspect
from typing import Any

from ..._registry import NamedSpec, Registry
from ...envs.problem import PruningProblem
from ..engine.problem_spec import ProblemSpec
from .agent import Agent

__all__ = ["AGENTS", "check_agent", "make_agent"]

AGENTS: Registry[Agent] = Registry(
    "agent",
    # RLlib and Optuna take seconds to import.
    {
        "ppo-lagrangian": f"{__package__}.lagrangian:LagrangianAgent",
        "uniform": f"{__package__}.baselines:UniformAgent",
        "random": f"{__package__}.baselines:RandomAgent",
        "sensitivity": f"{__package__}.sensitivity:SensitivityAgent",
        "tpe": f"{__package__}.black_box:TpeAgent",
        "cma-es": f"{__package__}.black_box:CmaEsAgent",
        "amc": f"{__package__}.amc:AmcAgent",
    },
    Agent,
    "prunetune.search.agents.Agent",
    passed=("problem", "seed", "evaluations", "environment"),
)
"""Our own agents."""


def check_agent(spec: NamedSpec) -> type[Agent]:
    """The class that a spec names, its parameters checked.

    Raises:
        UnknownNameError: If none of ours has that name.
        PluginError: If the user's own agent cannot be imported or is not an ``Agent``.
        SpecError: If a parameter is unknown, missing, of the wrong type or out of range.
    """
    AGENTS.check(spec)
    found: type[Agent] = AGENTS.find(spec.name)
    return found


def make_agent(
    spec: NamedSpec,
    problem: PruningProblem,
    environment: ProblemSpec,
    seed: int,
    evaluations: int,
) -> Agent:
    """Build the agent that a spec names.

    Args:
        spec: Name and parameters.
        problem: What is searched.
        environment: The same problem as plain data.
        seed: Seeds all of the agent's randomness.
        evaluations: Candidates that it may ask for in all.

    Raises:
        PruneTuneError: As `check_agent`, or if the parameters make no sense.
    """
    passed: tuple[Any, ...] = (problem, seed, evaluations)
    if "environment" in inspect.signature(AGENTS.find(spec.name)).parameters:
        passed = (*passed, environment)
    return AGENTS.make(spec, *passed)
