"""Structure and budgets are checked before a network is trained, and what would reach is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prunetune.errors import BudgetError, NetworkError
from prunetune.models.progress import SilentProgress
from prunetune.search.engine.preparing import prepare
from prunetune.search.spec.model import SearchSpec
from prunetune.search.spec.reading import read_spec

# Most of what these networks cost lies in a residual stream; the second has nothing else.
_NETWORKS = """
from torch import nn

class Wide(nn.Module):
    def __init__(self, hidden=4):
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, padding=1)
        self.more = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(3))
        self.inner = nn.Sequential(nn.Conv2d(32, hidden, 1), nn.Conv2d(hidden, 32, 1))
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.more:
            x = x + layer(x).relu()
        return self.head((x + self.inner(x).relu()).mean((2, 3)))

class Stream(Wide):
    def __init__(self):
        super().__init__(1)
"""


class _Heard(SilentProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)

    def start(self, total: int, label: str) -> None:
        self.said.append(label)


def _spec(folder: Path, name: str, budgets: dict[str, Any], groups: str = "inner") -> SearchSpec:
    file = folder / "networks.py"
    file.write_text(_NETWORKS)
    task = {"model": f"{file}:{name}", "groups": groups, "training": {"epochs": 500}}
    return read_spec({"task": task, "budgets": budgets, "output": str(folder / "run")})


@pytest.mark.timeout(120)
@pytest.mark.parametrize("cost", ["flops", "params"])
def test_a_budget_that_all_groups_would_reach_says_so(tmp_path: Path, cost: str) -> None:
    heard = _Heard()
    with pytest.raises(BudgetError, match=r"cannot be reached.*groups: all") as caught:
        prepare(_spec(tmp_path, "Wide", {cost: 0.5}), heard)
    assert "\n" not in str(caught.value)
    assert not any("Training" in text for text in heard.said)


@pytest.mark.timeout(120)
def test_a_budget_that_nothing_reaches_names_nothing(tmp_path: Path) -> None:
    for groups in ("inner", "all"):
        with pytest.raises(BudgetError, match="cannot be reached") as caught:
            prepare(_spec(tmp_path, "Wide", {"flops": 1e-6}, groups))
        assert "groups: all" not in str(caught.value)


@pytest.mark.timeout(120)
def test_a_network_of_streams_alone_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    heard = _Heard()
    with pytest.raises(NetworkError, match=r"no channels that can be removed.*groups: all"):
        prepare(_spec(tmp_path, "Stream", {"flops": 0.5}), heard)
    assert not any("Training" in text for text in heard.said)
