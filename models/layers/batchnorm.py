"""BatchNorm of vectors and of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .adapter import Channels, LayerAdapter, LayerFacts, own_copy, register

__all__ = ["BatchNorm", "BatchNormAdapter"]

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm


class BatchNormAdapter(LayerAdapter[BatchNorm]):
    """Normalises every channel by itself."""

    averages = True

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

    def blank_input(self, layer: BatchNorm, channels: int, size: tuple[int, int]) -> Tensor:
        """Zeros [1, C, H, W], or [1, C] for vectors."""
        return torch.zeros(1, channels, *(() if type(layer) is nn.BatchNorm1d else size))


register(nn.BatchNorm1d, BatchNormAdapter())
register(nn.BatchNorm2d, BatchNormAdapter())
# In one process it computes what the others do; distributed training leaves it behind.
register(nn.SyncBatchNorm, BatchNormAdapter())
