"""What is gathered once per task and then makes every candidate cheap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._references import is_reference
from .._registry import NamedSpec
from ..errors import WeightsError
from .cache import cache_folder, cache_key
from .calls import norms_after
from .coupling import trace_channel_groups
from .criteria import Criterion, Evidence, Ranking, make_criterion, written_criterion
from .groups import ChannelGroups
from .progress import SILENT, Progress
from .reductions.channels import ChannelsReduction, KeptUnits
from .reductions.sequence import Reductions
from .repair.gathering import gather_moments
from .repair.moments import InputMoments, moments_to_store, stored_moments
from .space import Candidate, SearchSpace
from .task import PruningTask
from .weights import read_weights, save_weights

__all__ = ["TaskStatistics", "gather_statistics"]

# Part of the cache's key: raise it when moments or rankings are computed in another way.
_VERSION = 5
# Seconds from which on ranking is announced and followed.
_WORTH_SAYING = 10
_MOMENTS, _ORDERS = "moments/", "orders/"
_FIGURES, _RESCALINGS = "figures/", "rescalings/"


@dataclass(frozen=True, eq=False)
class TaskStatistics:
    """Channel groups, their rankings and the dense network's input moments.

    Attributes:
        groups: The channel groups, with the cost tables.
        orders: Per group, its units, the one to keep longest first; int64 [units].
        moments: Of what each reader of a group reads, by layer name.
        norms: BatchNorm that directly follows a layer, by layer name.
        figures: What the criterion says of a group beside the order, by the group's name; groups of
            which it says nothing are left out.
        rescalings: What readers multiply units by, by the group's name; see ``Ranking``.
    """

    groups: ChannelGroups
    orders: tuple[NDArray[np.int64], ...]
    moments: dict[str, InputMoments]
    norms: dict[str, str]
    figures: Mapping[str, Mapping[str, NDArray[np.float64]]] = field(default_factory=dict)
    rescalings: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @cached_property
    def channels(self) -> ChannelsReduction:
        """What removes channels, by these rankings."""
        rescalings = [self.rescalings.get(group.name) for group in self.groups]
        return ChannelsReduction(self.groups.groups, self.orders, rescalings)

    @cached_property
    def reductions(self) -> Reductions:
        """All reductions of the network, in the order in which they are applied."""
        return Reductions([self.channels])

    @property
    def space(self) -> SearchSpace:
        """The decisions of a search."""
        return self.reductions.space

    def kept_units(self, candidate: Candidate) -> KeptUnits:
        """The units that a candidate keeps: of each group the first ``width`` of its ranking.

        Args:
            candidate: One value per decision.

        Returns:
            Per group, ascending int64 [width].

        Raises:
            ValueError: If there is no such candidate.
        """
        self.space.check(candidate)
        return self.channels.kept_units(
            tuple(candidate[index] for index in self.space.of_kind(self.channels.kind))
        )

    def input_rankings(self) -> dict[str, NDArray[np.int64]]:
        """Input channels in the order of the ranking, the one to keep longest first.

        Returns:
            int64 [input channels] by layer name, for layers that read one group and nothing else.
        """
        reads: dict[str, list[NDArray[np.int64]]] = {}
        for group, order in zip(self.groups, self.orders, strict=True):
            for member in group.readers():
                reads.setdefault(member.layer, []).append(member.channels[order].reshape(-1))
        return {
            layer: channels[0]
            for layer, channels in reads.items()
            if len(channels) == 1
            and layer in self.moments
            and self.moments[layer].mean[0].numel()
            == len(channels[0]) * self.moments[layer].per_channel
        }


def gather_statistics(
    task: PruningTask, criterion: NamedSpec | str, seed: int, progress: Progress = SILENT
) -> TaskStatistics:
    """Trace the network, gather moments and rank channels, or take the last two from the cache.

    Args:
        task: The task; its calibration images are used, without labels.
        criterion: Ranks the channels inside a group.
        seed: Decides the places that are sampled, and the criterion ``random``.
        progress: Receives a note of what takes long.

    Raises:
        PruneTuneError: If the network has nothing to prune, or the criterion is unknown or has a
            wrong parameter.
    """
    criterion = NamedSpec.model_validate(criterion)
    chosen = make_criterion(criterion)
    groups = trace_channel_groups(task.network, task.example_input, task.scope)
    norms = norms_after(task.network, task.example_input)
    facts = {
        "version": _VERSION,
        "task": task.digest,
        "groups": [[group.name, group.size] for group in groups],
        "criterion": written_criterion(criterion),
        "seed": seed,
    }
    path = cache_folder() / "statistics" / f"{cache_key(facts)}.safetensors"
    # The user's own criterion may have changed since.
    stored = None if is_reference(criterion.name) or not path.is_file() else _read(path)
    if stored is None:
        readers = {member.layer for group in groups for member in group.readers()}
        weighted = sorted(
            name for name in readers if hasattr(task.network.get_submodule(name), "weight")
        )
        moments = gather_moments(
            task.network, weighted, task.calibration, seed=seed, progress=progress
        )
        evidence = Evidence(task.network, task.calibration, moments, norms, seed)
        label = f"Ranking the channels of {len(groups)} groups by {criterion.name}"
        rankings = _study(chosen, groups, evidence, label, progress)
        stored = _as_tensors(rankings, moments)
        _write(path, stored, progress)
    # Gathered or read, tensors lie in memory alike: some processors round by where numbers lie, and
    # a resumed search must see what the first one saw.
    stored = {
        key: each.clone(memory_format=torch.contiguous_format) for key, each in stored.items()
    }
    moments = stored_moments(_section(stored, _MOMENTS))
    by_name = _section(stored, _ORDERS)
    return TaskStatistics(
        groups,
        tuple(by_name[group.name].numpy() for group in groups),
        moments,
        norms,
        _figures(_section(stored, _FIGURES)),
        {name: each.numpy() for name, each in _section(stored, _RESCALINGS).items()},
    )


def _study(
    criterion: Criterion,
    groups: ChannelGroups,
    evidence: Evidence,
    label: str,
    progress: Progress,
) -> dict[str, Ranking]:
    """What a criterion says of each group, by the group's name."""
    seconds = [criterion.seconds(group, evidence) for group in groups]
    total = round(sum(seconds))
    if total < _WORTH_SAYING:
        progress.note(label)
        return {group.name: criterion.study(group, evidence) for group in groups}
    progress.start(total, f"{label}, about {total} s of one core")
    rankings, done = {}, 0
    for index, group in enumerate(groups, 1):
        rankings[group.name] = criterion.study(group, evidence)
        progress.advance(round(sum(seconds[:index])) - done)
        done = round(sum(seconds[:index]))
    progress.finish()
    return rankings


def _as_tensors(
    rankings: Mapping[str, Ranking], moments: dict[str, InputMoments]
) -> dict[str, Tensor]:
    tensors = {_MOMENTS + key: value for key, value in moments_to_store(moments).items()}
    for group, ranking in rankings.items():
        tensors[_ORDERS + group] = torch.from_numpy(ranking.order)
        for name, values in ranking.figures.items():
            tensors[f"{_FIGURES}{group}/{name}"] = torch.from_numpy(np.array(values))
        if ranking.rescaling is not None:
            tensors[_RESCALINGS + group] = torch.from_numpy(ranking.rescaling)
    return tensors


def _figures(tensors: dict[str, Tensor]) -> dict[str, dict[str, NDArray[np.float64]]]:
    figures: dict[str, dict[str, NDArray[np.float64]]] = {}
    for key, values in tensors.items():
        group, _, name = key.rpartition("/")
        figures.setdefault(group, {})[name] = values.numpy()
    return figures


def _section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): each for key, each in tensors.items() if key.startswith(prefix)
    }


def _read(path: Path) -> dict[str, Tensor] | None:
    try:
        return dict(read_weights(path))
    except WeightsError:
        return None


def _write(path: Path, tensors: dict[str, Tensor], progress: Progress) -> None:
    try:
        save_weights(tensors, path)
    except WeightsError as error:
        progress.note(str(error))
