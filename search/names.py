"""The names that a spec may use, with what they mean."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from .._registry import resolve

__all__ = ["KINDS"]

_OWN = "the user's own"


def _models() -> dict[str, str]:
    from ..models.zoo import NETWORKS

    named = {name: _meaning(build) for name, build in NETWORKS.items()}
    named["torchvision:NAME"] = "A classification network of torchvision, for example resnet50."
    return {**named, "FILE.py:FUNCTION": f"A function that builds {_OWN} network."}


def _data() -> dict[str, str]:
    return {
        "digits": "1,797 digits of 8x8 pixels that scikit-learn ships; nothing is downloaded.",
        "cifar10": "CIFAR-10 in torchvision's layout, in `root`; with `download: true`, fetched.",
        "cifar100": "CIFAR-100, likewise.",
        "fashion-mnist": "Fashion-MNIST, likewise.",
        "imagefolder:DIR": "One folder of images a class, in DIR or in DIR/train and DIR/test.",
        "parquet:DIR": "Parquet files in the Hugging Face image layout.",
        "FILE.py:FUNCTION": f"A function that returns {_OWN} prunetune.models.Data.",
    }


def _rewards() -> dict[str, str]:
    from ..rewards.registry import REWARDS

    named = {name: _meaning(reward) for name, reward in REWARDS.items()}
    return {**named, "FILE.py:CLASS": f"{_OWN.capitalize()} subclass of prunetune.rewards.Reward."}


def _criteria() -> dict[str, str]:
    from ..models.criteria import CRITERIA

    named = {name: _meaning(criterion) for name, criterion in CRITERIA.items()}
    return {**named, "FILE.py:CLASS": f"{_OWN.capitalize()} subclass of Criterion."}


def _agents() -> dict[str, str]:
    from .agents.registry import AGENTS

    named = {name: _meaning(resolve(where, "agent")) for name, where in AGENTS.items()}
    return {**named, "FILE.py:CLASS": f"{_OWN.capitalize()} subclass of Agent."}


KINDS: Mapping[str, Callable[[], dict[str, str]]] = MappingProxyType(
    {
        "models": _models,
        "data": _data,
        "rewards": _rewards,
        "criteria": _criteria,
        "agents": _agents,
    }
)
"""What there are names of; each gives meaning by name."""


def _meaning(thing: Any) -> str:
    """The first sentence of what a name stands for says of itself."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    text = inspect.getdoc(thing) or ""
    return " ".join(text.partition("\n\n")[0].replace("``", "").split())
