"""Starting a policy from that of an earlier search."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from ...errors import SpecError
from ..checkpoints import trial_checkpoints, whole_checkpoints
from ..lagrangian import LagrangianPPO

__all__ = ["CHECKPOINT", "load_policy", "start_from"]

CHECKPOINT = "lagrangian-ppo"
"""Folder of RLlib's checkpoint inside a trial's."""

_TUNE = "tune"
_MODULE = Path("learner_group", "learner", "rl_module", DEFAULT_MODULE_ID, "module_state.pkl")
_STANDARD_DEVIATION = "log_std"


def load_policy(path: Path | str) -> dict[str, Any]:
    """The policy and critics that a search by ``ppo-lagrangian`` ended with.

    Args:
        path: A run folder with one such search, or ``RUN/tune/TRIAL``.

    Returns:
        The weights of its newest whole checkpoint, by name.

    Raises:
        SpecError: If there is no such search, or more than one.
    """
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
                found[trial] = checkpoint / CHECKPOINT / _MODULE
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
    (state,) = found.values()
    weights: dict[str, Any] = pickle.loads(state.read_bytes())
    return weights


def start_from(algorithm: LagrangianPPO, weights: dict[str, Any], source: Path | str) -> None:
    """Replace the weights of a new algorithm's policy and critics, but not how far it explores.

    Args:
        algorithm: Before its first iteration.
        weights: From :func:`load_policy`.
        source: Where they come from, for messages.

    Raises:
        SpecError: If they are those of a policy of another shape.
    """

    def replace(learner: Any) -> bool:
        module = learner.module[DEFAULT_MODULE_ID].unwrapped()
        fresh = {name: value.detach().clone() for name, value in module.state_dict().items()}
        given = {name: torch.as_tensor(value) for name, value in weights.items()}
        if {name: value.shape for name, value in fresh.items()} != {
            name: value.shape for name, value in given.items()
        }:
            return False
        kept = {n: v for n, v in fresh.items() if n.rpartition(".")[2] == _STANDARD_DEVIATION}
        module.load_state_dict({**given, **kept})
        return True

    if not all(answer.get() for answer in algorithm.learner_group.foreach_learner(replace)):
        raise SpecError(
            f"init_from: the policy of {source} is for another number of groups or budgets, or has "
            "other hidden layers; only decide: in-order carries over from one network to another."
        )
    algorithm.env_runner_group.sync_weights(
        from_worker_or_learner_group=algorithm.learner_group, inference_only=True
    )
