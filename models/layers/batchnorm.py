"""BatchNorm of vectors and of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .adapter import Channels, LayerFacts, own_copy, register
from .roles import AveragingAdapter

__all__ = ["BatchNorm", "BatchNormAdapter"]

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm


class BatchNormAdapter(AveragingAdapter[BatchNorm]):
    """Normalises every channel by itself."""

    def channels(self, layer: BatchNorm) -> tuple[int, int]:
        """What it reads is what it writes."""
        return layer.num_features, layer.num_features

    def facts(self, layer: BatchNorm) -> LayerFacts:
        """Its row of a cost table."""
        return LayerFacts(kind="norm", bias=layer.affine)

    def slim(
        self, layer: BatchNorm, outputs: Channels | None, inputs: Channels | None
    ) -> BatchNorm:
        """A BatchNorm of fewer channels."""
        slimmed: BatchNorm = own_copy(layer, outputs)
        if outputs is not None:
            slimmed.num_features = len(outputs)
        return slimmed

    def mean(self, layer: BatchNorm) -> Tensor:
        """The running mean."""
        assert layer.running_mean is not None
        return layer.running_mean

    def scale(self, layer: BatchNorm) -> Tensor:
        """The weight over the running deviation."""
        assert layer.running_var is not None
        scale = (layer.running_var + layer.eps).rsqrt()
        return scale * layer.weight if layer.affine else scale

    def shift(self, layer: BatchNorm) -> Tensor:
        """The bias, or zeros."""
        return layer.bias if layer.affine else torch.zeros_like(self.mean(layer))

    def is_adjustable(self, layer: BatchNorm) -> bool:
        """Whether it is affine and has running statistics."""
        return layer.affine and layer.track_running_stats

    def rescale(self, layer: BatchNorm, scale: Tensor, shift: Tensor) -> None:
        """By its weight and bias."""
        layer.weight.mul_(scale)
        layer.bias.mul_(scale).add_(shift)

    def blank_input(self, layer: BatchNorm, channels: int, size: tuple[int, int]) -> Tensor:
        """Zeros [1, C, H, W], or [1, C] for vectors."""
        return torch.zeros(1, channels, *(() if type(layer) is nn.BatchNorm1d else size))


register(nn.BatchNorm1d, BatchNormAdapter())
register(nn.BatchNorm2d, BatchNormAdapter())
# In one process it computes what the others do; distributed training leaves it behind.
register(nn.SyncBatchNorm, BatchNormAdapter())
