"""Fast inference of slim networks: rectifiers and residual sums inside the convolutions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from ..._compat import fused_convolution, fused_convolution_and_sum
from ..layers import ConvolutionAdapter, adapter_of, is_unaltered
from ..symbolic import trace

__all__ = ["InferencePlan", "plan_inference"]

# oneDNN computes output channels in blocks of this many, used or not.
_CHANNEL_BLOCK = 16
_MOST_PIXELS = 8


@dataclass(frozen=True)
class _Fusion:
    """What a convolution's call takes over from the calls that follow it."""

    rectified: bool
    adds: bool


class InferencePlan:
    """How to run any candidate of one network with fused convolutions.

    The plan is traced once; a candidate only gets its own layers put in. The result is for
    inference on the CPU: nothing can listen to its rectifiers.

    Args:
        graph: The traced network with fused calls.
        fusions: What each convolution takes over, by layer name.
    """

    def __init__(self, graph: fx.GraphModule, fusions: dict[str, _Fusion]) -> None:
        self._graph = graph
        self._fusions = fusions

    def prepare(self, network: nn.Module) -> nn.Module:
        """A fused network with a candidate's layers.

        Args:
            network: A candidate whose BatchNorm layers are folded, channels last, on the CPU, with
                the module names of the network that was traced; it is not changed.
        """
        prepared = _hollow_copy(self._graph)
        for name, module in network.named_modules():
            if name in self._fusions:
                assert isinstance(module, nn.Conv2d)
                prepared.set_submodule(name, _FusedConvolution(module, self._fusions[name]))
            elif not module._modules and _has(prepared, name):
                prepared.set_submodule(name, module)
        return prepared


def plan_inference(network: nn.Module) -> InferencePlan | None:
    """Trace a network and fuse its calls.

    Args:
        network: The dense network with BatchNorm layers folded.

    Returns:
        The plan, or None where the network cannot be traced symbolically, the processor's
        convolutions cannot be fused, or there is nothing to fuse: run the network as it is then.
    """
    if not torch.backends.mkldnn.is_available():
        return None
    graph = trace(network)
    if graph is None:
        return None
    modules = dict(network.named_modules())
    _drop_identities(graph, modules)
    fusions: dict[str, _Fusion] = {}
    for node in list(graph.nodes):
        if _is_fusible(node, modules):
            fusions[node.target] = _fuse(graph, node, modules)
    if not fusions:
        return None
    graph.lint()
    return InferencePlan(fx.GraphModule(network, graph), fusions)


class _FusedConvolution(nn.Module):
    """A convolution that also adds a shortcut and rectifies, in one pass over memory.

    Where the layer has few output channels, several neighbouring pixels are computed as channels
    of one wide pixel. Channels-last memory holds them in that very order, so the result is a view.
    """

    def __init__(self, layer: nn.Conv2d, fusion: _Fusion) -> None:
        super().__init__()
        self._stride = [int(step) for step in layer.stride]
        self._padding = [int(pad) for pad in layer.padding]
        self._dilation = list(layer.dilation)
        self._groups = layer.groups
        self._weight = layer.weight
        self._bias = layer.bias
        self._rectified = fusion.rectified
        self._channels = layer.out_channels
        self._wide: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._pixels = 1 if fusion.adds else _pixels_at_once(layer)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """The layer's output, plus ``shortcut`` where given, rectified where the plan says so."""
        if x.shape[1] == 1:
            # The strides of one channel do not tell its memory format, and oneDNN guesses wrong.
            return self._unfused(x, shortcut)
        if shortcut is not None:
            if not self._fits(x, shortcut):
                return self._unfused(x, shortcut)
            return fused_convolution_and_sum(
                x,
                shortcut,
                self._weight,
                self._bias,
                stride=self._stride,
                padding=self._padding,
                dilation=self._dilation,
                groups=self._groups,
                rectified=self._rectified,
            )
        pixels = self._pixels
        while x.shape[3] % pixels:
            pixels -= 1
        if pixels == 1 or not x.is_contiguous(memory_format=torch.channels_last):
            return self._convolve(x, self._weight, self._bias, self._stride)
        if pixels not in self._wide:
            self._wide[pixels] = _widened(self._weight, self._bias, pixels)
        weight, bias = self._wide[pixels]
        wide = self._convolve(x, weight, bias, [self._stride[0], pixels])
        images, _, height, columns = wide.shape
        rows_first = wide.permute(0, 2, 3, 1).reshape(
            images, height, columns * pixels, self._channels
        )
        return rows_first.permute(0, 3, 1, 2)

    def _fits(self, x: Tensor, shortcut: Tensor) -> bool:
        """Whether a summand has the output's very shape, so that nothing is broadcast."""
        size = [
            (length + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for length, padding, dilation, kernel, stride in zip(
                x.shape[2:],
                self._padding,
                self._dilation,
                self._weight.shape[2:],
                self._stride,
                strict=True,
            )
        ]
        return (*shortcut.shape,) == (len(x), self._channels, *size) and shortcut.dtype == x.dtype

    def _unfused(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        output = nn.functional.conv2d(
            x,
            self._weight,
            self._bias,
            self._stride,
            self._padding,
            self._dilation,
            self._groups,
        )
        if shortcut is not None:
            output = output + shortcut
        return output.relu() if self._rectified else output

    def _convolve(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int]
    ) -> Tensor:
        return fused_convolution(
            x,
            weight,
            bias,
            stride=stride,
            padding=self._padding,
            dilation=self._dilation,
            groups=self._groups,
            rectified=self._rectified,
        )


def _pixels_at_once(layer: nn.Conv2d) -> int:
    """Neighbouring pixels that are cheapest to compute as channels of one.

    The cost of a pixel is the channels that oneDNN computes for it times the kernel's width, which
    grows by one with every further pixel.
    """
    if (
        # oneDNN's AMX kernels read memory that is not theirs where one stride is 4 or 8 and the
        # other is 1 (seen in 3.13.3), and gain hardly anything from wide pixels.
        (layer.weight.dtype == torch.bfloat16 and torch.cpu.get_capabilities().get("amx_tile"))
        or layer.groups != 1
        or layer.stride[1] != 1
        or layer.dilation != (1, 1)
        or layer.kernel_size[1] != 2 * int(layer.padding[1]) + 1
    ):
        return 1

    def cost(pixels: int) -> float:
        channels = -(-pixels * layer.out_channels // _CHANNEL_BLOCK) * _CHANNEL_BLOCK
        return channels * (layer.kernel_size[1] + pixels - 1) / pixels

    # Powers of two divide the usual image widths.
    return min((1, 2, 4, _MOST_PIXELS), key=lambda pixels: (cost(pixels), pixels))


def _widened(weight: Tensor, bias: Tensor | None, pixels: int) -> tuple[Tensor, Tensor | None]:
    """Weights [pixels * out, in, kh, kw + pixels - 1] that compute ``pixels`` columns at once."""
    outputs, inputs, height, width = weight.shape
    wide = weight.new_zeros((pixels, outputs, inputs, height, width + pixels - 1))
    for pixel in range(pixels):
        wide[pixel, :, :, :, pixel : pixel + width] = weight
    flat = wide.reshape(pixels * outputs, inputs, height, width + pixels - 1)
    return (
        flat.contiguous(memory_format=torch.channels_last),
        None if bias is None else bias.repeat(pixels),
    )


def _is_fusible(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    layer = modules.get(str(node.target)) if node.op == "call_module" else None
    return (
        type(layer) is nn.Conv2d
        and isinstance(adapter_of(layer), ConvolutionAdapter)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and len(node.args) == 1
        and sum(other.target == node.target for other in node.graph.nodes) == 1
    )


def _fuse(graph: fx.Graph, node: fx.Node, modules: dict[str, nn.Module]) -> _Fusion:
    """Let a convolution's call take over the sum and the rectifier that follow it."""
    last = node
    follower = _only_user(last)
    adds = False
    if follower is not None and _is_sum(follower, node):
        shortcut = next(each for each in follower.args if each is not node)
        if isinstance(shortcut, fx.Node):
            # The call moves to where its shortcut is known.
            follower.prepend(node)
            follower.replace_all_uses_with(node)
            node.args = (node.args[0], shortcut)
            graph.erase_node(follower)
            adds = True
    follower = _only_user(node)
    rectified = follower is not None and _is_rectifier(follower, modules)
    if rectified and follower is not None:
        follower.replace_all_uses_with(node)
        graph.erase_node(follower)
    return _Fusion(rectified, adds)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_sum(node: fx.Node, summand: fx.Node) -> bool:
    """Whether a call adds something to ``summand``, and nothing else sees what it overwrites."""
    named = getattr(node.target, "__name__", node.target)
    if (
        not (
            (node.op == "call_function" and named in ("add", "iadd"))
            or (node.op == "call_method" and named in ("add", "add_"))
        )
        or len(node.args) != 2
        or node.kwargs
        or node.args[0] is node.args[1]
    ):
        return False
    return named == "add" or node.args[0] is summand


def _is_rectifier(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        module = modules[str(node.target)]
        return type(module) is nn.ReLU and is_unaltered(module)
    return node.op == "call_function" and node.target in (
        torch.relu,
        torch.relu_,
        nn.functional.relu,
    )


def _drop_identities(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    for node in list(graph.nodes):
        if node.op != "call_module":
            continue
        module = modules[str(node.target)]
        if type(module) is nn.Identity and is_unaltered(module) and len(node.args) == 1:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _hollow_copy(module: nn.Module) -> nn.Module:
    """A module tree with the same children, in dictionaries of its own."""
    # Not copy.copy: that of an fx.GraphModule compiles it anew and keeps the source for ever.
    duplicate: nn.Module = object.__new__(type(module))
    duplicate.__dict__ = dict(module.__dict__)
    duplicate._modules = {
        name: None if child is None else (_hollow_copy(child) if child._modules else child)
        for name, child in module._modules.items()
    }
    return duplicate


def _has(module: nn.Module, name: str) -> bool:
    try:
        module.get_submodule(name)
    except AttributeError:
        return False
    return bool(name)
