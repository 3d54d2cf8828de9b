"""What a task is, part by part: equal tasks give equal evaluations, and messages name what differs.

Weights alone do not say what a network computes. Beside them there are the user's files that build
it, the graph that is traced, and what it gives for some images of the task, which tells even what
no file and no graph shows.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, fx, nn

from .._live import is_live
from .._references import is_reference
from .._sources import source_digests
from .weights import hash_weights

__all__ = [
    "OUTPUTS_TOLERANCE",
    "TaskIdentity",
    "hash_graph",
    "hash_tensors",
    "outputs_difference",
    "sample_outputs",
]

OUTPUTS_TOLERANCE = 1e-3
"""Share of the largest output by which other processors and versions may round (our choice)."""

_IMAGES, _OUTPUTS = 4, 256
# Where something is in memory, which a module that holds a function may print.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class TaskIdentity(BaseModel):
    """What decides the evaluations of a task.

    Attributes:
        model: The network's name in the spec, without folders.
        groups: Which channel groups are decided.
        weights: Digest of the network's weights.
        images: Digest of the calibration and validation images, as the network reads them, and of
            the labels of the latter: where files and pixels were converted otherwise, it differs.
        graph: Digest of the network's modules and, where it can be traced, of its graph.
        sources: Digests of the user's files that the network is built by, by label.
        outputs: Outputs for a few calibration images, in float32 on the CPU; they are not part of
            the digest, since machines round differently.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    groups: str
    weights: str
    images: str
    graph: str
    sources: dict[str, str | None]
    outputs: tuple[float, ...]

    @classmethod
    def of(
        cls, model: str, groups: str, network: nn.Module, calibration: Tensor, *images: Tensor
    ) -> TaskIdentity:
        """The identity of a task.

        Args:
            model: The network's name in the spec.
            groups: Which channel groups are decided.
            network: In evaluation mode, float32, on the CPU.
            calibration: Float32 [N, C, H, W].
            images: Other tensors that evaluations depend on.
        """
        return cls(
            model=_without_folder(model),
            groups=groups,
            weights=hash_weights(network),
            images=hash_tensors([calibration, *images]),
            graph=hash_graph(network),
            # What a session handed over brings its own digest in its name.
            sources=source_digests([model] if is_reference(model) and not is_live(model) else []),
            outputs=sample_outputs(network, calibration),
        )

    @property
    def digest(self) -> str:
        """SHA-256 of all parts but the outputs."""
        facts = json.dumps(self.model_dump(mode="json", exclude={"outputs"}), sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()

    def differences(self, before: TaskIdentity) -> list[str]:
        """What differs from before, as parts of a sentence, the likeliest cause first."""
        found = changed_files(before.sources, self.sources)
        for part, meaning in _MEANINGS.items():
            if getattr(self, part) != getattr(before, part):
                found.append(meaning)
        difference = outputs_difference(self.outputs, before.outputs)
        if not found and difference > OUTPUTS_TOLERANCE:
            found.append(
                "the network's outputs for the same images have changed (by "
                f"{100 * difference:.2g} % of the largest), although its weights have not"
            )
        return found


_MEANINGS = {
    "model": "task.model names another network",
    "groups": "task.groups has changed",
    "weights": "the network's weights have changed",
    "images": "the calibration or validation images, their labels or the way in which pixels are "
    "read have changed",
    "graph": "the network's modules or graph have changed",
}


def changed_files(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Which files differ between two collections of digests, as parts of a sentence."""
    return [
        f"the file {label} has changed"
        if label in before and now.get(label) is not None
        else f"the file {label} is {'gone' if label in before else 'new'}"
        for label in sorted({*before, *now})
        if before.get(label) != now.get(label)
    ]


def hash_tensors(tensors: Iterable[Tensor]) -> str:
    """SHA-256 of shapes, types and values."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def hash_graph(network: nn.Module) -> str:
    """SHA-256 of what a network computes: its modules, and its traced graph where there is one.

    Names of files and modules are left out, so that it is the same wherever a file lies.
    """
    lines = [
        f"{name}: {type(module).__qualname__}({module.extra_repr()})"
        for name, module in network.named_modules()
    ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = fx.symbolic_trace(copy.deepcopy(network)).graph
        lines += [
            f"{node.name} = {node.op} {_target(node.target)} {node.args} {node.kwargs}"
            for node in graph.nodes
        ]
    except Exception:
        # Control flow that depends on values cannot be traced, and the modules alone must do.
        pass
    return hashlib.sha256(_ADDRESS.sub("", "\n".join(lines)).encode()).hexdigest()


@torch.no_grad()
def sample_outputs(network: nn.Module, images: Tensor) -> tuple[float, ...]:
    """Some outputs of a network for the first images, whatever random state there is.

    Args:
        network: In evaluation mode, float32, on the CPU; gives logits [N, classes].
        images: Float32 [N, C, H, W].
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        outputs = network(images[:_IMAGES].clone()).flatten()
    step = max(1, len(outputs) // _OUTPUTS)
    return tuple(outputs[::step][:_OUTPUTS].tolist())


def outputs_difference(some: Iterable[float], others: Iterable[float]) -> float:
    """The largest difference between outputs as a share of the largest of them; inf if unlike."""
    one, other = torch.tensor([*some]).double(), torch.tensor([*others]).double()
    if one.shape != other.shape:
        return float("inf")
    scale = torch.cat([one, other]).abs().max().clamp(min=1e-12) if len(one) else 1.0
    return float(((one - other).abs() / scale).max()) if len(one) else 0.0


def _target(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


def _without_folder(model: str) -> str:
    location, colon, name = model.rpartition(":")
    return f"{Path(location).name}{colon}{name}" if location.endswith(".py") else model
