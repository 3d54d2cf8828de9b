"""The user's own costs: what they are given, what they may return, what an evaluation keeps."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch
from prunetune.errors import EvaluationError, PluginError
from prunetune.models import PruningTask
from prunetune.models.calls import count_flops
from prunetune.models.costs.own import OwnCosts
from prunetune.rewards.evaluation.evaluator import build_evaluator
from prunetune.rewards.evaluation.evaluator_spec import EvaluatorSpec
from torch import nn

_IMAGE = torch.zeros(1, 1, 8, 8)


def _file(folder: Path, body: str) -> str:
    file = folder / "costs.py"
    file.write_text("import numpy as np\n" + textwrap.dedent(body))
    return str(file)


def _returning(folder: Path, value: str) -> OwnCosts:
    file = _file(folder, f"def cost(network, example_input):\n    return {value}\n")
    return OwnCosts([f"{file}:cost"], _IMAGE)


@pytest.mark.parametrize("value", ["3", "3.0", "np.float32(3)", "np.int64(3)"])
def test_numbers_of_every_kind_are_costs(tmp_path: Path, value: str) -> None:
    assert list(_returning(tmp_path, value).measure(nn.Identity()).values()) == [3.0]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("float('nan')", "returned nan; it must be finite"),
        ("float('inf')", "returned inf"),
        ("-1", "returned -1.0; it must be finite and at least 0"),
        ("'low'", "returned 'low', a str; it must return a number"),
        ("None", "a NoneType"),
        ("True", "a bool"),
        ("1 / 0", "raised ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_no_cost_is_said_in_one_sentence(tmp_path: Path, value: str, said: str) -> None:
    with pytest.raises(EvaluationError, match=r"costs\.py:cost") as caught:
        _returning(tmp_path, value).measure(nn.Identity())
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_reference_that_is_no_function_is_refused(tmp_path: Path) -> None:
    file = _file(tmp_path, "cost = 3\n")
    with pytest.raises(PluginError, match="must be a function"):
        OwnCosts([f"{file}:cost"], _IMAGE)
    with pytest.raises(PluginError, match="did you mean 'cost'"):
        OwnCosts([f"{file}:costs"], _IMAGE)


def test_a_cost_may_do_to_its_network_what_it_likes(tmp_path: Path) -> None:
    file = _file(
        tmp_path,
        """
        def cost(network, example_input):
            network.weight.fill_(7)
            example_input.fill_(7)
            return 1
        """,
    )
    network, image = nn.Linear(2, 2), torch.zeros(1, 2)
    before = network.weight.clone()
    OwnCosts([f"{file}:cost"], image).measure(network)
    assert torch.equal(network.weight, before) and not image.any()


def test_an_evaluation_has_the_costs_of_the_network_that_it_judges(
    digits_task: PruningTask, tmp_path: Path
) -> None:
    file = _file(
        tmp_path,
        """
        from torch.utils.flop_counter import FlopCounterMode

        def flops(network, example_input):
            with FlopCounterMode(display=False) as counter:
                network(example_input)
            return counter.get_total_flops()

        def odd(network, example_input):
            return sum(each.out_channels % 2 for each in network.modules()
                       if hasattr(each, "out_channels"))

        def spread(network, example_input):
            return float(network(example_input).std())
        """,
    )
    names = tuple(f"{file}:{name}" for name in ("flops", "odd", "spread"))
    spec = EvaluatorSpec(precision="fp32", costs=names, measures=("accuracy",))  # type: ignore[arg-type]
    evaluator = build_evaluator(digits_task, spec, 0)
    dense = count_flops(digits_task.network, digits_task.example_input)
    assert evaluator.costs.tables.own[names[0]] == dense
    widths = tuple(max(1, size // 2) | 1 for size in evaluator.groups.sizes)
    evaluation = evaluator.evaluate(widths)
    assert evaluation.costs[names[0]] == pytest.approx(evaluation.costs["flops"])
    # The dense network has no odd width, so that there are no fractions of it.
    assert evaluator.dense.costs[names[1]] == 0.0
    assert evaluation.costs[names[1]] == len(widths)
    # Recalibrated as the one that was judged: only the images of the recalibration differ.
    with torch.no_grad():
        expected = float(evaluator.build(widths, "quick")(digits_task.example_input).std())
    found = evaluation.costs[names[2]] * evaluator.costs.tables.own[names[2]]
    assert found == pytest.approx(expected, rel=0.1)


def test_costs_are_part_of_what_an_evaluation_is(digits_task: PruningTask, tmp_path: Path) -> None:
    keys = set()
    for folder, body in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / folder).mkdir()
        file = _file(tmp_path / folder, f"def cost(network, image):\n    return {body}\n")
        spec = EvaluatorSpec(precision="fp32", costs=(f"{file}:cost",), measures=("accuracy",))  # type: ignore[arg-type]
        keys.add(build_evaluator(digits_task, spec, 0).key)
    keys.add(build_evaluator(digits_task, EvaluatorSpec(precision="fp32"), 0).key)
    assert len(keys) == 4
