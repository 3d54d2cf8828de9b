"""Outputs that identify a network: on fixed images, kept with the artifact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import NetworkError

__all__ = ["TOLERANCE", "difference", "numbers", "probe_images", "run"]

TOLERANCE = 1e-3
"""Of :func:`difference`: sums differ by some millionths between processors and orders, and another
network is off by far more."""

_IMAGES = 2
_SEED = 2
_MANTISSA = 53


def probe_images(input_shape: tuple[int, int, int], count: int = _IMAGES) -> Tensor:
    """Images that are the same on every machine and in every version, of mean 0 and variance 1.

    The raw numbers of PCG64, which NumPy never changes, as uniform values.

    Args:
        input_shape: (channels, height, width).
        count: How many.

    Returns:
        float32 [count, C, H, W].
    """
    shape = (count, *input_shape)
    raw = np.random.PCG64(_SEED).random_raw(int(np.prod(shape)))
    uniform = (raw >> (64 - _MANTISSA)).astype(np.float64) * 2.0**-_MANTISSA
    return torch.from_numpy(((uniform - 0.5) * 12**0.5).astype(np.float32).reshape(shape))


def run(network: nn.Module, images: Tensor, classes: int) -> Tensor:
    """Outputs of a network in evaluation mode, on two images at a time.

    Args:
        network: On any device; its mode is restored.
        images: float32 [n, C, H, W].
        classes: Outputs that it must have.

    Returns:
        float32 [n, classes], finite.

    Raises:
        NetworkError: If it cannot run on them, or its outputs are not finite logits.
    """
    training = network.training
    precision = torch.get_float32_matmul_precision()
    first = next(network.parameters(), images)
    network.eval()
    try:
        # Whatever the caller's session computes with: these are compared with full precision.
        torch.set_float32_matmul_precision("highest")
        with torch.inference_mode(), torch.autocast(first.device.type, enabled=False):
            outputs = torch.cat(
                [network(pair.to(first.device)).cpu() for pair in images.split(_IMAGES)]
            )
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise NetworkError(
            f"The network cannot run on images of {'x'.join(map(str, images.shape[1:]))}: "
            f"{type(error).__name__}: {reason}."
        ) from error
    finally:
        torch.set_float32_matmul_precision(precision)
        network.train(training)
    if tuple(outputs.shape) != (len(images), classes):
        raise NetworkError(
            f"The network gives outputs {list(outputs.shape)} for {len(images)} images, and not "
            f"logits of {classes} classes."
        )
    if not bool(torch.isfinite(outputs).all()):
        raise NetworkError("The network gives outputs that are NaN or infinite.")
    return outputs.float()


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference of outputs, as a share of the largest output."""
    scale = float(expected.abs().max())
    error = float((found - expected).abs().max())
    return error / scale if scale > 0 else error


def numbers(outputs: Tensor) -> list[list[float]]:
    """Outputs as JSON has them: nine digits are all of a float32."""
    rows: Sequence[Sequence[float]] = outputs.tolist()
    return [[float(f"{value:.9g}") for value in row] for row in rows]
