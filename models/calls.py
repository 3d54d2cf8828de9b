"""The layers of a network that can be slimmed, as one forward pass meets them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from ..errors import NetworkError
from .hooks import hear_calls
from .layers import adapter_of, averages, multiplies

__all__ = [
    "CountUses",
    "LayerCall",
    "count_flops",
    "map_size",
    "norms_after",
    "record_layer_calls",
]


@dataclass(frozen=True)
class LayerCall:
    """How one forward pass used a layer.

    Attributes:
        name: Qualified module name.
        input_sizes: Height and width of the input of each call, as :func:`map_size` has them.
        output_sizes: Height and width of the output of each call.
    """

    name: str
    input_sizes: tuple[tuple[int, int], ...]
    output_sizes: tuple[tuple[int, int], ...]

    @property
    def times(self) -> int:
        """Calls in one forward pass."""
        return len(self.output_sizes)


def map_size(layer: nn.Module, values: Tensor) -> tuple[int, int]:
    """Height and width of the map that a layer reads or writes; (1, 1) where there is no map.

    Args:
        layer: Any layer with an adapter.
        values: Its input or output, [n, C, H, W] or [n, C]; of a linear layer [n, ..., C], all of
            whose positions count as height.
    """
    adapter = adapter_of(layer)
    assert adapter is not None
    return adapter.map_size(values)


def record_layer_calls(network: nn.Module, example_input: Tensor) -> list[LayerCall]:
    """The layers in the order of their first call.

    Args:
        network: Any network of one image input.
        example_input: Images [n, C, H, W].

    Raises:
        NetworkError: If the forward pass fails.
    """
    calls: dict[str, LayerCall] = {}
    names = {module: name for name, module in network.named_modules()}

    def record(module: nn.Module, inputs: Tensor, output: Tensor) -> None:
        name = names[module]
        previous = calls.get(name)
        calls[name] = LayerCall(
            name,
            (*(previous.input_sizes if previous else ()), map_size(module, inputs)),
            (*(previous.output_sizes if previous else ()), map_size(module, output)),
        )

    handles = [hear_calls(module, record) for module in names if adapter_of(module) is not None]
    try:
        with torch.inference_mode():
            network(example_input)
    except Exception as error:
        raise NetworkError(
            f"The network does not accept images of shape {tuple(example_input.shape[1:])}: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return list(calls.values())


def count_flops(network: nn.Module, example_input: Tensor) -> int:
    """FLOPs at batch 1 by ``torch.utils.flop_counter`` (2 x multiply-accumulates).

    Attention is counted as it is computed without PyTorch's fast path, which hides it.

    Args:
        network: Any network; its mode is not changed for longer than the count.
        example_input: One image [1, C, H, W].
    """
    training = network.training
    network.eval()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(example_input)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    network.train(training)
    return int(counter.get_total_flops())


def norms_after(network: nn.Module, example_input: Tensor) -> dict[str, str]:
    """Which BatchNorm reads each convolution's or linear layer's output directly.

    Args:
        network: Any network of one image input.
        example_input: Images [n, C, H, W].

    Returns:
        Layer name to BatchNorm name, for layers whose output goes straight into one and nowhere
        else. Both run once, and the BatchNorm has running statistics.
    """
    produced: dict[int, tuple[str, Tensor]] = {}
    pairs: dict[str, str] = {}
    calls: Counter[str] = Counter()
    names = {module: name for name, module in network.named_modules()}
    uses = CountUses()

    def record(module: nn.Module, inputs: Tensor, output: Tensor) -> None:
        calls[names[module]] += 1
        if averages(module):
            source = produced.get(id(inputs))
            if source is not None and module.running_mean is not None:
                pairs[source[0]] = names[module]
        else:
            # Holding the tensor keeps its id from being reused by a later one.
            produced[id(output)] = (names[module], output)
            uses.of[id(output)] = 0

    handles = [
        hear_calls(module, record) for module in names if multiplies(module) or averages(module)
    ]
    try:
        with torch.inference_mode(), uses:
            network(example_input)
    finally:
        for handle in handles:
            handle.remove()
    used_once = {name for key, (name, _) in produced.items() if uses.of[key] == 1}
    return {
        layer: norm
        for layer, norm in pairs.items()
        if layer in used_once and calls[layer] == calls[norm] == 1
    }


class CountUses(TorchFunctionMode):
    """Counts the functions that compute something from a tensor.

    Attributes:
        of: Uses so far by the tensor's id; others are not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[int, int] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Count and pass on."""
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor | tuple | list) and not isinstance(result, torch.Size):
            for each in (*args, *(kwargs or {}).values()):
                for value in each if isinstance(each, tuple | list) else (each,):
                    if isinstance(value, Tensor) and id(value) in self.of:
                        self.of[id(value)] += 1
        return result
