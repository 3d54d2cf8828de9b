"""K-FAC: factors against loops over single images, costs against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prunetune.models.criteria import Evidence
from prunetune.models.criteria.curvature import Factors, kronecker_factors, largest_eigenvalue
from prunetune.models.criteria.kfac import Kfac, flatness_gains, neuron_costs
from torch import Tensor, nn
from torch.nn import functional

from .networks import OWN_NETWORKS, images_for, traced_own


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1, stride=2)
        self.act = nn.ReLU(inplace=True)
        self.linear = nn.Linear(3 * 9, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.act(self.conv(x)).flatten(1))


def _network() -> nn.Module:
    torch.manual_seed(0)
    return _Small().eval().requires_grad_(False)


def test_factors_equal_loops_over_images_and_places() -> None:
    network = _network()
    images = torch.randn(5, 2, 6, 6)
    found = kronecker_factors(network, ["conv", "linear"], images, seed=3, places=9, batch_size=5)
    # The labels that the same generator draws from the network's predictions.
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        labels = torch.multinomial(network(images).softmax(1), 1, generator=generator)[:, 0]
    conv, linear = network.conv, network.linear
    reads = torch.zeros(19, 19, dtype=torch.float64)
    writes = torch.zeros(3, 3, dtype=torch.float64)
    head_reads = torch.zeros(28, 28, dtype=torch.float64)
    head_writes = torch.zeros(4, 4, dtype=torch.float64)
    for image, label in zip(images, labels, strict=True):
        before = conv(image[None]).requires_grad_()
        hidden = before.relu().flatten(1)
        logits = linear(hidden)
        loss = functional.cross_entropy(logits, label[None])
        at_conv, at_head = torch.autograd.grad(loss, [before, logits])
        patches = functional.unfold(image[None], 3, padding=1, stride=2)[0].T.double()
        for place, patch in enumerate(patches):
            vector = torch.cat([patch, patch.new_ones(1)])
            reads += torch.outer(vector, vector) / 5
            gradient = at_conv[0].flatten(1)[:, place].double()
            writes += torch.outer(gradient, gradient) / (5 * 9)
        vector = torch.cat([hidden[0].double(), torch.ones(1, dtype=torch.float64)])
        head_reads += torch.outer(vector, vector).detach() / 5
        head_writes += torch.outer(at_head[0], at_head[0]).double() / 5
    for name, expected in (("conv", (reads, writes)), ("linear", (head_reads, head_writes))):
        assert torch.allclose(found[name].inputs, expected[0], atol=1e-6)
        assert torch.allclose(found[name].outputs, expected[1], atol=1e-8)


def test_one_linear_layer_has_its_exact_fisher_matrix_in_expectation() -> None:
    """With a single image and one layer, the block is A (x) E G, over all labels."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval().requires_grad_(False)
    image = torch.randn(1, 1, 2, 2)
    with torch.no_grad():
        chances = network(image).softmax(1)[0].double()
    exact = torch.diag(chances) - torch.outer(chances, chances)
    many = image.expand(20_000, -1, -1, -1)
    found = kronecker_factors(network, ["1"], many, seed=0, batch_size=20_000)["1"]
    assert torch.allclose(found.outputs, exact, atol=0.01)
    vector = torch.cat([image.flatten().double(), torch.ones(1, dtype=torch.float64)])
    assert torch.allclose(found.inputs, torch.outer(vector, vector), atol=1e-5)
    whole = torch.kron(found.inputs, found.outputs)
    radius = largest_eigenvalue(found.inputs) * largest_eigenvalue(found.outputs)
    assert radius == pytest.approx(largest_eigenvalue(whole))


def test_the_cost_of_a_neuron_is_half_the_quadratic_form_of_its_block() -> None:
    torch.manual_seed(1)
    layer = nn.Linear(4, 3)
    draw = torch.randn(5, 5, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    factors = Factors(draw[0] @ draw[0].T, draw[1] @ draw[1].T)
    fisher = torch.kron(factors.outputs, factors.inputs)
    whole = torch.cat([layer.weight, layer.bias[:, None]], dim=1).double().detach()
    for index in range(3):
        change = torch.zeros_like(whole)
        change[index] = -whole[index]
        expected = 0.5 * change.flatten() @ fisher @ change.flatten()
        assert neuron_costs(layer, factors)[index].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("outputs", [6, 140])
def test_gains_are_what_the_largest_eigenvalue_loses(outputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(outputs, 3, generator=generator, dtype=torch.float64)
    matrix = draw @ draw.T
    gains = flatness_gains(Factors(torch.eye(2, dtype=torch.float64), matrix))
    whole = np.linalg.eigvalsh(matrix.numpy())[-1]
    for index in range(0, outputs, 7):
        rest = np.delete(np.delete(matrix.numpy(), index, 0), index, 1)
        exact = 1 - np.linalg.eigvalsh(rest)[-1] / whole
        assert exact - 1e-9 <= gains[index].item() <= exact + 0.02
    assert float(gains.min()) >= 0.0


@pytest.mark.parametrize("name", sorted(OWN_NETWORKS))
def test_flatness_moves_the_scores_and_leaves_the_network(name: str) -> None:
    network, groups = traced_own(name)
    evidence = Evidence(network, images_for(groups, 12), {}, {}, 0)
    group = next(iter(groups))
    plain = Kfac(flatness=0.0).scores(group, evidence)
    flat = Kfac(flatness=1.0).scores(group, evidence)
    assert plain.shape == flat.shape == (group.size,)
    assert np.isfinite(plain).all() and (plain >= 0).all()
    assert (flat <= plain + 1e-12).all()
    assert not any(module._forward_hooks for module in network.modules())
