"""A budget of your own: FLOPs on hardware that computes channels in blocks of eight."""

from math import ceil

import torch
from torch import Tensor, nn

BLOCK = 8


def padded_flops(network: nn.Module, example_input: Tensor) -> float:
    """FLOPs of all convolutions with channel counts rounded up to whole blocks.

    Use it as ``budgets: {"padded_flops.py:padded_flops": 0.5}``, half of the dense network's.

    Args:
        network: A candidate, float32, in evaluation mode; it is a copy, so it may be changed.
        example_input: One image [1, C, H, W].
    """
    total = 0

    def count(layer: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        ins, outs = (BLOCK * ceil(c / BLOCK) for c in (layer.in_channels, layer.out_channels))
        total += 2 * ins * outs * layer.weight[0, 0].numel() * output[0, 0].numel()

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        network(example_input)
    return float(total)
