"""A network is run once on its data before anything expensive begins."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import NetworkError

__all__ = ["check_network"]


@torch.no_grad()
def check_network(
    network: nn.Module, images: Tensor, num_classes: int, *, model: str, data: str
) -> None:
    """Run the network once and make sure that its outputs are logits of the data's classes.

    Args:
        network: The network, in evaluation mode.
        images: Normalised images [N, C, H, W], float32.
        num_classes: Classes of the data.
        model: The network's name, for messages.
        data: The data's name, for messages.

    Raises:
        NetworkError: If the network cannot read such images, gives something else than one
            tensor [N, num_classes], or gives a value that is not finite.
    """
    shape = "x".join(str(size) for size in images.shape[1:])
    try:
        outputs = network(images)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise NetworkError(
            f"The model {model!r} cannot run on {shape} images of {data!r}: {reason}"
        ) from error
    if not isinstance(outputs, Tensor):
        raise NetworkError(
            f"The model {model!r} returns a {type(outputs).__name__}; "
            "it must return one tensor of logits [images, classes]."
        )
    if outputs.ndim != 2 or outputs.shape[0] != images.shape[0]:
        raise NetworkError(
            f"The model {model!r} returns a tensor of shape {tuple(outputs.shape)} for "
            f"{images.shape[0]} images; it must return logits [images, classes]."
        )
    if outputs.shape[1] != num_classes:
        raise NetworkError(
            f"The model {model!r} has {outputs.shape[1]} outputs but {data!r} has "
            f"{num_classes} classes; build it with num_classes={num_classes}."
        )
    if not torch.isfinite(outputs).all():
        raise NetworkError(
            f"The model {model!r} returns NaN or infinite values on the images of {data!r}; "
            "check its weights and the normalisation (data.mean, data.std)."
        )
