"""Specs: defaults, shorthands, overrides, paths, and one sentence for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from prunetune.errors import SpecError
from prunetune.search.spec.reading import SearchSpec, load_spec

MINIMAL = "task: {model: digits-net}\nbudgets: {flops: 0.5}\n"


def _write(folder: Path, text: str) -> Path:
    path = folder / "first.yaml"
    path.write_text(text)
    return path


def test_model_and_budgets_are_enough_and_the_name_is_that_of_the_file(tmp_path: Path) -> None:
    spec = load_spec(_write(tmp_path, MINIMAL))
    assert spec.name == "first"
    assert (spec.reward.name, spec.agent.name, spec.evaluations) == (
        "accuracy",
        "ppo-lagrangian",
        1000,
    )
    assert spec.seeds == (0,)


def test_a_resolved_spec_says_everything_and_reads_back_equal(tmp_path: Path) -> None:
    spec = load_spec(
        _write(
            tmp_path,
            MINIMAL
            + "reward: {name: weighted-sum, parameters: {weights: {accuracy: 1}}}\n"
            + "compare: {rewards: [accuracy, loss], seeds: 5, budgets: [{flops: 60M}]}\n",
        )
    )
    written = yaml.safe_load(yaml.safe_dump(spec.to_dict()))
    assert SearchSpec.model_validate(written) == spec
    assert written["finetune"]["epochs"] == spec.finetune.epochs
    assert written["task"]["data"]["name"] == "digits"
    assert spec.seeds == (0, 1, 2, 3, 4)


def test_overrides_are_yaml_at_dotted_paths(tmp_path: Path) -> None:
    overrides = [
        "evaluations=48",
        "task.validation=100",
        "budgets={params: 0.3}",
        "reward=spatial-entropy",
        "agent.parameters.candidates=8",
        "cluster.address=null",
    ]
    spec = load_spec(_write(tmp_path, MINIMAL + "agent: random\n"), overrides)
    assert spec.evaluations == 48
    assert spec.task.validation == 100
    assert spec.budgets == {"params": 0.3}
    assert spec.reward.name == "spatial-entropy"
    assert (spec.agent.name, spec.agent.parameters) == ("random", {"candidates": 8})


def test_paths_are_relative_to_the_file_and_absolute_ones_stay(tmp_path: Path) -> None:
    text = (
        "task: {model: 'mine.py:net', weights: w/net.pt, data: 'parquet:data/cifar10'}\n"
        "budgets: {flops: 0.5, 'mine.py:cost': 0.4}\n"
        "reward: {name: 'mine.py:Mine'}\n"
        "compare: {rewards: ['mine.py:Other', 'package.module:Third', accuracy],"
        " agents: ['/somewhere/a.py:Agent'], budgets: [{'mine.py:cost': 0.1}]}\n"
    )
    spec = load_spec(_write(tmp_path, text))
    assert spec.task.weights == tmp_path / "w/net.pt"
    assert spec.task.data.root == tmp_path / "data/cifar10"
    assert spec.task.model == f"{tmp_path}/mine.py:net"
    assert spec.reward.name == f"{tmp_path}/mine.py:Mine"
    assert list(spec.budgets) == ["flops", f"{tmp_path}/mine.py:cost"]
    assert [reward.name for reward in spec.compare.rewards] == [
        f"{tmp_path}/mine.py:Other",
        "package.module:Third",
        "accuracy",
    ]
    assert spec.compare.agents[0].name == "/somewhere/a.py:Agent"
    assert list(spec.compare.budgets[0]) == [f"{tmp_path}/mine.py:cost"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task: {modle: x}\nbudgets: {flops: 0.5}", "'task.modle' is not a key; did you mean 'mod"),
        (MINIMAL + "rewrad: accuracy", "'rewrad' is not a key; did you mean 'reward'?"),
        (MINIMAL + "cluster: {adress: auto}", "did you mean 'address'?"),
        (MINIMAL + "compare: {rewards: [{nam: x}]}", "'compare.rewards.0.nam'"),
        ("task: {model: digits-net}", "the key 'budgets' is missing; add it."),
        ("budgets: {flops: 0.5}\ntask: {}", "the key 'task.model' is missing; add it."),
        (MINIMAL + "images: 0", "'images' is 0, but it should be greater than or equal to 2"),
        (MINIMAL + "evaluations: 0", "'evaluations' is 0, but it should be greater than or equal"),
        (
            MINIMAL + "evaluations: many",
            "'evaluations' is 'many', but it should be a valid",
        ),
        (MINIMAL + "repair: qick", "'none', 'quick', 'light' or 'full'"),
        (MINIMAL + "cluster: {evaluators: 0}", "'cluster.evaluators' is 0, but it should be"),
        (MINIMAL + "compare: {rewards: [accuracy, accuracy]}", "names 'accuracy' twice"),
        ("task: {model: x}\nbudgets: {flops: 0}", "the budget flops: 0 must be above 0"),
        ("task: {model: x}\nbudgets: {flops: -0.5}", "the budget flops: -0.5 must be above 0"),
        ("task: {model: x}\nbudgets: {flops: [1, 2, 3]}", "'budgets.flops' is [1, 2, 3]"),
        ("task: {model: x}\nbudgets: {flops: [0, 0.5]}", "the budget flops: 0 must be above 0"),
        ("task: digits-net\nbudgets: {flops: 0.5}", "'task' must hold keys and values"),
        (
            "task: {model: x, data: {name: digits, mean: [0.5]}}\nbudgets: {flops: 1}",
            "mean and std",
        ),
        ("[1, 2]", "must hold keys and values"),
        ("", "must hold keys and values"),
        ("task: {model: x", "is not YAML"),
    ],
)
def test_every_mistake_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(_write(tmp_path, text))
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert message.endswith((".", "?"))


def test_a_missing_file_and_bad_overrides_are_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="There is no spec file"):
        load_spec(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="not of the form"):
        load_spec(_write(tmp_path, MINIMAL), ["evaluations"])
    with pytest.raises(SpecError, match="did you mean 'evaluations'"):
        load_spec(_write(tmp_path, MINIMAL), ["evaluation=3"])
