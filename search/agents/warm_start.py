"""What a policy starts from, in checkpoints; and starting from that of an earlier search."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from ...errors import SpecError
from ..lagrangian import LagrangianPPO
from ..run.checkpoints import trial_checkpoints, whole_checkpoints
from .together.allocation import Sensitivity

__all__ = [
    "CHECKPOINT",
    "EarlierPolicy",
    "read_sensitivity",
    "start_from",
    "write_sensitivity",
]

CHECKPOINT = "lagrangian-ppo"
"""Folder of RLlib's checkpoint inside a trial's."""

_SENSITIVITY = "sensitivity.npz"
_COST = "cost:"

_TUNE = "tune"
_MODULE = Path("learner_group", "learner", "rl_module", DEFAULT_MODULE_ID, "module_state.pkl")
_STANDARD_DEVIATION = "log_std"


def write_sensitivity(folder: Path, sensitivity: Sensitivity | None) -> None:
    """Keep, in a checkpoint, what a policy started from; nothing where it started uniformly."""
    if sensitivity is not None:
        costs = {_COST + name: table for name, table in sensitivity.costs.items()}
        np.savez(folder / _SENSITIVITY, allow_pickle=False, losses=sensitivity.losses, **costs)


def read_sensitivity(folder: Path) -> Sensitivity | None:
    """What `write_sensitivity` kept."""
    path = folder / _SENSITIVITY
    if not path.is_file():
        return None
    with np.load(path) as kept:
        costs = {
            name.removeprefix(_COST): kept[name] for name in kept.files if name.startswith(_COST)
        }
        return Sensitivity(kept["losses"], costs)


@dataclass(frozen=True)
class EarlierPolicy:
    """The policy and critics that a search by ``ppo-lagrangian`` ended with.

    Attributes:
        source: The run, for messages.
        weights: By name.
        sensitivity: What it started from; ``None`` for uniform widths.
    """

    source: str
    weights: dict[str, Any]
    sensitivity: Sensitivity | None

    @classmethod
    def load(cls, path: Path | str) -> EarlierPolicy:
        """Read it from the newest whole checkpoint of a run.

        Args:
            path: A run folder with one such search, or ``RUN/tune/TRIAL``.

        Raises:
            SpecError: If there is no such search, or more than one.
        """
        checkpoint = _newest_checkpoint(path)
        weights = pickle.loads((checkpoint / CHECKPOINT / _MODULE).read_bytes())
        return cls(str(path), weights, read_sensitivity(checkpoint))


def _newest_checkpoint(path: Path | str) -> Path:
    folder = Path(path).expanduser()
    if folder.parent.name == _TUNE:
        experiment, trials = folder.parent, [folder.name]
    else:
        experiment = folder / _TUNE
        trials = sorted({each.name for each in folder.glob(f"{_TUNE}*/*") if each.is_dir()})
    found = {}
    for trial in trials:
        for checkpoint, _ in whole_checkpoints(trial_checkpoints(experiment, trial)):
            if (checkpoint / CHECKPOINT / _MODULE).is_file():
                found[trial] = checkpoint
                break
    if not found:
        raise SpecError(
            f"init_from: {path} holds no checkpoint of a search by ppo-lagrangian; give the folder "
            "of a run that has one."
        )
    if len(found) > 1:
        raise SpecError(
            f"init_from: {path} holds {len(found)} searches by ppo-lagrangian; name one of them, "
            f"for example {experiment / next(iter(found))}."
        )
    (checkpoint,) = found.values()
    return checkpoint


def start_from(algorithm: LagrangianPPO, earlier: EarlierPolicy) -> None:
    """Replace the weights of a new algorithm's policy and critics, but not how far it explores.

    Args:
        algorithm: Before its first iteration.
        earlier: Whose weights they become.

    Raises:
        SpecError: If they are those of a policy of another shape.
    """

    def replace(learner: Any) -> bool:
        module = learner.module[DEFAULT_MODULE_ID].unwrapped()
        fresh = {name: value.detach().clone() for name, value in module.state_dict().items()}
        given = {name: torch.as_tensor(value) for name, value in earlier.weights.items()}
        if {name: value.shape for name, value in fresh.items()} != {
            name: value.shape for name, value in given.items()
        }:
            return False
        kept = {n: v for n, v in fresh.items() if n.rpartition(".")[2] == _STANDARD_DEVIATION}
        module.load_state_dict({**given, **kept})
        return True

    if not all(answer.get() for answer in algorithm.learner_group.foreach_learner(replace)):
        raise SpecError(
            f"init_from: the policy of {earlier.source} is for another number of groups or "
            "budgets, or has other hidden layers; only decide: in-order carries over from one "
            "network to another."
        )
    algorithm.env_runner_group.sync_weights(
        from_worker_or_learner_group=algorithm.learner_group, inference_only=True
    )
