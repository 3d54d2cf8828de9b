"""Whether budgets can be reached, asked before anything expensive, and what would reach them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from ...envs.budgets import Budget, Limit, parse_budgets
from ...errors import BudgetError, PruneTuneError
from ...models.costs.activation_memory import ActivationMemoryCost, tabulate_activations
from ...models.costs.collection import Costs, CostTables
from ...models.costs.cost import Cost
from ...models.coupling import GroupScope, trace_channel_groups
from ...models.reductions.channels import ChannelsReduction
from ...models.space import SearchSpace
from ..spec.model import SearchSpec
from ..spec.trials import comparison_trials

__all__ = ["check_reach", "read_budgets"]


def check_reach(spec: SearchSpec, network: nn.Module, example_input: Tensor) -> None:
    """Make sure of a network's structure and of what its layers say of budgets.

    Weights do not matter, so that it can be asked before a network is trained. Latency and the
    user's own costs are measured later.

    Args:
        spec: The spec.
        network: The dense network, with any weights.
        example_input: One image [1, C, H, W].

    Raises:
        NetworkError: If nothing can be removed.
        BudgetError: As for :func:`read_budgets`.
    """
    space, costs = _tables(spec, spec.task.groups, network, example_input)
    for trial in comparison_trials(spec):
        known = {name: limit for name, limit in trial.budgets.items() if name in costs}
        if known:
            read_budgets(spec, known, space, costs, network, example_input)


def read_budgets(
    spec: SearchSpec,
    written: Mapping[str, Limit | tuple[Limit, Limit]],
    space: SearchSpace,
    costs: Mapping[str, Cost],
    network: nn.Module,
    example_input: Tensor,
) -> tuple[Budget, ...]:
    """Read budgets; see :func:`~prunetune.envs.budgets.parse_budgets`.

    Args:
        spec: The spec.
        written: Budgets of one search.
        space: Its decisions.
        costs: All costs that budgets may name.
        network: The dense network.
        example_input: One image [1, C, H, W].

    Raises:
        BudgetError: As there. The message names ``groups: all`` where that would reach the budget.
    """
    try:
        return parse_budgets(written, space, costs)
    except BudgetError as error:
        if spec.task.groups == "all" or not _reaches(spec, written, network, example_input):
            raise
        raise BudgetError(
            f"{str(error).rstrip('.')}, or write groups: all below task, which also takes the "
            "channels that residual connections tie together, and reaches it."
        ) from error


def _reaches(
    spec: SearchSpec,
    written: Mapping[str, Limit | tuple[Limit, Limit]],
    network: nn.Module,
    example_input: Tensor,
) -> bool:
    """Whether all channel groups would be enough, as far as tables know."""
    try:
        space, costs = _tables(spec, "all", network, example_input)
        known = {name: limit for name, limit in written.items() if name in costs}
        return bool(known) and bool(parse_budgets(known, space, costs))
    except PruneTuneError:
        return False


def _tables(
    spec: SearchSpec, scope: GroupScope, network: nn.Module, example_input: Tensor
) -> tuple[SearchSpace, Costs]:
    groups = trace_channel_groups(network, example_input, scope)
    named = {name for trial in comparison_trials(spec) for name in trial.budgets}
    activations = None
    if ActivationMemoryCost.name in named:
        activations = tabulate_activations(network, example_input, groups).to_dict()
    orders = [np.arange(group.size, dtype=np.int64) for group in groups]
    channels = ChannelsReduction(groups.groups, orders)
    space = SearchSpace(channels.decisions).keeping(spec.smallest, [channels.kind])
    return space, Costs(groups.structure, CostTables(activations=activations))
