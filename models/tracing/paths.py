"""Every way through a network that the values of its images may decide."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import NetworkError
from .passes import Answer, Call, Pass, Scalar, label_ranges, run_pass

__all__ = ["follow_channels"]

# What the network is told instead of a number that it asks for: one that is small, and a large one.
_SMALL, _LARGE = (False, 0, -1e30), (True, 1 << 16, 1e30)
# As many questions are answered otherwise one by one; all together they always are.
_QUESTIONS = 8
# A way that is this much longer than the first one, and more, is not followed to its end.
_LONGER, _MORE = 4, 1000
_UNDECIDED = "which is used as the values of the images decide"


def follow_channels(network: nn.Module, example_input: Tensor) -> tuple[Pass, dict[str, str]]:
    """Follow the channels of a network on every way that it may take.

    A network asks for numbers where it branches on values. It is run again with other answers. On
    other images it is run too, because a network may look at values where nobody notices.

    Args:
        network: In evaluation mode; it is not changed.
        example_input: Images [n, C, H, W] that the network accepts.

    Returns:
        What the pass on the example shows, with what the others found of labels; and why layers
        must be left alone that the network uses in one way or another, by name.

    Raises:
        NetworkError: If the network does not accept the images.
    """
    ranges = label_ranges(network)
    first = run_pass(network, example_input, ranges)
    if first.error is not None:
        error = first.error
        raise NetworkError(
            f"The network does not accept images of shape {tuple(example_input.shape[1:])}: "
            f"{type(error).__name__}: {error}"
        ) from error
    noise = torch.randn(example_input.shape, generator=torch.Generator().manual_seed(0))
    inputs = [torch.zeros_like(example_input), 3 * noise.to(example_input)]
    passes = [(run_pass(network, images, ranges), False) for images in inputs]
    most = _LONGER * first.steps + _MORE
    for answer in _other_answers(first.asked):
        found = run_pass(network, example_input, ranges, answer, most)
        # A network that gives up when it is told yes or no would do so by itself. Numbers that it
        # never sees may well make it fail.
        forced = any(not isinstance(each, bool) for each in found.asked)
        passes.append((found, forced))
    undecided: dict[str, str] = {}
    for found, forced in passes:
        first.findings.join(found.findings)
        first.outside |= found.outside
        if found.error is None or forced:
            for layer in dict.fromkeys([*first.calls, *found.calls]):
                usual, calls = first.calls.get(layer, []), found.calls.get(layer, [])
                if [call.sizes for call in usual] != [call.sizes for call in calls]:
                    undecided[layer] = _UNDECIDED
                elif all(map(_read_the_same, usual, calls)):
                    continue
                for call in [*usual, *calls]:
                    first.findings.fix(call.read, f"it runs through {layer}, {_UNDECIDED}")
    return first, undecided


def _other_answers(asked: list[Scalar]) -> list[Answer]:
    """Answers that may lead elsewhere than the true ones."""
    if not asked:
        return []

    def always(answers: tuple[bool, int, float]) -> Answer:
        return lambda place, number: answers[[bool, int, float].index(type(number))]

    def once(at: int, answers: tuple[bool, int, float]) -> Answer:
        return lambda place, number: always(answers)(place, number) if place == at else number

    alone = range(min(len(asked), _QUESTIONS)) if len(asked) > 1 else ()
    return [
        always(_SMALL),
        always(_LARGE),
        *(once(at, answers) for at in alone for answers in (_SMALL, _LARGE)),
    ]


def _read_the_same(one: Call, other: Call) -> bool:
    return np.array_equal(one.read, other.read)
