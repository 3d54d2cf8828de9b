"""The task of a Python session: a network and images as objects, or a description by names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..._live import is_live, keep_live, live_name
from ...models.coupling import GroupScope, trace_channel_groups
from ...models.data import Augmentation
from ...models.live import LiveTask, make_live_task
from ...models.task import TaskSpec, load_task
from ..spec.paths import anchor_paths
from ..spec.reading import read_spec

__all__ = ["Task"]

# A task needs budgets to be read as a spec.
_ANY_BUDGET = {"flops": 1.0}


class Task:
    """A trained network and its images: what is pruned, and on what it is judged.

    Example:
        >>> task = Task(network, train=train_set, test=(test_images, test_labels))
        >>> task = Task.from_spec({"model": "resnet20", "weights": "resnet20.safetensors",
        ...                        "data": "cifar10:data"})

    Images are taken as what the network reads: whatever a data set's transform or a tensor gives
    goes into the network as it is. Only where ``mean`` and ``std`` are given are images
    normalised: uint8 ones are brought to [0, 1] first, float32 ones must be in [0, 1] already.
    Images in uint8 need both.

    The network is copied, so that training it further afterwards changes nothing here. Network and
    images go to workers by value. A run says in its ``spec.yaml`` by name and digest which they
    were, and `prunetune.resume` and `prunetune.load` ask for them in another session.

    Args:
        network: Any classifier that returns logits [images, classes].
        train: Labelled images: a torch ``Dataset`` of (image, label), a pair of tensors (float32 or
            uint8 [N, C, H, W]; int64 [N]), or a `prunetune.models.ImageSource`. Or a whole
            `prunetune.models.Data`, which has test images and normalisation.
        test: The same. No search looks at them; each network is tested on them once.
        calibration: Images whose labels are not used; or how many, of the training images.
        validation: Labelled images that steer a search; or how many, of the training images.
        groups: ``inner`` leaves channels alone that residual connections tie together; ``all``
            decides them too.
        augment_validation: As in a spec; for validation images that are drawn from the training
            images.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel, of pixels in [0, 1].
        mirror: Whether a mirrored image keeps its class; fine-tuning then mirrors some.
        name: For people; the network's class when left out.

    Raises:
        PruneTuneError: If network, images and labels do not fit each other; says what to change.
    """

    def __init__(
        self,
        network: nn.Module,
        train: Any,
        test: Any = None,
        *,
        calibration: Any = 512,
        validation: Any = 2000,
        groups: GroupScope = "inner",
        augment_validation: Augmentation = "none",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        mirror: bool = False,
        name: str | None = None,
    ) -> None:
        counts = {"calibration": calibration, "validation": validation}
        given = {key: None if isinstance(value, int) else value for key, value in counts.items()}
        live = make_live_task(
            network,
            train,
            test,
            **given,
            mean=None if mean is None else tuple(mean),
            std=None if std is None else tuple(std),
            mirror=mirror,
            name=name,
        )
        reference = keep_live(live, live.name, live.digest)
        values = {
            "model": reference,
            "data": {"name": reference},
            "groups": groups,
            "augment_validation": augment_validation,
            **{key: value for key, value in counts.items() if isinstance(value, int)},
        }
        self._set(_read(values), live)

    @classmethod
    def from_spec(cls, values: Mapping[str, Any]) -> Task:
        """A task that is described by names, as in the ``task`` of a spec file.

        Args:
            values: Keys and values as in YAML. Relative paths start from the working directory.

        Raises:
            SpecError: If a key or value is wrong.
        """
        task = cls.__new__(cls)
        task._set(_read(values), None)
        return task

    def _set(self, spec: TaskSpec, live: LiveTask | None) -> None:
        self._spec, self._live = spec, live

    @property
    def spec(self) -> TaskSpec:
        """What a run's ``spec.yaml`` says of this task."""
        return self._spec

    @property
    def name(self) -> str:
        """For people."""
        return live_name(self.spec.model) if is_live(self.spec.model) else self.spec.model

    @property
    def digest(self) -> str | None:
        """SHA-256 of a live network's weights, graph and images; None for a task of names."""
        return None if self._live is None else self._live.digest

    def groups(self, seed: int = 0) -> dict[str, int]:
        """The channel groups that a search decides: units of each, by name, in order.

        Args:
            seed: Of a run; a task without weights is trained with it, once.
        """
        task = load_task(self.spec, seed)
        groups = trace_channel_groups(task.network, task.example_input, task.scope)
        return {group.name: group.size for group in groups}

    def __repr__(self) -> str:
        digest = "" if self.digest is None else f", digest={self.digest[:16]!r}"
        return f"Task({self.name!r}{digest})"


def _read(values: Mapping[str, Any]) -> TaskSpec:
    spec = read_spec({"task": dict(values), "budgets": _ANY_BUDGET}, "prunetune.Task", check=False)
    return read_spec(anchor_paths(spec.to_dict(), Path.cwd())).task
