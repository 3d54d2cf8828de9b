"""The command line: every mistake is one sentence and exit code 2; a whole search works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import prunetune
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from prunetune.models import build_network, save_weights
from prunetune.search.engine.entry import RunInterrupted
from prunetune.search.run.summary import Summary

from .commands import assert_one_sentence, invoke
from .small_run import small_run_values

_SPEC: dict[str, Any] = {
    "task": {"model": "digits-net", "data": "digits"},
    "budgets": {"flops": 0.5},
    "agent": "random",
    "evaluations": 8,
    "finetune": {"epochs": 0},
}
_COMMANDS = ("quickstart", "search", "compare", "resume", "report", "verify", "export", "list")


def _write(folder: Path, **changes: Any) -> Path:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({**_SPEC, **changes}))
    return path


@pytest.mark.parametrize("command", _COMMANDS)
def test_help_has_an_example(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"Example: prunetune {command}" in " ".join(result.output.split())


def test_help_does_not_import_what_is_slow() -> None:
    script = (
        "import sys, prunetune, prunetune.cli.app; "
        "slow = ('torch', 'ray', 'matplotlib', 'sklearn', 'pydantic'); "
        "print([name for name in slow if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_reading_a_spec_and_timing_a_network_say_nothing_about_cuda() -> None:
    script = (
        "import sys, torch, prunetune.search.spec.reading; "
        "from prunetune.models.costs.latency_measuring import measure_latency; "
        "print([name for name in ('ray', 'optuna') if name in sys.modules]); "
        "measure_latency(torch.nn.Linear(2, 2).eval(), torch.zeros(1, 2), 1e-3)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_HOME": "/usr/local"},
    )
    assert done.stdout.strip() == "[]", "agents are imported when a spec names them"
    assert "CUDA" not in done.stderr
    assert done.returncode == 0, done.stderr


def test_version() -> None:
    assert prunetune.__version__ in invoke("--version").output


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("models", "resnet56"),
        ("data", "digits"),
        ("rewards", "spatial-entropy"),
        ("costs", "latency"),
        ("measures", "agreement"),
        ("criteria", "l1"),
        ("agents", "ppo-lagrangian"),
    ],
)
def test_list_names_what_specs_may_use(kind: str, name: str) -> None:
    found = json.loads(invoke("list", kind, "--json").stdout)
    assert name in found
    assert all(found.values()), "every name says what it means"
    assert name in invoke("list", kind).stdout


def test_missing_spec(tmp_path: Path) -> None:
    assert_one_sentence(invoke("search", tmp_path / "none.yaml"), "none.yaml")


def test_spec_that_is_not_yaml(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("task: [unclosed")
    assert_one_sentence(invoke("search", path), "not YAML")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"evaluatoins": 3}, ("evaluatoins", "'evaluations'")),
        ({"task": {"model": "digits-net", "wieghts": "x.pt"}}, ("wieghts", "'weights'")),
        ({"task": {"model": "resnet57"}}, ("resnet57", "resnet5")),
        ({"task": {"model": "digits-net", "data": "digit"}}, ("digit", "'digits'")),
        ({"reward": "acuracy"}, ("acuracy", "'accuracy'")),
        ({"agent": "randm"}, ("randm", "'random'")),
        ({"criterion": "l3"}, ("l3",)),
        ({"budgets": {"flop": 0.5}}, ("flop", "'flops'")),
        ({"budgets": {"flops": 0}}, ("flops", "above 0")),
        ({"budgets": {"flops": -0.5}}, ("flops", "above 0")),
        ({"budgets": {"flops": "half"}}, ("half",)),
        ({"budgets": {"flops": 1e-5}}, ("cannot be reached",)),
        ({"task": {"model": "none.py:build"}}, ("none.py", "does not exist")),
        ({"task": {"model": "digits-net", "weights": "none.pt"}}, ("none.pt", "does not exist")),
        ({"task": {"model": "digits-net", "data": "parquet:nowhere"}}, ("nowhere",)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_specs(
    changes: dict[str, Any], parts: tuple[str, ...], tmp_path: Path, digits_task: object
) -> None:
    result = invoke("search", _write(tmp_path, **changes), "--output", tmp_path / "run")
    assert_one_sentence(result, *parts)
    assert not (tmp_path / "run").exists(), "nothing half-written"


def test_wrong_overrides(tmp_path: Path) -> None:
    spec = _write(tmp_path)
    assert_one_sentence(invoke("search", spec, "--set", "seed"), "seed", "key.sub=value")
    assert_one_sentence(invoke("search", spec, "--set", "sed=1"), "sed", "'seed'")
    assert_one_sentence(invoke("quickstart", "--set", "evaluations=0"), "evaluations")


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    other = build_network("resnet20", 10, (3, 32, 32))
    save_weights(other.state_dict(), tmp_path / "resnet20.safetensors")
    task = {"model": "digits-net", "weights": "resnet20.safetensors"}
    result = invoke("search", _write(tmp_path, task=task))
    assert_one_sentence(result, "resnet20.safetensors", "another architecture")


def test_weights_for_other_classes(tmp_path: Path) -> None:
    other = build_network("digits-net", 7, (1, 8, 8))
    save_weights(other.state_dict(), tmp_path / "seven.safetensors")
    task = {"model": "digits-net", "weights": "seven.safetensors"}
    result = invoke("search", _write(tmp_path, task=task))
    assert_one_sentence(result, "7 classes")


@pytest.mark.parametrize("content", ["empty", "corrupt", "no rows"])
def test_parquet_that_cannot_be_used(content: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if content == "corrupt":
        (data / "train-0.parquet").write_bytes(b"PAR1 not really PAR1")
    elif content == "no rows":
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        schema = pa.schema([("image", image), ("label", pa.int64())])
        pq.write_table(schema.empty_table(), data / "train-0.parquet")
    task = {"model": "digits-net", "data": "parquet:data"}
    assert_one_sentence(invoke("search", _write(tmp_path, task=task)), "data")


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))", "7"),
        (
            "network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10))\n"
            "    nn.init.constant_(network[0].weight, float('nan'))\n"
            "    return network",
            "not",
        ),
        ("return 3", "torch.nn.Module"),
        ("raise RuntimeError('no luck')", "no luck"),
    ],
    ids=["classes", "nan", "no network", "raises"],
)
def test_networks_that_cannot_be_used(body: str, part: str, tmp_path: Path) -> None:
    source = f"from torch import nn\n\n\ndef build():\n    {body}\n"
    (tmp_path / "own.py").write_text(source)
    spec = _write(tmp_path, task={"model": "own.py:build"})
    result = invoke("search", spec, "--output", tmp_path / "run")
    assert_one_sentence(result, part)
    assert not (tmp_path / "run").exists(), "nothing half-written"


def test_run_folder_that_exists(tmp_path: Path) -> None:
    taken = tmp_path / "run"
    taken.mkdir()
    (taken / "precious.txt").write_text("mine")
    result = invoke("search", _write(tmp_path), "--output", taken)
    assert_one_sentence(result, "run")
    assert [path.name for path in taken.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize(
    ("stopped", "said"),
    [
        (RunInterrupted("runs/spec-7"), "prunetune resume runs/spec-7"),
        (KeyboardInterrupt(), "nothing was written"),
    ],
    ids=["a run", "before a run"],
)
def test_ctrl_c_says_what_is_left(
    stopped: KeyboardInterrupt, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object) -> None:
        raise stopped

    monkeypatch.setattr("prunetune.search.api.stored_runs.run_comparison", run)
    result = invoke("search", _write(tmp_path))
    assert result.exit_code == 130
    assert said in result.stderr


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    # Below a file, because the superuser may write to any folder.
    (tmp_path / "file").write_text("")
    result = invoke("search", _write(tmp_path), "--output", tmp_path / "file" / "run")
    assert_one_sentence(result, "file")


@pytest.mark.parametrize("command", ["resume", "report", "verify", "export"])
def test_folder_that_is_not_ours(command: str, tmp_path: Path) -> None:
    assert_one_sentence(invoke(command, tmp_path), str(tmp_path))
    assert_one_sentence(invoke(command, tmp_path / "none"), "none")


def _command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prunetune", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )


@pytest.mark.slow
@pytest.mark.ray
def test_search_ends_within_its_budget(tmp_path: Path, digits_task: object) -> None:
    spec = _write(tmp_path, agent="ppo-lagrangian", evaluations=32, finetune={"epochs": 1})
    done = _command("search", spec, "--output", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run, printed = tmp_path / "run", json.loads(done.stdout)
    assert printed["status"] == "finished"
    (best,) = printed["best"]
    assert best["feasible"]
    assert best["costs"]["flops"] <= 0.5
    assert best["flops"] <= 0.5 * printed["dense"]["flops"]
    assert 0.1 < best["test_after"] <= 1.0
    assert printed["evaluations"]["asked"] == 32
    expected = {"spec.yaml", "environment.json", "evaluations", "best", "report", "summary.json"}
    assert expected <= {path.name for path in run.iterdir()}
    values = yaml.safe_load((run / "spec.yaml").read_text())
    assert values["finalists"] == 3, "every default is written out"


@pytest.mark.ray
def test_artifact_of_a_search_verifies(finished: Summary) -> None:
    (best,) = finished.best
    assert best.artifact is not None
    result = invoke("verify", finished.folder / best.artifact, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["flops"] == best.flops
    assert facts["params"] == best.params


@pytest.mark.ray
def test_artifact_of_a_search_is_exported(finished: Summary, tmp_path: Path) -> None:
    (best,) = finished.best
    assert best.artifact is not None
    artifact = finished.folder / best.artifact
    result = invoke("export", artifact, "--output", tmp_path / "network.pt2")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "network.pt2").stat().st_size > 0


@pytest.mark.ray
def test_report_is_written_from_the_folder(finished_copy: Path) -> None:
    result = invoke("report", finished_copy)
    assert result.exit_code == 0, result.output
    assert "2 x multiply-accumulates" in " ".join(result.output.split())
    assert (finished_copy / "report" / "index.html").exists()


@pytest.mark.ray
def test_finished_runs_do_not_run_again(finished_copy: Path) -> None:
    before = json.loads((finished_copy / "summary.json").read_text())
    result = invoke("resume", finished_copy, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["best"] == before["best"]
    spec = _write(finished_copy.parent)
    assert_one_sentence(invoke("search", spec, "--output", finished_copy), "resume")


@pytest.mark.ray
def test_a_search_continues_where_it_is_told_to(finished_copy: Path) -> None:
    before = json.loads((finished_copy / "summary.json").read_text())
    spec = finished_copy.parent / "spec.yaml"
    values = small_run_values(finished_copy.parent)
    spec.write_text(yaml.safe_dump(values))
    again = ("--output", finished_copy, "--resume")
    result = invoke("search", spec, *again, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["best"] == before["best"]
    spec.write_text(yaml.safe_dump({**values, "seed": 1}))
    assert_one_sentence(invoke("search", spec, *again), "its seed is 0")
