"""Published methods as parts of a spec: what each means here, and how it is put under a spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import yaml

from ..._nearest import nearest
from ...errors import SpecError

__all__ = ["METHODS", "Method", "describe_methods", "with_method"]


@dataclass(frozen=True)
class Method:
    """A published recipe, as far as a spec can say it.

    Attributes:
        title: What it is, in a sentence.
        source: Where it was published.
        differs: What is known to differ from the publication, in a sentence; empty for nothing.
        values: The part of a spec that it stands for, as YAML has it.
    """

    title: str
    source: str
    differs: str
    values: Mapping[str, Any]


# Statistics of BatchNorm were fitted to nothing, so training may move them.
_UNREPAIRED = {"repair": "none", "freeze_batchnorm": False}

# AMC's released code keeps a fifth of every layer at least, and searches for 800 episodes.
_AMC: dict[str, Any] = {
    "criterion": "l1",
    "repair": "none",
    "agent": "amc",
    "reward": "accuracy",
    "smallest": 0.2,
    "evaluations": 800,
    "finalists": 1,
    "finetune": _UNREPAIRED,
}

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "default": Method(
            "The constrained one-step policy with closed-form repair, as a spec has it by default.",
            "prunetune",
            "",
            {},
        ),
        "amc": Method(
            "Layer by layer in order, accuracy as the reward, FLOPs kept by clipping actions.",
            "He et al. 2018, arXiv 1802.03494",
            "PPO takes the place of DDPG, and what is removed are output channels of a layer "
            "instead of input channels.",
            _AMC,
        ),
        "entropy": Method(
            "AMC's search with the spatial entropy of activations as the reward, to be minimised.",
            "Musat & Andonie 2023, arXiv 2312.04918",
            "The paper names no formula; entropy and agent are our reading.",
            {**_AMC, "reward": "spatial-entropy", "smallest": 0.0},
        ),
        "entropy-lagrangian": Method(
            "The same reward with budgets kept by Lagrange multipliers, deciding in order.",
            "Musat & Andonie 2023, arXiv 2312.04918",
            "The paper names no formula; entropy and agent are our reading.",
            {
                **_AMC,
                "reward": "spatial-entropy",
                "smallest": 0.0,
                "agent": "ppo-lagrangian-in-order",
            },
        ),
        "pfp": Method(
            "Channels by sensitivity, widths by one relative error for all layers; no search.",
            "Baykal, Liebenwein et al. 2020, arXiv 1911.07412",
            "A unit that several layers read has its largest sensitivity, and a convolution's "
            "term sums over kernel positions.",
            {
                "criterion": "pfp",
                "repair": "none",
                "agent": "pfp",
                "evaluations": 16,
                "finalists": 1,
                "finetune": _UNREPAIRED,
            },
        ),
    }
)
"""Methods by name."""


def describe_methods(verbose: bool = False) -> dict[str, str]:
    """The methods and what they mean, for people.

    Args:
        verbose: Whether source, differences and the part of a spec follow.
    """
    return {name: _text(method) if verbose else method.title for name, method in METHODS.items()}


def _text(method: Method) -> str:
    lines = [method.title, f"Source: {method.source}."]
    if method.differs:
        lines.append(f"Differs: {method.differs}")
    spec = yaml.safe_dump(dict(method.values), sort_keys=False, default_flow_style=None)
    lines += spec.splitlines() if method.values else ["(nothing beside the defaults)"]
    return "\n".join(lines)


def with_method(values: Mapping[str, Any]) -> dict[str, Any]:
    """A spec's values over those of the method that it names.

    What the spec says itself counts, key by key; nothing is merged below the first level but
    ``finetune``, ``task`` and ``cluster``, whose keys stand for themselves.

    Args:
        values: As YAML gives them.

    Raises:
        SpecError: If there is no such method; names the nearest.
    """
    name = values.get("method")
    if not isinstance(name, str):
        return dict(values)
    if name not in METHODS:
        raise SpecError(f"Unknown method {name!r}: {nearest(name, METHODS)}")
    merged = {**METHODS[name].values, **values}
    for key in ("finetune", "task", "cluster"):
        below, above = METHODS[name].values.get(key), values.get(key)
        if isinstance(below, Mapping) and isinstance(above, Mapping):
            merged[key] = {**below, **above}
    return merged
