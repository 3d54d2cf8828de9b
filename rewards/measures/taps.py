"""Where measures listen in a network, and hooks that leave no trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...errors import EvaluationError
from ...models.hooks import hear_calls, hear_inputs

__all__ = ["RECTIFIERS", "Tap", "activation_modules", "pre_activation_modules"]

RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm2d, nn.GroupNorm)


def _of_kind(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> tuple[str, ...]:
    return tuple(name for name, module in network.named_modules() if isinstance(module, kinds))


def activation_modules(network: nn.Module) -> tuple[str, ...]:
    """Names of the modules whose outputs are the network's activations.

    Returns:
        The rectifiers; in a network that has none as modules, the convolutions.
    """
    return _of_kind(network, RECTIFIERS) or _of_kind(network, _CONVOLUTIONS)


def pre_activation_modules(network: nn.Module) -> tuple[tuple[str, ...], bool]:
    """Where to read what goes into the rectifiers.

    Returns:
        Names of modules, and whether to read their inputs (rectifiers) or their outputs (in a
        network that has no rectifier modules: normalisations, else convolutions).
    """
    rectifiers = _of_kind(network, RECTIFIERS)
    if rectifiers:
        return rectifiers, True
    return _of_kind(network, _NORMS) or _of_kind(network, _CONVOLUTIONS), False


class Tap:
    """Forward hooks on named modules that pass every tensor they see to one function.

    A module that runs several times in one forward pass (a shared ReLU) is several sites:
    ``relu``, ``relu#2``, ... Call ``next_pass`` between forward passes.

    Args:
        network: The network to listen to.
        names: Modules of the dense network. One that the candidate lacks is passed over, since
            depth reduction may have removed it.
        inputs: Listen to the modules' first input instead of their output.
        listen: Called with the site and the tensor, while the forward pass runs.

    Raises:
        EvaluationError: If the network has none of the modules any more.
    """

    def __init__(
        self,
        network: nn.Module,
        names: Iterable[str],
        inputs: bool,
        listen: Callable[[str, Tensor], None],
    ) -> None:
        self._calls: Counter[str] = Counter()
        self._handles: list[RemovableHandle] = []
        modules = dict(network.named_modules())
        for name in names:
            if name in modules:
                self._handles.append(self._hook(modules[name], name, inputs, listen))
        if not self._handles:
            raise EvaluationError(
                "A candidate has none of the modules that its activations are measured on; leave "
                "such measures out."
            )

    def _hook(
        self,
        module: nn.Module,
        name: str,
        inputs: bool,
        listen: Callable[[str, Tensor], None],
    ) -> RemovableHandle:
        def site() -> str:
            self._calls[name] += 1
            call = self._calls[name]
            return name if call == 1 else f"{name}#{call}"

        def before(module: nn.Module, inputs: Tensor) -> None:
            listen(site(), inputs)

        def after(module: nn.Module, inputs: Tensor, output: Tensor) -> None:
            listen(site(), output)

        return hear_inputs(module, before) if inputs else hear_calls(module, after)

    def next_pass(self) -> None:
        """Count calls from one again."""
        self._calls.clear()

    def remove(self) -> None:
        """Take all hooks off the network."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
