"""Training and fine-tuning of networks, dense or slimmed."""

from __future__ import annotations

import contextlib
import copy
import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from .._compat import is_batchnorm
from ..errors import NetworkError, PruneTuneError
from .batches import Batches
from .batchnorm import recalibrate_batchnorm
from .data import Data, LabelledImages
from .data.source import Indices
from .inference.precision import cast_network
from .layout import layout_of
from .progress import SILENT, Progress
from .training_outputs import auxiliary_weight, only_layers_train, training_outputs

__all__ = ["TrainingSpec", "accuracy", "train", "try_training"]

# Images that BatchNorm statistics are taken from when training ends.
_STATISTICS_IMAGES = 4096


class TrainingSpec(BaseModel):
    """How a network is trained: SGD with Nesterov momentum, once through ``epochs``.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images a step.
        learning_rate: The highest one of the schedule.
        schedule: ``one-cycle`` rises for ``warmup`` and falls to zero on cosines (Smith & Topin
            2018); ``cosine`` begins at the top (Loshchilov & Hutter 2017).
        warmup: Share of all steps in which ``one-cycle`` rises.
        momentum: Of SGD.
        weight_decay: On weights of two or more dimensions only: neither biases nor BatchNorm.
        label_smoothing: Probability spread evenly over all classes, in [0, 1).
        augment: Whether images are shifted (up to an eighth) and, where the data allows, mirrored.
        distillation: Weight, in [0, 1], of the loss against a teacher's outputs, where a teacher
            is given (Hinton et al. 2015); the rest is the loss against the labels.
        temperature: Softens both outputs in that loss.
        clip: Largest norm of the gradient of all parameters together; ``None`` for any.
        freeze_batchnorm: Whether BatchNorm keeps its statistics, in training and at its end.
            Advisable after a repair, which is fitted to them.
        precision: ``fp32``, or ``bf16`` autocast.
        device: ``auto`` takes a GPU when there is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(default=10, ge=0)
    batch_size: int = Field(default=128, ge=2)
    learning_rate: float = Field(default=0.1, gt=0.0)
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"
    warmup: float = Field(default=0.3, gt=0.0, lt=1.0)
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=5e-4, ge=0.0)
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    augment: bool = True
    distillation: float = Field(default=0.0, ge=0.0, le=1.0)
    temperature: float = Field(default=4.0, gt=0.0)
    clip: float | None = Field(default=None, gt=0.0)
    freeze_batchnorm: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"


def train(
    network: nn.Module,
    data: Data,
    indices: Indices,
    spec: TrainingSpec,
    seed: int,
    *,
    teacher: nn.Module | None = None,
    progress: Progress = SILENT,
    label: str = "Training",
) -> tuple[float, ...]:
    """Train ``network`` in place; it ends on the CPU, in evaluation mode.

    BatchNorm statistics are taken anew at the end, unless they are frozen.

    On one CPU the result is a function of the arguments and torch's number of threads.

    Args:
        network: Trained in place, from the weights that it has.
        data: Where images, normalisation and augmentation come from.
        indices: Images of ``data.train`` to learn from, int64 [n].
        spec: How.
        seed: Decides order, augmentation and dropout.
        teacher: The network to learn from besides the labels, used when ``spec.distillation`` is
            positive; left as it was.
        progress: Told of every step, and of the loss of every epoch.
        label: What the progress is called.

    Returns:
        Mean training loss of every epoch.

    Raises:
        NetworkError: If the network cannot be trained, the loss stops being a number, or a GPU is
            asked for and there is none.
    """
    device = _device(spec.device)
    taught = teacher if spec.distillation > 0.0 else None
    layout = _layout(data, indices, network, *([] if taught is None else [taught]))
    lesson = _Lesson(network, taught, spec, device, layout)
    keep = spec.epochs > 0
    batches = Batches(data, indices, spec.batch_size, spec.augment, keep, seed, device, layout)
    total = max(spec.epochs * batches.per_epoch, 1)
    optimizer = _optimizer(network, spec)
    schedule = _schedule(optimizer, spec, total)
    losses = []
    progress.start(spec.epochs * batches.per_epoch, label)
    cuda = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), lesson:
        torch.manual_seed(seed)
        for epoch in range(1, spec.epochs + 1):
            summed = torch.zeros((), device=device)
            for images, labels in batches.epoch():
                loss = lesson.loss(images, labels)
                optimizer.zero_grad(set_to_none=True)
                _backward(loss)
                if spec.clip is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), spec.clip)
                optimizer.step()
                schedule.step()
                summed += loss.detach()
                progress.advance()
            losses.append(float(summed) / batches.per_epoch)
            if not math.isfinite(losses[-1]):
                raise NetworkError(
                    f"The training loss became {losses[-1]} in epoch {epoch}; "
                    f"lower learning_rate (now {spec.learning_rate})."
                )
            progress.note(f"{label}: epoch {epoch} of {spec.epochs}, loss {losses[-1]:.3f}")
        if spec.epochs and not spec.freeze_batchnorm:
            recalibrate_batchnorm(network, batches.without_labels(_STATISTICS_IMAGES))
    progress.finish()
    return tuple(losses)


def try_training(
    network: nn.Module,
    data: Data,
    indices: Indices,
    spec: TrainingSpec,
    seed: int,
    teacher: nn.Module | None = None,
) -> None:
    """Take one training step with a copy of a network, so that it is known whether it can be done.

    Args:
        network: Left as it was.
        data: As for `train`.
        indices: As for `train`; a batch of them is used.
        spec: How it is going to be trained.
        seed: As for `train`.
        teacher: As for `train`.

    Raises:
        NetworkError: As `train`, for what shows in the first step.
    """
    step = spec.model_copy(update={"epochs": 1, "freeze_batchnorm": True})
    train(copy.deepcopy(network), data, indices[: spec.batch_size], step, seed, teacher=teacher)


@torch.no_grad()
def accuracy(network: nn.Module, labelled: LabelledImages, batch_size: int = 64) -> float:
    """Share of images whose class is the network's largest output, in [0, 1].

    Args:
        network: Run in evaluation mode, on the device and in the precision that it has; its mode
            is restored.
        labelled: The images; an empty set has no accuracy.
        batch_size: Images a forward pass.
    """
    first = next(network.parameters())
    training = network.training
    network.eval()
    correct = 0
    some = labelled.images[:2].to(first.device, first.dtype)
    layout = layout_of(network, some)
    pieces = zip(labelled.images.split(batch_size), labelled.labels.split(batch_size), strict=True)
    for images, labels in pieces:
        ready = images.to(first.device, first.dtype, memory_format=layout)
        correct += int((network(ready).argmax(1).cpu() == labels).sum())
    network.train(training)
    return correct / len(labelled)


class _Lesson:
    """The loss of one batch; while entered, network and teacher are on the device."""

    def __init__(
        self,
        network: nn.Module,
        teacher: nn.Module | None,
        spec: TrainingSpec,
        device: torch.device,
        layout: torch.memory_format,
    ) -> None:
        self._layout = layout
        self._network = network
        self._teacher = teacher
        self._spec = spec
        self._device = device
        self._began = False
        self._teacher_was = teacher.training if teacher is not None else False

    def __enter__(self) -> None:
        _lay_out(self._network.to(self._device), self._layout)
        self._network.requires_grad_(True).train()
        if self._spec.freeze_batchnorm:
            for module in self._network.modules():
                if is_batchnorm(module):
                    module.eval()
        if self._teacher is not None:
            _lay_out(self._teacher.to(self._device), self._layout)
            self._teacher.eval()

    def __exit__(self, *_: object) -> None:
        self._network.to("cpu").to(memory_format=torch.contiguous_format).eval()
        if self._teacher is not None:
            self._teacher.to("cpu").to(memory_format=torch.contiguous_format)
            self._teacher.train(self._teacher_was)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        spec = self._spec
        with torch.autocast(images.device.type, torch.bfloat16, enabled=spec.precision == "bf16"):
            outputs, auxiliary, weight = self._outputs(images)
            taught = None
            if self._teacher is not None:
                with torch.no_grad():
                    taught = self._teacher(images)
        outputs = outputs.float()
        loss = self._entropy(outputs, labels)
        if weight:
            loss = loss + weight * sum(self._entropy(each.float(), labels) for each in auxiliary)
        if taught is None:
            return loss
        # Hinton et al. 2015, section 2: T^2 keeps the gradients' size when T changes.
        soft = functional.kl_div(
            functional.log_softmax(outputs / spec.temperature, 1),
            functional.log_softmax(taught.float() / spec.temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - spec.distillation) * loss + spec.distillation * spec.temperature**2 * soft

    def _entropy(self, outputs: Tensor, labels: Tensor) -> Tensor:
        smoothing = self._spec.label_smoothing
        return functional.cross_entropy(outputs, labels, label_smoothing=smoothing)

    def _outputs(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...], float]:
        """The network's output, auxiliary ones, and what the loss of each of these counts."""
        try:
            try:
                found = self._network(images)
            except Exception:
                if self._began:
                    raise
                # Branches of training alone may not fit a slimmed network.
                only_layers_train(self._network)
                found = self._network(images)
        except PruneTuneError:
            raise
        except Exception as error:
            raise NetworkError(
                f"The network cannot be trained ({type(error).__name__}: "
                f"{' '.join(str(error).split())}); mend what it does in training mode."
            ) from error
        self._began = True
        return *training_outputs(found), auxiliary_weight(found)


def _backward(loss: Tensor) -> None:
    try:
        loss.backward()
    except RuntimeError as error:
        raise NetworkError(
            f"The network cannot be trained ({' '.join(str(error).split())}); what it does to its "
            "activations must have a gradient."
        ) from error


def _lay_out(network: nn.Module, layout: torch.memory_format) -> None:
    """Lay a network's numbers out as processors like them, where that is defined for them."""
    with contextlib.suppress(RuntimeError):  # not for the weights of a Conv3d
        network.to(memory_format=layout)


def _layout(data: Data, indices: Indices, *networks: nn.Module) -> torch.memory_format:
    """A layout in which all networks run."""
    images = data.normalise(data.train.load(indices[:2]))
    # Where weights lie decides where maps do, even if images lie either way.
    moved = [cast_network(each, "fp32", torch.device("cpu")) for each in networks]
    fast = all(layout_of(each, images) == torch.channels_last for each in moved)
    return torch.channels_last if fast else torch.contiguous_format


def _optimizer(network: nn.Module, spec: TrainingSpec) -> torch.optim.SGD:
    matrices = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": spec.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        groups, lr=spec.learning_rate, momentum=spec.momentum, nesterov=spec.momentum > 0
    )


def _schedule(
    optimizer: torch.optim.SGD, spec: TrainingSpec, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if spec.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        spec.learning_rate,
        # One more than are taken, so that the last call has somewhere to go.
        total_steps=steps + 1,
        pct_start=spec.warmup,
        cycle_momentum=False,
    )


def _device(name: str) -> torch.device:
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise NetworkError("Training on device 'cuda' needs a GPU and there is none; use 'cpu'.")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
