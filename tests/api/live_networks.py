"""A small network of the user's own on scikit-learn's digits, as a notebook would have it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from prunetune.rewards import Evaluation, Reward
from sklearn.datasets import load_digits
from torch import Tensor, nn

SIZES = {"features.0": 12, "features.3": 16}


class SmallNet(nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(inplace=True),
            nn.Conv2d(12, 16, 3, padding=1, stride=2),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
        )
        self.classifier = nn.Linear(16, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, classes] of images [N, 1, H, W]."""
        return self.classifier(self.features(images).mean((2, 3)))


class Frugal(Reward):
    """Accuracy, and a little for few parameters."""

    name = "frugal"
    measures = ("accuracy",)

    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        """The accuracy, and a twentieth of the parameters that are saved."""
        return evaluation.measures["accuracy"] + 0.05 * (1 - evaluation.costs["params"])


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Train and test images, float32 [N, 1, 8, 8] around 0, with labels."""
    data = load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 8 - 1
    labels = torch.from_numpy(data.target).long()
    return (images[:1300], labels[:1300]), (images[1300:], labels[1300:])


def trained(epochs: int = 12) -> SmallNet:
    """A trained network; the same on every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SmallNet()
        (images, labels), _ = digits()
        optimizer = torch.optim.Adam(network.parameters(), 0.01)
        for _ in range(epochs):
            for chosen in torch.randperm(len(images)).split(64):
                loss = nn.functional.cross_entropy(network(images[chosen]), labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return network.eval()


def parameters(network: nn.Module) -> Mapping[str, Tensor]:
    """A copy of a network's weights."""
    return {name: value.clone() for name, value in network.state_dict().items()}
