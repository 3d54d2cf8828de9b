"""Which costs an evaluation has, whatever a budget limits, and what its key depends on."""

from __future__ import annotations

import hashlib
import json
import pickle

import numpy as np
import pytest
from prunetune.models import PruningTask
from prunetune.models.costs.collection import Costs, CostTables
from prunetune.models.costs.registry import gather_costs
from prunetune.models.costs.tables import GroupInfo, Structure
from prunetune.rewards import Evaluation, EvaluatorSpec, Reward, build_evaluator
from prunetune.rewards.reward import score


class _Fast(Reward):
    name = "fast"
    measures = ("accuracy",)
    costs = ("latency", "activation-memory")

    def __call__(self, evaluation: Evaluation, dense: Evaluation) -> float:
        return evaluation.measures["accuracy"] - sum(evaluation.costs[each] for each in self.costs)


def _spec(*costs: str) -> EvaluatorSpec:
    return EvaluatorSpec(precision="fp32", measures=("accuracy",), costs=costs)  # type: ignore[arg-type]


def test_a_reward_reads_the_tables_that_it_declares(digits_task: PruningTask) -> None:
    evaluator = build_evaluator(digits_task, _spec(*_Fast.costs), 0)
    candidate = tuple(max(1, size // 2) for size in evaluator.groups.sizes)
    evaluation = evaluator.evaluate(candidate)
    assert list(evaluation.costs) == ["flops", "params", "activation-memory", "latency"]
    for name, cost in evaluator.costs.items():
        assert evaluation.costs[name] == cost.fraction(np.array([candidate]))[0]
        assert evaluator.dense.costs[name] == 1.0
    expected = evaluation.measures["accuracy"] - sum(evaluation.costs[n] for n in _Fast.costs)
    assert score(_Fast(), evaluation, evaluator.dense) == expected


def test_the_key_depends_on_the_content_of_tables_that_evaluations_have(
    digits_task: PruningTask,
) -> None:
    evaluator = build_evaluator(digits_task, _spec("latency"), 0)
    tables = evaluator.costs.tables
    assert tables.latency is not None
    again = build_evaluator(digits_task, _spec("latency"), 0, tables=tables)
    assert again.key == evaluator.key
    slower = {**tables.latency, "constant": tables.latency["constant"] + 1.0}
    other = tables.model_copy(update={"latency": slower})
    assert build_evaluator(digits_task, _spec("latency"), 0, tables=other).key != evaluator.key
    # Where evaluations do not have it, a table is nothing that they depend on.
    plain = build_evaluator(digits_task, _spec(), 0)
    assert build_evaluator(digits_task, _spec(), 0, tables=tables).key == plain.key


def test_the_key_of_evaluations_without_further_costs_is_that_of_earlier_records(
    digits_task: PruningTask,
) -> None:
    facts = {
        "version": "7",
        "task": digits_task.digest,
        "seed": 0,
        "precision": "fp32",
        "criterion": "activation-residual",
        "repair": "quick",
        "recalibration": 128,
        "measures": [{"name": "accuracy", "parameters": {}}],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    assert build_evaluator(digits_task, _spec(), 0).key == digest


def test_counted_costs_are_the_quotients_of_whole_numbers(digits_task: PruningTask) -> None:
    costs = build_evaluator(digits_task, _spec(), 0).costs
    structure = costs.structure
    rng = np.random.default_rng(0)
    for row in rng.integers(1, structure.sizes + 1, size=(50, len(structure.groups))):
        told = costs.of_one(row, {})
        # To the last bit: records of earlier versions divided whole numbers.
        assert told["flops"] == int(structure.flops(row)) / structure.dense_flops
        assert told["params"] == int(structure.params(row)) / structure.dense_params


def test_costs_are_plain_and_read_back_what_earlier_versions_kept(
    digits_task: PruningTask,
) -> None:
    groups = build_evaluator(digits_task, _spec(), 0).groups
    costs = gather_costs(["flops", "latency", "activation-memory"], digits_task, groups)
    kept = json.loads(json.dumps(costs.tables.model_dump(mode="json")))
    # The file's keys since its first version.
    assert set(kept) == {"activations", "latency", "own"}
    read = Costs(costs.structure, CostTables.model_validate(kept))
    rows = np.array([groups.sizes, [1] * len(groups)])
    for other in (read, pickle.loads(pickle.dumps(costs))):
        assert list(other) == list(costs) and other.tables.digests() == costs.tables.digests()
        for name, values in costs.of(rows).items():
            assert other.of(rows)[name].tolist() == values.tolist()


def test_what_is_known_is_not_measured_again(
    digits_task: PruningTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = build_evaluator(digits_task, _spec(), 0).groups
    known = gather_costs(["latency"], digits_task, groups).tables
    module = "prunetune.models.costs.registry.fit_latency"
    monkeypatch.setattr(module, lambda *_: pytest.fail("measured again"))
    assert gather_costs(["latency"], digits_task, groups, known).tables == known


def test_own_costs_keep_limits_in_their_own_units() -> None:
    structure = Structure((GroupInfo("a", 4),), (), (3, 8, 8), other_params=1, other_flops=1)
    costs = Costs(structure, CostTables(own={"my.py:size": 4.0, "my.py:odd": 0.0}))
    limits = {"flops": 0.1, "my.py:size": 0.5, "my.py:odd": 2.0}
    assert costs.keeps_own(limits, {"my.py:size": 2.0, "my.py:odd": 2.0})
    assert not costs.keeps_own(limits, {"my.py:size": 2.1, "my.py:odd": 2.0})
    # Where the dense network costs nothing, the limit is the cost itself.
    assert not costs.keeps_own(limits, {"my.py:size": 2.0, "my.py:odd": 2.5})
    # What could not be measured is not kept; what has no limit does not matter.
    assert not costs.keeps_own(limits, {"my.py:size": 2.0})
    assert costs.keeps_own({"my.py:size": 0.5}, {"my.py:size": 2.0})
