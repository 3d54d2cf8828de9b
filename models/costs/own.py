"""The user's own costs: functions of a network, computed where candidates are evaluated."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..._compat import is_batchnorm
from ..._live import is_live
from ..._references import resolve
from ..._sources import source_digests
from ...errors import EvaluationError, PluginError

__all__ = ["OwnCosts", "relative_costs", "standalone_copy"]


class OwnCosts:
    """Costs that are functions ``(network, example_input) -> number``.

    They may be anything that can be computed from a network: nothing is differentiated, and they
    need not grow with the widths. Each gets a float32 network of its own in evaluation mode, on
    the CPU, and one normalised image [1, C, H, W].

    Args:
        references: ``module:function`` or ``path/to/file.py:function``; also the costs' names.
        example_input: One image, float32 [1, C, H, W].

    Raises:
        PluginError: If one cannot be imported or is not a function.
    """

    def __init__(self, references: Sequence[str], example_input: Tensor) -> None:
        self._functions = {name: _function(name) for name in references}
        self._example_input = example_input

    def __len__(self) -> int:
        return len(self._functions)

    def digests(self) -> dict[str, str]:
        """By name, SHA-256 of a function's file and all that it imports of the user's own.

        They are part of an evaluation's key.
        """
        return {name: _digest(name) for name in self._functions}

    def measure(self, network: nn.Module) -> dict[str, float]:
        """All costs of a network, each in its own unit.

        Args:
            network: Float32, in evaluation mode, on the CPU; it is not changed.

        Raises:
            EvaluationError: If a function raises, or returns something that is not a finite number
                of at least 0.
        """
        return {name: self._call(name, network) for name in self._functions}

    def _call(self, name: str, network: nn.Module) -> float:
        own = copy.deepcopy(network)
        try:
            with torch.inference_mode(False), torch.no_grad():
                value = self._functions[name](own, self._example_input.clone())
        except Exception as error:
            raise EvaluationError(
                f"The cost {name} raised {type(error).__name__}: {error}; let it return a number "
                "for every network."
            ) from error
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise EvaluationError(
                f"The cost {name} returned {value!r}, a {type(value).__name__}; it must return a "
                "number."
            )
        amount = float(value)
        if not math.isfinite(amount) or amount < 0:
            raise EvaluationError(
                f"The cost {name} returned {amount}; it must be finite and at least 0."
            )
        return amount


def standalone_copy(slimmed: nn.Module, evaluated: nn.Module) -> nn.Module:
    """A float32 network that computes what was evaluated, and shares nothing.

    Args:
        slimmed: The slim, repaired network.
        evaluated: The same after casting and finishing, which changes BatchNorm layers, in float32,
            and linear layers.
    """
    with torch.inference_mode(False):
        own = copy.deepcopy(slimmed).eval()
        for name, module in evaluated.named_modules():
            if is_batchnorm(module) or isinstance(module, nn.Linear):
                state = {key: value.cpu().clone() for key, value in module.state_dict().items()}
                own.get_submodule(name).load_state_dict(state)
    return own


def relative_costs(costs: Mapping[str, float], dense: Mapping[str, float]) -> dict[str, float]:
    """Costs as fractions of the dense network's, or as they are where that is 0."""
    return {name: value / (dense[name] or 1.0) for name, value in costs.items()}


def _function(name: str) -> Callable[[nn.Module, Tensor], Any]:
    function = resolve(name, "cost")
    if not callable(function):
        raise PluginError(f"The cost {name!r} must be a function (network, example_input).")
    return function


def _digest(name: str) -> str:
    # The name of a session's object has a digest of its code.
    sources = {} if is_live(name) else source_digests([name])
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()
