"""Specs: defaults, shorthands, overrides, paths, and one sentence for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from prunetune.errors import PruneTuneError, SpecError
from prunetune.search.spec.paths import anchor_paths
from prunetune.search.spec.reading import SearchSpec, load_spec, read_spec

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
            + "reward: {name: weighted-sum, parameters: {terms: {accuracy: 1}}}\n"
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
    spec = load_spec(_write(tmp_path, text), check=False)
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


DEEP = "[" * 60 + "]" * 60
VERY_DEEP = "[" * 5000 + "]" * 5000
LONG = "a" * 250
# Nine aliases of nine aliases of ...: a few hundred bytes that stand for a billion values.
ALIASES = "measures:\n- &a0 [x]\n" + "".join(
    f"- &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINIMAL + f"measures: {DEEP}", "is nested more than 50 deep"),
        (MINIMAL + f"measures: {VERY_DEEP}", "is nested too deeply"),
        (MINIMAL + "reward: &self [*self]", "is nested more than 50 deep"),
        (MINIMAL + "name: 2026-13-01", "has a value that YAML cannot read (month must be in 1..12"),
        (MINIMAL + "name: !!bool maybe", "has a value that YAML cannot read"),
        (MINIMAL + "compare: {seeds: 2147483648}", "should be less than or equal to 10000"),
        (MINIMAL + "compare: {seeds: [4294967296]}", "should be less than 4294967296"),
        (MINIMAL + "finetune: {learning_rate: .inf}", "it should be a finite number"),
        (MINIMAL + "agent: {name: ppo-lagrangian, parameters: {std: .inf}}", "std: inf should be"),
        (MINIMAL + "agent: {name: ppo-lagrangian, parameters: {std: .nan}}", "std: nan should be"),
        (MINIMAL + "reward: {name: weighted-sum, parameters: {terms: {loss: .inf}}}", "finite"),
        (MINIMAL + "cluster: {evaluator_cpus: .inf}", "it should be a finite number"),
        (MINIMAL + f"reward: 'own.py:{LONG}'", "bytes, and a folder's may have 230"),
        (MINIMAL + ALIASES, "has more than 100000 values"),
        (MINIMAL + "# " + "x" * 5_000_000, "is too large for a spec"),
        (
            MINIMAL + "compare: {rewards: [accuracy, loss], agents: [random, tpe], seeds: 9999}",
            "has 39996 searches",
        ),
        (
            "task: {model: digits-net, data: {name: digits, mean: [.nan], std: [1]}}\n"
            "budgets: {flops: 1}",
            "'task.data.mean.0' is nan, but it should be a finite number",
        ),
        (
            "task: {model: digits-net, data: {name: digits, mean: [0], std: [.inf]}}\n"
            "budgets: {flops: 1}",
            "'task.data.std.0' is inf, but it should be a finite number",
        ),
    ],
    ids=lambda value: value[-40:] if len(value) > 40 else value,
)
def test_what_yaml_and_numbers_cannot_mean_is_one_sentence(
    tmp_path: Path, text: str, said: str
) -> None:
    test_every_mistake_is_one_sentence(tmp_path, text, said)


OWN = """
from prunetune.models import Criterion
from prunetune.rewards import Reward


class Mine(Reward):
    name = "mine"
    measures = ("accuracy",)

    def __init__(self, weight: float = 1.0) -> None:
        if weight < 0:
            raise ValueError("weight must not be negative")

    def __call__(self, evaluation, dense):
        return 0.0


def cost(network, image):
    return 1.0
"""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("reward: {name: weighted-sum, parameters: {term: {}}}", "did you mean 'terms'?"),
        ("reward: {name: weighted-sum, parameters: {terms: {los: 1}}}", "did you mean 'loss'?"),
        ("reward: {name: spatial-entropy, parameters: {goal: less}}", "'minimise', 'preserve' or"),
        ("reward: {name: spatial-entropy, parameters: {goal: 1}}", "goal: 1, but it should be"),
        ("compare: {rewards: [accuracy, acuracy]}", "did you mean 'accuracy'?"),
        (
            "measures: [{name: agreement, parameters: {temperatur: 2}}]",
            "did you mean 'temperature'",
        ),
        ("measures: [{name: agreement, parameters: {temperature: 0}}]", "it must be positive"),
        ("measures: [{name: agreement, parameters: {temperature: true}}]", "valid number"),
        ("measures: [loss, loss]", "both write the column 'loss'"),
        ("criterion: tailor", "did you mean 'taylor'?"),
        ("criterion: {name: l1, parameters: {norm: 2}}", "no parameter 'norm'; it takes none"),
        ("agent: {name: random, parameters: {candidats: 3}}", "did you mean 'candidates'?"),
        ("agent: {name: random, parameters: {candidates: many}}", "candidates: 'many', but it"),
        ("agent: {name: random, parameters: {candidates: true}}", "candidates: True, but it"),
        ("agent: {name: random, parameters: {seed: 3}}", "has no parameter 'seed'"),
        ("agent: randon", "did you mean 'random'?"),
        ("compare: {agents: [{name: tpe, parameters: {seeds: 3}}]}", "no parameter 'seeds'"),
        ("compare: {budgets: [{flop: 0.5}]}", "did you mean 'flops'?"),
        ("reward: 'own.py:Mein'", "did you mean 'Mine'?"),
        ("reward: {name: 'own.py:Mine', parameters: {wieght: 1}}", "did you mean 'weight'?"),
        ("reward: {name: 'own.py:Mine', parameters: {weight: -1}}", "weight must not be negative"),
        ("reward: 'own.py:cost'", "must be a subclass of prunetune.rewards.Reward"),
        ("reward: 'none.py:Mine'", "does not exist"),
        ("reward: 'broken.py:Mine'", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_names_and_parameters_are_checked_when_the_spec_is_read(
    tmp_path: Path, more: str, said: str
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("import no_such_module")
    path = _write(tmp_path, MINIMAL + more)
    with pytest.raises(PruneTuneError) as caught:
        load_spec(path)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    load_spec(path, check=False)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("{model: digit-net}", "did you mean 'digits-net'?"),
        ("{model: 'torchvision:resnet51'}", "did you mean 'resnet50'?"),
        ("{model: digits-net, data: digit}", "did you mean 'digits'?"),
        ("{model: 'none.py:net'}", "does not exist"),
    ],
)
def test_networks_and_data_are_checked_when_the_spec_is_read(
    tmp_path: Path, task: str, said: str
) -> None:
    with pytest.raises(PruneTuneError) as caught:
        load_spec(_write(tmp_path, f"task: {task}\nbudgets: {{flops: 0.5}}"))
    assert said in str(caught.value)


def test_a_spec_is_read_without_importing_the_users_files(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("raise SystemExit('imported')")
    text = MINIMAL + "reward: 'own.py:Mine'\nagent: 'own.py:Agent'\ncriterion: 'own.py:Rank'"
    spec = load_spec(_write(tmp_path, text), check=False)
    assert read_spec(spec.to_dict(), check=False) == spec


def test_a_criterion_without_parameters_is_written_as_its_name() -> None:
    values = {"task": {"model": "digits-net"}, "budgets": {"flops": 0.5}}
    plain = read_spec({**values, "criterion": "taylor"})
    assert plain.to_dict()["criterion"] == "taylor"
    assert plain == read_spec({**values, "criterion": {"name": "taylor"}})
    named = {"name": "own.py:Rank", "parameters": {"power": 2}}
    spec = read_spec({**values, "criterion": named}, check=False)
    assert spec.to_dict()["criterion"] == named
    assert anchor_paths(spec.to_dict(), Path("/there"))["criterion"] == {
        "name": "/there/own.py:Rank",
        "parameters": {"power": 2},
    }


def test_a_missing_file_and_bad_overrides_are_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="There is no spec file"):
        load_spec(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="not of the form"):
        load_spec(_write(tmp_path, MINIMAL), ["evaluations"])
    with pytest.raises(SpecError, match="did you mean 'evaluations'"):
        load_spec(_write(tmp_path, MINIMAL), ["evaluation=3"])


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("task: {model: digits-net}\nbudgets: {flops: 0.5}\nseed: 1\nseed: 2\n")
    with pytest.raises(SpecError, match=r"the key 'seed' is there twice, line 4"):
        load_spec(path)
