"""Agents by name, with parameters, as users write them."""

from __future__ import annotations

from ..._registry import NamedSpec, Registry
from ...envs.judge import Judge
from .agent import Agent

__all__ = ["AGENTS", "check_agent", "make_agent"]

AGENTS: Registry[Agent] = Registry(
    "agent",
    # RLlib and Optuna take seconds to import.
    {
        "ppo-lagrangian": f"{__package__}.together.agent:TogetherAgent",
        "ppo-lagrangian-in-order": f"{__package__}.in_order:InOrderAgent",
        "amc": f"{__package__}.amc:AmcAgent",
        "uniform": f"{__package__}.uniform:UniformAgent",
        "random": f"{__package__}.random_search:RandomAgent",
        "sensitivity": f"{__package__}.sensitivity:SensitivityAgent",
        "pfp": f"{__package__}.provable:ProvableAgent",
        "tpe": f"{__package__}.optuna_based:TpeAgent",
        "cma-es": f"{__package__}.optuna_based:CmaEsAgent",
    },
    Agent,
    "prunetune.search.agents.Agent",
    passed=("judge", "seed", "evaluations"),
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


def make_agent(spec: NamedSpec, judge: Judge, seed: int, evaluations: int) -> Agent:
    """Build the agent that a spec names.

    Args:
        spec: Name and parameters.
        judge: Judges candidates.
        seed: Seeds all of the agent's randomness.
        evaluations: Candidates that it may ask for in all.

    Raises:
        PruneTuneError: As `check_agent`, or if the parameters make no sense.
    """
    return AGENTS.make(spec, judge, seed, evaluations)
