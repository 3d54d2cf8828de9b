"""Layer adapters: what there is to know about one kind of layer, one file each.

Importing a file registers its adapter, so a new kind of layer is a new file and a line here.
"""

from __future__ import annotations

from .adapter import (
    LayerAdapter,
    LayerFacts,
    adapter_of,
    averages,
    description,
    is_unaltered,
    multiplies,
    own_copy,
)
from .batchnorm import BatchNorm, BatchNormAdapter
from .convolution import ConvolutionAdapter, is_depthwise
from .group_norm import GroupNormAdapter
from .instance_norm import InstanceNormAdapter
from .layer_norm import LayerNormAdapter
from .linear import LinearAdapter
from .pad_shortcut import PadShortcutAdapter
from .prelu import PReLUAdapter
from .ties import tied_layers

__all__ = [
    "BatchNorm",
    "BatchNormAdapter",
    "ConvolutionAdapter",
    "GroupNormAdapter",
    "InstanceNormAdapter",
    "LayerAdapter",
    "LayerFacts",
    "LayerNormAdapter",
    "LinearAdapter",
    "PReLUAdapter",
    "PadShortcutAdapter",
    "adapter_of",
    "averages",
    "description",
    "is_depthwise",
    "is_unaltered",
    "multiplies",
    "own_copy",
    "tied_layers",
]
