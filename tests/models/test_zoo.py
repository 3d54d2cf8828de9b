"""Networks by name: sizes known from papers, shapes, and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from prunetune.errors import NetworkError, PluginError, UnknownNameError
from prunetune.models.zoo import NETWORKS, PadShortcut, build_network, check_network
from torch import nn


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # He et al. 2015, table 6, says 0.27M, 0.46M, 0.66M, 0.85M, 1.7M.
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
        ("vgg16bn", 14_728_266),
        # Counted by hand: torchvision's resnet18 less the 7x7 stem, plus a 3x3 one, 10 classes.
        ("resnet18", 11_689_512 - 9_408 + 1_728 - 513_000 + 5_130),
        # torchvision's mobilenet_v2, 10 classes instead of 1000: strides have no parameters.
        ("mobilenetv2", 3_504_872 - 1_281_000 + 12_810),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, parameters: int) -> None:
    network = build_network(name, 10, (3, 32, 32))
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
def test_networks_adapt_to_classes_and_input(name: str, shape: tuple[int, int, int]) -> None:
    network = build_network(name, 7, shape)
    assert not network.training
    assert network(torch.rand(2, *shape)).shape == (2, 7)


def test_small_images_pass_through_vgg_and_digits_net() -> None:
    for name in ("vgg11bn", "digits-net"):
        assert build_network(name, 10, (1, 8, 8))(torch.rand(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_activation_is_a_module_of_its_own_and_out_of_place(name: str) -> None:
    network = build_network(name, 10, (3, 32, 32))
    calls: dict[nn.Module, int] = {}
    for module in network.modules():
        if isinstance(module, nn.ReLU | nn.ReLU6):
            assert not module.inplace
            calls[module] = 0
            module.register_forward_hook(lambda m, i, o: calls.update({m: calls[m] + 1}))
    network(torch.rand(1, 3, 32, 32))
    assert calls
    assert set(calls.values()) == {1}


def test_mobilenet_stem_keeps_the_resolution() -> None:
    network = build_network("mobilenetv2", 10, (3, 32, 32))
    features = network.get_submodule("features")
    assert features(torch.rand(1, 3, 32, 32)).shape[2:] == (4, 4)


def test_pad_shortcut_is_option_a() -> None:
    x = torch.rand(2, 16, 8, 8)
    y = PadShortcut(16, 32, 2)(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


def test_pad_shortcut_follows_any_source() -> None:
    shortcut = PadShortcut(4, 6, 2)
    shortcut.source = (2, -1, 0, 0, -1)
    x = torch.rand(3, 4, 6, 6)
    y = shortcut(x)
    picked = x[:, :, ::2, ::2]
    zeros = torch.zeros_like(picked[:, 0])
    expected = torch.stack([picked[:, 2], zeros, picked[:, 0], picked[:, 0], zeros], 1)
    assert torch.equal(y, expected)
    shortcut.source = (-1, -1)
    assert torch.equal(shortcut(x), torch.zeros(3, 2, 3, 3))


def test_torchvision_by_name() -> None:
    network = build_network("torchvision:resnet18", 5, (1, 64, 64))
    assert network(torch.rand(1, 1, 64, 64)).shape == (1, 5)
    with pytest.raises(UnknownNameError, match="resnet50"):
        build_network("torchvision:resnet5o", 5, (3, 64, 64))


def test_unknown_network_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'resnet56'"):
        build_network("resnet-56", 10, (3, 32, 32))


def test_users_function_gets_what_it_asks_for(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n"
        "def both(num_classes, input_shape):\n"
        "    pixels = input_shape[0] * input_shape[1] * input_shape[2]\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, num_classes))\n"
        "def classes(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
        "def nothing():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
        "def number(): return 3\n"
        "def needy(depth): return nn.Identity()\n"
        "def broken(): raise RuntimeError('no such thing')\n"
    )
    for name in ("both", "classes", "nothing"):
        network = build_network(f"{file}:{name}", 10, (1, 8, 8))
        assert network(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    for name, message in {
        "number": "returned a int; it must return a torch.nn.Module",
        "needy": "needs depth",
        "broken": "RuntimeError: no such thing",
    }.items():
        with pytest.raises(NetworkError, match=message):
            build_network(f"{file}:{name}", 10, (1, 8, 8))
    with pytest.raises(PluginError, match="did you mean 'nothing'"):
        build_network(f"{file}:nothin", 10, (1, 8, 8))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Conv2d(5, 3, 1), "cannot run on 1x8x8 images"),
        (nn.Conv2d(1, 3, 1), "must return logits"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), "has 4 outputs but 'digits' has 10"),
        (nn.LSTM(8, 8), "cannot run|returns a tuple"),
    ],
)
def test_networks_that_do_not_fit_are_named(network: nn.Module, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        check_network(network, torch.rand(2, 1, 8, 8), 10, model="mine", data="digits")


def test_network_with_nan_is_refused() -> None:
    network = build_network("digits-net", 10, (1, 8, 8))
    with torch.no_grad():
        next(network.parameters())[0, 0, 0, 0] = float("nan")
    with pytest.raises(NetworkError, match="NaN"):
        check_network(network, torch.rand(2, 1, 8, 8), 10, model="mine", data="digits")
