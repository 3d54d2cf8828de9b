"""Artifacts for tests: written of random candidates, changed, and of files of a user's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from prunetune.models import build_network, slim, trace_channel_groups
from prunetune.models.artifact.files import content_digest
from prunetune.models.artifact.saving import Pruning, save_artifact
from prunetune.models.groups import ChannelGroups
from prunetune.models.reductions.channels import ChannelsReduction, kept_channels
from prunetune.models.space import SearchSpace
from torch import nn

from .networks import Kept, random_kept, randomise, widths_of

SHAPE = (1, 8, 8)


def pruning_of(
    model: str,
    network: nn.Module,
    groups: ChannelGroups,
    kept: Kept,
    scope: str = "all",
    classes: int = 10,
) -> Pruning:
    """What was kept of a dense network."""
    reduction = ChannelsReduction(groups.groups, kept)
    return Pruning(
        model=model,
        num_classes=classes,
        input_shape=groups.structure.input_shape,
        scope=scope,
        space=SearchSpace(reduction.decisions),
        candidate=widths_of(kept),
        kept={group.name: units.tolist() for group, units in zip(groups, kept, strict=True)},
        layers=kept_channels(network, groups, kept),
    )


def write(
    folder: Path,
    model: str = "digits-net",
    scope: Any = "all",
    shape: tuple[int, int, int] = SHAPE,
    seed: int = 0,
    budgets: dict[str, float] | None = None,
    classes: int = 10,
    **measured: float,
) -> nn.Module:
    """Write a random candidate of a network with random statistics; returns its network."""
    network = randomise(build_network(model, classes, shape), seed)
    groups = trace_channel_groups(network, torch.rand(1, *shape), scope)
    kept = random_kept(groups, seed)
    slimmed = slim(network, groups, kept)
    save_artifact(
        folder,
        slimmed,
        network,
        pruning_of(model, network, groups, kept, scope, classes),
        provenance={"budgets": budgets or {}},
        measured={"test_after": None, **measured},
    )
    return slimmed


def change(folder: Path, edit: Callable[[dict[str, Any]], Any], sign: bool = True) -> None:
    """Edit ``pruning.json`` as one who knows the format does, who makes its digests anew."""
    path = folder / "pruning.json"
    content = json.loads(path.read_text())
    edit(content)
    if sign:
        content["sha256"] = content_digest({k: v for k, v in content.items() if k != "sha256"})
    path.write_text(json.dumps(content))


def sign_weights(folder: Path) -> None:
    """Make the digest of weights that were changed anew."""
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    change(folder, lambda content: content.update(weights_sha256=digest))


AWKWARD = """
import torch
from torch import nn


def zero_at_first(num_classes, input_shape):
    \"\"\"The last layers begin at zero, so that new weights say nothing of them.\"\"\"
    network = nn.Sequential(
        nn.Conv2d(input_shape[0], 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, num_classes))
    nn.init.zeros_(network[4].weight)
    nn.init.zeros_(network[8].weight)
    return network


class LateBranch(nn.Module):
    \"\"\"A branch that depends on values.\"\"\"

    def __init__(self, num_classes, input_shape):
        super().__init__()
        self.a = nn.Sequential(
            nn.Conv2d(input_shape[0], 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(16, 20, 3, 2, 1), nn.BatchNorm2d(20), nn.ReLU())
        self.head = nn.Linear(20, num_classes)

    def forward(self, x):
        x = self.a(x)
        if float(x.mean()) > 1e6:
            x = x * 0.5
        return self.head(self.b(x).mean((2, 3)))


class Elsewhere(LateBranch):
    \"\"\"A tensor that is neither parameter nor buffer, drawn anew every time.\"\"\"

    def __init__(self, num_classes, input_shape):
        super().__init__(num_classes, input_shape)
        self.scale = torch.rand(20)

    def forward(self, x):
        return self.head(self.b(self.a(x)).mean((2, 3)) * self.scale)


calls = 0


class Counting(LateBranch):
    \"\"\"Something of a module decides what is computed, and a new process does not have it.\"\"\"

    def forward(self, x):
        return super().forward(x) + float(calls)
"""
"""Networks of a user's own that make artifacts hard to read back."""


def awkward_file(folder: Path) -> Path:
    """A file that builds them."""
    file = folder / "awkward.py"
    file.write_text(AWKWARD)
    return file


def users_file(folder: Path, trace: Path | None = None) -> Path:
    """A file that builds a network, and leaves a trace when it is run."""
    file = folder / "mine.py"
    leave = "" if trace is None else f"open({str(trace)!r}, 'a').write('run')\n"
    file.write_text(
        f"{leave}"
        "from torch import nn\n"
        "def small(num_classes, input_shape):\n"
        "    return nn.Sequential(\n"
        "        nn.Conv2d(input_shape[0], 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),\n"
        "        nn.Conv2d(6, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "        nn.Linear(8, num_classes))\n"
    )
    return file
