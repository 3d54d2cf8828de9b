"""Which precision candidates of a task are evaluated in."""

from __future__ import annotations

from typing import Literal

import torch

from ...models.inference.precision import Precision, cast_network, resolve_precision
from ...models.progress import Progress
from ...models.task import PruningTask
from .validation_images import ValidationImages

__all__ = ["choose_precision"]

# Largest difference of the dense network's accuracy that reduced precision may make.
_TOLERATED_DIFFERENCE = 0.002


def choose_precision(
    wanted: Precision, task: PruningTask, device: torch.device, progress: Progress
) -> Literal["fp32", "bf16"]:
    """Decide the precision; ``auto`` takes bf16 where it is fast and accurate enough.

    Args:
        wanted: As the spec has it.
        task: The task.
        device: Where candidates are evaluated.
        progress: Receives a note when bf16 is not accurate enough.
    """
    precision = resolve_precision(wanted, device)
    if wanted == "auto" and precision == "bf16":
        difference = _bf16_difference(task, device)
        if difference > _TOLERATED_DIFFERENCE:
            progress.note(
                f"In bf16 the dense network's accuracy differs by {100 * difference:.2f} points; "
                "candidates are evaluated in fp32."
            )
            return "fp32"
    return precision


def _bf16_difference(task: PruningTask, device: torch.device) -> float:
    """Absolute difference of the dense network's accuracy between bf16 and fp32."""
    accuracies = []
    for precision in ("fp32", "bf16"):
        validation = ValidationImages.of(task, precision, device)
        network = cast_network(task.network, precision, device)
        with torch.inference_mode():
            right = sum(
                int((network(inputs).argmax(dim=1) == labels).sum())
                for inputs, labels in zip(validation.images, validation.labels, strict=True)
            )
        accuracies.append(right / len(task.validation.labels))
    return abs(accuracies[0] - accuracies[1])
