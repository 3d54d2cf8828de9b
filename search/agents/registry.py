"""Agents by name, with parameters, as users write them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..._registry import is_reference, nearest, pick, resolve
from ...envs.problem import PruningProblem
from ...errors import PluginError, PruneTuneError, SpecError
from ..engine.problem_spec import ProblemSpec
from ..spec.model import AgentSpec
from .agent import Agent

__all__ = ["AGENTS", "check_agent", "make_agent"]

AGENTS: Mapping[str, str] = MappingProxyType(
    {
        "ppo-lagrangian": f"{__package__}.lagrangian:LagrangianAgent",
        "uniform": f"{__package__}.baselines:UniformAgent",
        "random": f"{__package__}.baselines:RandomAgent",
        "sensitivity": f"{__package__}.sensitivity:SensitivityAgent",
        "tpe": f"{__package__}.black_box:TpeAgent",
        "cma-es": f"{__package__}.black_box:CmaEsAgent",
        "amc": f"{__package__}.amc:AmcAgent",
    }
)
"""Our own agents: where the class of each name is; RLlib and Optuna take seconds to import."""

# What we pass ourselves, and a spec therefore must not.
_PASSED = ("problem", "seed", "evaluations", "environment")


def check_agent(spec: AgentSpec) -> type[Agent]:
    """The class that a spec names, its parameters checked by name.

    Raises:
        UnknownNameError: If none of ours has that name.
        PluginError: If the user's own agent cannot be imported or is not an ``Agent``.
        SpecError: If it has no parameter of a name that is given.
    """
    reference = spec.name if is_reference(spec.name) else pick("agent", spec.name, AGENTS)
    target = resolve(reference, "agent")
    if not isinstance(target, type) or not issubclass(target, Agent):
        raise PluginError(
            f"The agent {spec.name!r} must be a subclass of prunetune.search.agents.Agent."
        )
    parameters = inspect.signature(target).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return target
    known = [parameter.name for parameter in parameters if parameter.name not in _PASSED]
    for given in spec.parameters:
        if given not in known:
            hint = nearest(given, known) if known else "it takes none."
            raise SpecError(f"The agent {spec.name!r} has no parameter {given!r}; {hint}")
    return target


def make_agent(
    spec: AgentSpec,
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
        seed: Of all the agent's randomness.
        evaluations: Candidates that it may ask for in all.

    Raises:
        PruneTuneError: As `check_agent`, or if the parameters make no sense.
    """
    target = check_agent(spec)
    passed: dict[str, Any] = {"problem": problem, "seed": seed, "evaluations": evaluations}
    if "environment" in inspect.signature(target).parameters:
        passed["environment"] = environment
    try:
        return target(**passed, **spec.parameters)
    except PruneTuneError:
        raise
    except (TypeError, ValueError) as error:
        raise SpecError(
            f"The agent {spec.name!r} cannot be built with parameters {spec.parameters}: {error}."
        ) from error
