"""Parameters that are computed anew on every call, made plain ones."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

__all__ = ["has_computed_parameters", "make_permanent"]

_OldForms = WeightNorm | SpectralNorm | prune.BasePruningMethod


def has_computed_parameters(network: nn.Module) -> bool:
    """Say whether a layer computes a parameter from others: weight norm, spectral norm, masks."""
    return any(True for module in network.modules() for _ in _kinds(module))


def make_permanent(network: nn.Module) -> str | None:
    """Give layers the parameters that they would compute, in place.

    A layer whose weight is computed is no longer of PyTorch's own type, so it could not be pruned.

    Args:
        network: In evaluation mode, in which spectral norm keeps its estimate.

    Returns:
        A note that says what was done, or None where there was nothing to do.
    """
    kinds: dict[str, None] = {}
    layers = 0
    for module in list(network.modules()):
        found = list(_kinds(module))
        layers += bool(found)
        kinds.update(dict.fromkeys(found))
        if parametrize.is_parametrized(module):
            _end_parametrizations(module)
        for key, form in _old_forms(module):
            if isinstance(form, prune.BasePruningMethod):
                prune.remove(module, form._tensor_name)
                continue
            form.remove(module)
            del module._forward_pre_hooks[key]
    if not layers:
        return None
    return (
        f"Parameters of {layers} layers were computed on every call ({', '.join(kinds)}); they "
        "were made permanent, so that these layers can be pruned."
    )


def _end_parametrizations(module: nn.Module) -> None:
    # Not `remove_parametrizations`, which also changes the class of copies of this module.
    lists = dict(module.parametrizations.named_children())  # type: ignore[union-attr]
    values = {name: getattr(module, name).detach().clone() for name in lists}
    del module._modules["parametrizations"]
    module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        if any(True for _ in lists[name].parameters(recurse=False)):
            module.register_parameter(name, nn.Parameter(value))
        else:
            module.register_buffer(name, value)


def _old_forms(module: nn.Module) -> list[tuple[int, _OldForms]]:
    """Find the hooks that compute a parameter before a layer runs, with their keys."""
    return [
        (key, hook)
        for key, hook in module._forward_pre_hooks.items()
        if isinstance(hook, _OldForms)
    ]


def _kinds(module: nn.Module) -> Iterator[str]:
    if parametrize.is_parametrized(module):
        for parts in module.parametrizations.values():  # type: ignore[operator]
            yield from (type(part).__name__.strip("_") for part in parts)
    yield from (type(form).__name__ for _, form in _old_forms(module))
