"""Networks as training left them: wrapped, or insisting on how images lie in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from prunetune.models import TrainingSpec, build_network, load_weights, save_weights, train
from prunetune.models.data import Data, LabelledImages
from prunetune.models.data.given import given_images
from prunetune.models.live import make_live_task, own_copy
from prunetune.models.progress import SilentProgress
from prunetune.models.training import accuracy
from torch import Tensor, nn

_FILE = """
from torch import nn

def wrapped():
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)]
    return nn.DataParallel(nn.Sequential(*layers))
"""


class _Heard(SilentProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


def _images(count: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((count, 1, 8, 8), generator=generator)
    return images, torch.arange(count) % 10


def _network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)]
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: nn.DataParallel(torch.compile(net))])
def test_a_wrapped_network_is_what_is_inside(wrap: type[nn.DataParallel]) -> None:
    inside, (images, labels) = _network(), _images()
    live = make_live_task(wrap(inside), (images, labels), (images, labels))
    assert live.network.state_dict().keys() == inside.state_dict().keys()
    assert live.name == "Sequential" and live.note is not None and "DataParallel" in live.note
    with torch.no_grad():
        assert torch.equal(own_copy(wrap(inside))(images), inside(images))


def test_a_file_that_wraps_its_network_is_told_so_and_its_weights_load(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(_FILE)
    heard = _Heard()
    network = build_network(f"{file}:wrapped", 10, (1, 8, 8), heard)
    assert type(network) is nn.Sequential
    assert len(heard.said) == 1 and "DataParallel" in heard.said[0]
    saved = nn.DataParallel(_network()).state_dict()
    save_weights(saved, tmp_path / "weights.safetensors")
    load_weights(network, tmp_path / "weights.safetensors")
    assert torch.equal(network[0].weight, saved["module.0.weight"])


class _Views(nn.Module):
    """Reads maps by ``view``, which wants the usual order of memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu()
        return self.head(x.view(x.shape[0], -1))


def test_a_network_that_views_maps_is_trained_and_measured() -> None:
    images, labels = _images()
    source = given_images((images, labels), "train")
    data = Data("views", source, source, 10, (1, 8, 8), (), ())
    torch.manual_seed(0)
    network, teacher = _Views(), _Views().eval()
    spec = TrainingSpec(epochs=30, batch_size=16, distillation=0.1, augment=False)
    indices = torch.arange(len(images)).numpy()
    losses = train(network, data, indices, spec, 0, teacher=teacher)
    assert losses[-1] < losses[0]
    network.train()
    found = accuracy(network, LabelledImages(images, labels))
    assert network.training and network.norm.training
    with torch.no_grad():
        expected = float((network.eval()(images).argmax(1) == labels).float().mean())
    assert found == pytest.approx(expected)
