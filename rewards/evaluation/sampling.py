"""Which validation images candidates are evaluated on, where that is not all of them.

Most validation images say nothing: every candidate worth looking at classifies them right, as the
dense network does. So images are drawn with unequal probabilities, larger where pruned networks
differ, and each stands for as many as its probability says (Horvitz & Thompson 1952): means over
all images are estimated without bias, whatever the probabilities were guessed from.

The design is stratified sampling. Images are sorted by the deviation that a few reference
candidates let us anticipate, cut into strata of equal sums of it (the equal aggregate sigma rule,
Wright 1983; Särndal, Swensson & Wretman 1992, chapter 12), and each stratum's share of the sample
is Neyman's (1934), in whole numbers as Wright (2017) has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import SpecError

__all__ = [
    "Sample",
    "anticipated_deviations",
    "check_count",
    "draw_sample",
    "join",
    "standard_error",
]

Floats = NDArray[np.float64]

# More strata gain nothing, and leave too few images in each to estimate its variance from.
_MOST_STRATA = 20
_FEWEST_PER_STRATUM = 2
# Of a mean square of 3: an image that all references agree on is not certain for candidates.
_FLOOR = 0.01


@dataclass(frozen=True)
class Sample:
    """Validation images that were drawn.

    Attributes:
        indices: Positions among the validation images, ascending, int64 ``[n]``.
        weights: How many validation images each stands for, at least 1, float64 ``[n]``: the
            inverse of its inclusion probability. They sum to the number of validation images.
        strata: The stratum it was drawn from, int64 ``[n]``; all images of a stratum have the same
            weight.
    """

    indices: NDArray[np.int64]
    weights: Floats
    strata: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.indices)

    def __getitem__(self, part: slice) -> Sample:
        """The images of one batch."""
        return Sample(self.indices[part], self.weights[part], self.strata[part])


def join(parts: Sequence[Sample]) -> Sample:
    """The sample that batches were cut from."""
    fields = ((part.indices, part.weights, part.strata) for part in parts)
    indices, weights, strata = (np.concatenate(field) for field in zip(*fields, strict=True))
    return Sample(indices, weights, strata)


def anticipated_deviations(right: Floats, confidence: Floats, divergence: Floats) -> Floats:
    """How much candidates can be expected to differ on each image (our choice).

    ``sqrt(a + d + f)`` of three squares, each with mean 1 over images for every reference and then
    averaged over references: ``a`` and ``d``, the squared deviation of accuracy and of divergence
    from their means over images, which the variance of a stratified mean consists of, and
    ``f = p (1 - p)``, the variance of an answer that is right with the probability ``p`` that the
    reference gives it: images whose answers flip tell candidates apart.

    Args:
        right: Whether each reference is right, 0 or 1, ``[references, N]``.
        confidence: Probability that it gives the true class, ``[references, N]``.
        divergence: KL(dense || reference), nats, ``[references, N]``.

    Returns:
        Relative deviations above 0, float64 ``[N]``.
    """
    # What a reference says that no longer computes numbers is left out.
    known = np.isfinite(confidence + divergence).all(axis=1)
    right, confidence, divergence = right[known], confidence[known], divergence[known]
    squares = (
        (right - right.mean(axis=1, keepdims=True)) ** 2,
        (divergence - divergence.mean(axis=1, keepdims=True)) ** 2,
        confidence * (1 - confidence),
    )
    total = np.zeros(right.shape[1])
    for square in squares:
        # The mean is 0 where a reference is right everywhere, or nowhere: that says nothing.
        means = np.maximum(square.mean(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        total += (square / means).sum(axis=0)
    return np.sqrt(total / max(1, len(right)) + _FLOOR)


def check_count(count: int, images: int, leading: int) -> None:
    """Make sure that a sample can be drawn.

    Args:
        count: Images asked for.
        images: Validation images there are.
        leading: As for :func:`draw_sample`.

    Raises:
        SpecError: If there are fewer than ``count``, or it leaves fewer than two to draw.
    """
    if count > images:
        raise SpecError(
            f"images: {count} is more than the {images} validation images there are; ask for fewer "
            "or raise task.validation."
        )
    fewest = min(images, leading + _FEWEST_PER_STRATUM)
    if count < fewest:
        raise SpecError(
            f"images: {count} is too few, because measures look at the first {leading} and two "
            f"more have to be drawn; ask for at least {fewest}."
        )


def draw_sample(deviations: Floats, count: int, leading: int, seed: int) -> Sample:
    """Draw a stratified sample.

    Args:
        deviations: Anticipated deviation of each image, above 0, float64 ``[N]``.
        count: Images to draw, at most N.
        leading: Images from the first that are taken in any case and stand for themselves alone.
        seed: Of the draw.

    Raises:
        SpecError: As :func:`check_count`.
    """
    check_count(count, len(deviations), leading)
    leading = min(leading, len(deviations))
    drawn = count - leading
    strata = [np.arange(leading), *_strata(deviations, leading, drawn)]
    sizes = _allocation(np.array([deviations[s].sum() for s in strata[1:]]), strata[1:], drawn)
    rng = np.random.default_rng(seed)
    parts = []
    for number, (stratum, size) in enumerate(zip(strata, (leading, *sizes), strict=True)):
        chosen = rng.choice(stratum, size, replace=False)
        parts.append((chosen, np.full(size, len(stratum) / max(size, 1)), np.full(size, number)))
    indices, weights, numbers = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = np.argsort(indices)
    return Sample(indices[order], weights[order], numbers[order])


def standard_error(values: Floats, sample: Sample) -> float:
    """Estimated standard error of the weighted mean, against the mean over all images.

    The square root of ``sum_h N_h**2 (1 - n_h / N_h) s_h**2 / n_h / N**2`` over strata of ``N_h``
    images, ``n_h`` of them drawn, with ``s_h**2`` their variance; its square is unbiased (Cochran
    1977, section 5.4). How well the validation images stand for others it does not say.

    Args:
        values: One number for each image of the sample, float64 ``[n]``.
        sample: The whole sample.
    """
    variance = 0.0
    for stratum in np.unique(sample.strata):
        inside = sample.strata == stratum
        weight, drawn = float(sample.weights[inside][0]), int(inside.sum())
        if weight > 1:
            variance += drawn * weight * (weight - 1) * float(values[inside].var(ddof=1))
    return float(np.sqrt(variance) / sample.weights.sum())


def _strata(deviations: Floats, leading: int, drawn: int) -> list[NDArray[np.int64]]:
    """Images beyond the leading ones, cut where the sum of deviations passes equal shares."""
    order = leading + np.argsort(-deviations[leading:], kind="stable")
    most = max(1, min(_MOST_STRATA, drawn // _FEWEST_PER_STRATUM))
    summed = np.cumsum(deviations[order])
    middles = summed - deviations[order] / 2
    numbers = np.minimum(most * middles // summed[-1:], most - 1)
    return [order[numbers == number] for number in np.unique(numbers)]


def _allocation(totals: Floats, strata: list[NDArray[np.int64]], drawn: int) -> list[int]:
    """How many to draw from each stratum: at least two where it has them, at most all.

    One after another, each goes where ``N_h S_h / sqrt(n_h (n_h + 1))`` is largest, which is
    optimal in whole numbers (Wright 2017, Statistics & Probability Letters 129).
    """
    most = np.array([len(stratum) for stratum in strata], dtype=np.int64)
    sizes = np.minimum(most, _FEWEST_PER_STRATUM)
    while sizes.sum() < drawn:
        gains = totals / np.sqrt(sizes * (sizes + 1.0))
        sizes[np.where(sizes < most, gains, -1.0).argmax()] += 1
    return [int(size) for size in sizes]
