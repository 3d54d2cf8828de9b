"""Layers of a user's own that look like PyTorch's and compute something else."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["BatchNormAct", "LayersOfOneOwn", "StandardisedConv"]


class BatchNormAct(nn.BatchNorm2d):
    """BatchNorm and a rectifier in one, as timm has it."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise and rectify."""
        return super().forward(x).relu()


class StandardisedConv(nn.Conv2d):
    """A convolution that standardises its filters (Qiao et al. 2019, arXiv 1903.10520)."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with filters of mean 0 and deviation 1."""
        mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
        deviation = self.weight.std(dim=(1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / (deviation + 1e-5)
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class LayersOfOneOwn(nn.Module):
    """Both of them among plain layers, where they could be taken for plain ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.act = BatchNormAct(8)
        self.standardised = StandardisedConv(8, 10, 3, padding=1)
        self.norm = nn.BatchNorm2d(10)
        self.last = nn.Conv2d(10, 12, 3, padding=1, bias=False)
        self.last_norm = nn.BatchNorm2d(12)
        self.linear = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        x = self.act(self.stem(x))
        x = self.norm(self.standardised(x)).relu()
        x = self.last_norm(self.last(x)).relu()
        return self.linear(torch.flatten(x.mean(dim=(2, 3)), 1))
