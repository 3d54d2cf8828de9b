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
from .roles import AveragingAdapter, MultiplyingAdapter, averager_of, multiplier_of
from .sites import Sites, sample_sites
from .ties import tied_layers

__all__ = [
    "AveragingAdapter",
    "BatchNorm",
    "BatchNormAdapter",
    "ConvolutionAdapter",
    "GroupNormAdapter",
    "InstanceNormAdapter",
    "LayerAdapter",
    "LayerFacts",
    "LayerNormAdapter",
    "LinearAdapter",
    "MultiplyingAdapter",
    "PReLUAdapter",
    "PadShortcutAdapter",
    "Sites",
    "adapter_of",
    "averager_of",
    "averages",
    "description",
    "is_depthwise",
    "is_unaltered",
    "multiplier_of",
    "multiplies",
    "own_copy",
    "sample_sites",
    "tied_layers",
]
