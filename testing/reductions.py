"""The conformance check of reductions."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from ..models.reductions.reduction import Reduction
from ..models.space import Candidate, SearchSpace
from .expecting import expect

__all__ = ["check_reduction"]

# Of the largest output; float64 leaves seven digits to what sums in another order.
_TOLERANCE = 1e-9
_IMAGES = 3


def check_reduction(
    reduction: Reduction, network: nn.Module, example_input: Tensor, count: int = 8, seed: int = 0
) -> None:
    """Make sure that a reduction can be trusted in a search.

    It must be a ``Reduction`` of a kind, with decisions of that kind and names of their own. With
    weights drawn anew and in float64, the network that it makes of a candidate must give the
    outputs of its oracle; the candidate that keeps everything must change no output; and the
    network that it is given must stay as it is.

    Args:
        reduction: The reduction, as an object, made for the network.
        network: The dense network, in evaluation mode; it is not changed.
        example_input: Images [n, C, H, W] that the network accepts.
        count: How many random candidates are looked at, beside the smallest one.
        seed: Seeds candidates, weights and images.

    Raises:
        AssertionError: With one sentence, at the first thing that is wrong.
    """
    expect(
        isinstance(reduction, Reduction),
        f"{reduction!r} is not an object of a subclass of prunetune.models.Reduction.",
    )
    space = _space_of(reduction)
    generator = torch.Generator().manual_seed(seed)
    dense = _drawn_anew(network, generator)
    shape = (_IMAGES, *example_input.shape[1:])
    images = torch.randn(shape, generator=generator, dtype=torch.float64)
    rng = np.random.default_rng(seed)
    rows = rng.integers(space.smallest, space.sizes + 1, size=(count, len(space)))
    candidates = [tuple(int(value) for value in row) for row in (space.smallest, *rows)]
    with torch.inference_mode():
        whole = dense(images)
        expect(
            _equal(_applied(reduction, dense, space.dense)(images), whole),
            f"{reduction.kind!r} changes the outputs of a network that keeps everything.",
        )
        for candidate in candidates:
            expected = reduction.oracle(dense, candidate)(images)
            expect(
                _equal(_applied(reduction, dense, candidate)(images), expected),
                f"The network that {reduction.kind!r} makes of {candidate} does not give the "
                "outputs of its oracle.",
            )
        expect(
            torch.equal(dense(images), whole),
            f"{reduction.kind!r} changes the network that it is given.",
        )


def _space_of(reduction: Reduction) -> SearchSpace:
    kind = getattr(reduction, "kind", None)
    expect(isinstance(kind, str) and bool(kind), f"{type(reduction).__name__} has no kind.")
    decisions = reduction.decisions
    expect(bool(decisions), f"{kind!r} has no decisions for this network.")
    for each in decisions:
        expect(
            each.kind == kind, f"The decision {each.name} of {kind!r} is of the kind {each.kind!r}."
        )
    try:
        return SearchSpace(tuple(decisions))
    except ValueError as error:
        raise AssertionError(f"The decisions of {kind!r} make no space: {error}.") from error


def _applied(reduction: Reduction, network: nn.Module, candidate: Candidate) -> nn.Module:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    reduced = reduction.apply(network, candidate)
    after = network.state_dict()
    expect(
        before.keys() == after.keys()
        and all(torch.equal(after[key], value) for key, value in before.items())
        and not network.training,
        f"{reduction.kind!r} changes the network that it is given.",
    )
    return reduced


def _drawn_anew(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy in float64 with other weights, in which a slip in indexing shows."""
    drawn = copy.deepcopy(network).double().eval().requires_grad_(False)

    def uniform(values: Tensor, low: float, high: float) -> None:
        values.copy_(low + (high - low) * torch.rand(values.shape, generator=generator))

    for key, values in (*drawn.named_parameters(), *drawn.named_buffers()):
        if not values.is_floating_point():
            continue
        if values.dim() > 1:
            # The deviation that keeps activations as large as they are (He et al. 2015).
            deviation = (2 / max(1, values[0].numel())) ** 0.5
            values.copy_(deviation * torch.randn(values.shape, generator=generator))
        elif key.endswith("running_var") or key.endswith("weight"):
            uniform(values, 0.5, 1.5)
        else:
            uniform(values, -0.5, 0.5)
    return drawn


def _equal(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    scale = float(expected.abs().max()) + np.finfo(np.float64).tiny
    return bool((found - expected).abs().max() <= _TOLERANCE * scale)
