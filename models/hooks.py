"""Hooks of our own: they hear a layer however it is called, and can be told from a user's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["has_foreign_hooks", "hear_calls", "hear_inputs"]


def hear_inputs(layer: nn.Module, listen: Callable[[nn.Module, Tensor], None]) -> RemovableHandle:
    """Hear what a layer reads, before it runs.

    Args:
        layer: Any layer of one input, which the network may pass by position or by keyword.
        listen: Receives the layer and its input.

    Returns:
        The handle that removes the hook.
    """
    return layer.register_forward_pre_hook(_BeforeCall(listen), with_kwargs=True)


def hear_calls(
    layer: nn.Module, listen: Callable[[nn.Module, Tensor, Tensor], Tensor | None]
) -> RemovableHandle:
    """Hear what a layer reads and returns, after it ran.

    Args:
        layer: As for :func:`hear_inputs`.
        listen: Receives the layer, its input and its output. What it returns takes the output's
            place, unless that is None.

    Returns:
        The handle that removes the hook.
    """
    return layer.register_forward_hook(_AfterCall(listen), with_kwargs=True)


def has_foreign_hooks(layer: nn.Module) -> bool:
    """Whether somebody else's hook runs with a layer, and may change what it computes."""
    hooks: Iterable[object] = (
        *layer._forward_pre_hooks.values(),
        *layer._forward_hooks.values(),
    )
    return any(not isinstance(hook, _BeforeCall | _AfterCall) for hook in hooks)


class _BeforeCall:
    def __init__(self, listen: Callable[[nn.Module, Tensor], None]) -> None:
        self._listen = listen

    def __call__(
        self, layer: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> None:
        self._listen(layer, _input(arguments, keywords))


class _AfterCall:
    def __init__(self, listen: Callable[[nn.Module, Tensor, Tensor], Tensor | None]) -> None:
        self._listen = listen

    def __call__(
        self,
        layer: nn.Module,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        output: Tensor,
    ) -> Tensor | None:
        return self._listen(layer, _input(arguments, keywords), output)


def _input(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
    first: Tensor = next(iter((*arguments, *keywords.values())))
    return first
