"""What reads files that others may have written: for each kind an intact input, and its reader."""

from __future__ import annotations

import io
import json
import random
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from _mutations import change_bytes, change_file, change_text
from PIL import Image
from prunetune.errors import RunFolderError
from prunetune.models import build_network, load_artifact, slim, trace_channel_groups
from prunetune.models.artifact.files import content_digest
from prunetune.models.artifact.saving import Pruning, save_artifact
from prunetune.models.data import DataSpec, load_data
from prunetune.models.reductions.channels import ChannelsReduction, kept_channels
from prunetune.models.space import SearchSpace
from prunetune.models.weights import load_weights, save_weights
from prunetune.rewards import Evaluation
from prunetune.search.report import load_results, terminal_results
from prunetune.search.report.page import build_page
from prunetune.search.report.table import comparison_rows, write_fidelities, write_tables
from prunetune.search.run.checkpoints import (
    TrialEnd,
    TrialState,
    read_checkpoint,
    read_end,
    seal_checkpoint,
    write_end,
)
from prunetune.search.run.folder import RunFolder
from prunetune.search.run.history import Asked, TrialHistory
from prunetune.search.run.record import EvaluationRecord, RecordKey, read_record
from prunetune.search.run.summary import Best, Counts, Dense, Summary, write_summary
from prunetune.search.spec.reading import load_spec
from rich.console import Console

__all__ = ["TARGETS", "Target", "mutate"]

_SHAPE = (1, 8, 8)


@dataclass(frozen=True)
class Target:
    """One kind of input.

    Attributes:
        make: Writes an intact one into an empty folder.
        read: Reads one as the product does; what it returns is compared where it is checked.
        checked: Whether the format checks its content, so that what is accepted must be equal.
        closed: Whether nothing outside of it may be opened. The spec is the user's own and may name
            any file; so may a link among their images and weights.
    """

    make: Callable[[Path], object]
    read: Callable[[Path], Any]
    checked: bool = False
    closed: bool = True


def mutate(folder: Path, outside: Path, rng: random.Random) -> None:
    """Change one file of an intact input, or two."""
    for _ in range(rng.choice((1, 1, 1, 2))):
        files = sorted(
            path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
        )
        if not files:
            return
        path = rng.choice(files)
        if rng.random() < 0.12:
            change_file(path, rng, outside, files)
            continue
        kind = {".json": "json", ".yaml": "yaml", ".parquet": "parquet"}.get(path.suffix)
        try:
            if kind in ("json", "yaml") and rng.random() < 0.85:
                changed = change_text(path.read_bytes(), rng, outside, kind)
            elif kind == "parquet" and rng.random() < 0.6:
                changed = _other_columns(path.read_bytes(), rng)
            else:
                changed = change_bytes(path.read_bytes(), rng)
        except (ValueError, RecursionError, yaml.YAMLError, pa.ArrowException, OSError):
            # What an earlier change made of it, nobody can parse, or nothing can write.
            changed = change_bytes(path.read_bytes(), rng)
        path.write_bytes(changed)
        _signed(path, rng)


def _signed(path: Path, rng: random.Random) -> None:
    """Make a checksum anew, as one who knows the format would; now and then."""
    if path.name.startswith("part-") and rng.random() < 0.7:
        name = path.name[: -len("00000000.parquet")]
        path.rename(path.with_name(f"{name}{zlib.crc32(path.read_bytes()):08x}.parquet"))
    elif path.name == "pruning.json" and rng.random() < 0.7:
        try:
            content = json.loads(path.read_text())
            kept = {key: value for key, value in content.items() if key != "sha256"}
            content["sha256"] = content_digest(kept)
            path.write_text(json.dumps(content))
        except (ValueError, AttributeError, TypeError, RecursionError):
            pass


def _other_columns(content: bytes, rng: random.Random) -> bytes:
    """A table with a column of another type, missing, there twice, or with odd metadata."""
    table = pq.read_table(pa.BufferReader(content))
    place = rng.randrange(table.num_columns)
    name, rows = table.column_names[place], table.num_rows
    odd: list[Any] = [
        ["x"] * rows, [None] * rows, [-1] * rows, [2**62] * rows, [float("nan")] * rows,
        [[-(2**31)]] * rows, [[1, None]] * rows, [[]] * rows, [{"a": 1}] * rows, [b"\xff"] * rows,
        [True] * rows, [[["x"]]] * rows, [1e308] * rows, [[2**31 - 1] * 50] * rows,
    ]  # fmt: skip
    kind = rng.randrange(6)
    if kind <= 2:
        table = table.set_column(place, name, pa.array(rng.choice(odd)))
    elif kind == 3:
        table = table.remove_column(place)
    elif kind == 4:
        table = table.append_column(rng.choice(table.column_names), table.column(place))
    else:
        deep = b"[" * 100_000 + b"]" * 100_000
        table = table.replace_schema_metadata({"huggingface": deep, "pandas": deep})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


# --- specs --------------------------------------------------------------------------------------

_SPEC = """
name: fuzz
task: {model: digits-net, groups: inner, data: {name: digits}, training: {epochs: 2}}
budgets: {flops: 0.5, params: 60k}
criterion: l1
measures: [accuracy, {name: loss}]
reward: {name: weighted-sum, parameters: {terms: {accuracy: 1.0, loss: 0.5}}}
agent: {name: ppo-lagrangian, parameters: {std: 0.3, hidden: [16, 16], candidates: 4}}
evaluations: 16
images: 100
seed: 3
finetune: {epochs: 1, learning_rate: 0.01, distillation: 0.5}
cluster: {evaluators: 2, evaluator_cpus: 1.0}
compare: {rewards: [accuracy, loss], budgets: [{flops: [0.2, 0.7]}], agents: [random], seeds: [1]}
"""


def _write_spec(folder: Path) -> None:
    (folder / "spec.yaml").write_text(_SPEC)


def _read_spec(folder: Path) -> Any:
    return load_spec(folder / "spec.yaml").to_dict()


# --- runs ---------------------------------------------------------------------------------------

_KEY = RecordKey("t", "e", "fp32", "quick")
_GROUPS = {"stem": 4, "block": 8}
_TRIAL = "accuracy_flops0.5_random_seed0"


def _evaluations() -> list[Evaluation]:
    rng = np.random.default_rng(0)
    candidates = [(int(a), int(b)) for a in range(1, 5) for b in range(1, 9)]
    return [
        Evaluation(each, {"accuracy": float(rng.random())}, {"flops": each[0] * each[1] / 32})
        for each in candidates
    ]


def _write_record(folder: Path) -> None:
    record = EvaluationRecord(folder / "evaluations", _KEY)
    found = _evaluations()
    record.append(found[:20])
    record.append(found[20:])


def _read_record(folder: Path) -> Any:
    rows = [Evaluation.from_row(row) for row in read_record(folder / "evaluations").to_pylist()]
    return {each.candidate: each.measures.get("accuracy") for each in rows}


def _write_history(folder: Path) -> None:
    history = TrialHistory(folder / "histories" / _TRIAL)
    for number, each in enumerate(_evaluations()):
        if number % 16 == 0:
            batch: list[Asked] = []
        batch.append(Asked(each.candidate, each.measures["accuracy"], each.costs, True, number))
        if number % 16 == 15:
            history.write(number // 16, batch)


def _read_history(folder: Path) -> Any:
    return TrialHistory(folder / "histories" / _TRIAL).load()


def _write_run(folder: Path) -> None:
    spec = load_spec_values(folder)
    run = RunFolder.create(folder / "run", spec)
    _write_record(run.path)
    _write_history(run.path)
    trials = [
        Best(
            trial=_TRIAL if seed == 0 else f"other{seed}",
            reward="accuracy",
            budget={"flops": 0.5},
            agent="random",
            seed=seed,
            evaluations=32,
            feasible_candidates=20,
            feasible=True,
            candidate=(2, 3 + seed),
            costs={"flops": 0.4},
            flops=400_000,
            params=40_000,
            validation=0.9,
            test_before=0.85,
            test_after=0.9 + 0.01 * seed,
        )
        for seed in range(3)
    ]
    measures = {"accuracy": 0.9, "loss": 0.3}
    dense = Dense(
        test=0.97, validation=0.96, flops=10**6, params=10**5, groups=_GROUPS, measures=measures
    )
    summary = Summary(
        folder=run.path,
        name="fuzz",
        status="finished",
        task="digits-net on digits",
        criterion="l1",
        repair="quick",
        precision="fp32",
        best=tuple(trials),
        evaluations=Counts(asked=32, unique=32),
        dense=dense,
    )
    write_summary(run, summary)
    log = {"config": {"trial": {"name": _TRIAL}}, "training_iteration": 1, "multipliers/flops": 1.0}
    (run.tune / _TRIAL).mkdir(parents=True)
    (run.tune / _TRIAL / "result.json").write_text(json.dumps(log))


def load_spec_values(folder: Path) -> dict[str, Any]:
    """The intact spec with all defaults."""
    _write_spec(folder)
    values = _read_spec(folder)
    (folder / "spec.yaml").unlink()
    return dict(values)


def _read_run(folder: Path) -> Any:
    """Everything of a report but its pictures, which take a second each."""
    run = RunFolder.open(folder / "run")
    results = load_results(run)
    written = folder / "run" / "report"
    if not written.is_symlink():
        try:
            written.mkdir(exist_ok=True)
            write_tables(comparison_rows(results), written)
            write_fidelities([], written)
        except OSError as error:
            raise RunFolderError(str(error)) from None
    Console(file=io.StringIO(), width=160).print(terminal_results(results))
    return len(build_page(results, {}))


def _write_checkpoint(folder: Path) -> None:
    checkpoint = folder / "checkpoint_000001"
    (checkpoint / "policy").mkdir(parents=True)
    (checkpoint / "policy" / "state.bin").write_bytes(random.Random(0).randbytes(2000))
    (checkpoint / "agent.bin").write_bytes(b"agent" * 100)
    progress = TrialState(3, 24, {"reward": 0.5, "flops": 0.4})
    seal_checkpoint(checkpoint, progress)
    write_end(folder / "history", TrialEnd(24, progress, None))


def _read_checkpoint(folder: Path) -> Any:
    """A whole checkpoint means that what an agent loads is what was saved."""
    read_end(folder / "history", 24)
    checkpoint = folder / "checkpoint_000001"
    if read_checkpoint(checkpoint) is None:
        return None
    return [(checkpoint / name).read_bytes() for name in ("agent.bin", "policy/state.bin")]


# --- networks and images ------------------------------------------------------------------------


def _network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network("digits-net", 10, _SHAPE).eval()


def _write_weights(folder: Path) -> None:
    save_weights(_network().state_dict(), folder / "weights.safetensors")
    torch.save({"state_dict": _network().state_dict()}, folder / "weights.pth")


def _read_weights(folder: Path) -> None:
    for name in ("weights.safetensors", "weights.pth"):
        load_weights(_network(), folder / name)


def _write_artifact(folder: Path) -> None:
    network = _network()
    groups = trace_channel_groups(network, torch.rand(1, *_SHAPE), "all")
    kept = [np.arange(max(1, group.size // 2)) for group in groups]
    reduction = ChannelsReduction(groups.groups, kept)
    pruning = Pruning(
        model="digits-net",
        num_classes=10,
        input_shape=_SHAPE,
        scope="all",
        space=SearchSpace(reduction.decisions),
        candidate=tuple(len(units) for units in kept),
        kept={group.name: units.tolist() for group, units in zip(groups, kept, strict=True)},
        layers=kept_channels(network, groups, kept),
    )
    slimmed = slim(network, groups, kept)
    budgets = {"budgets": {"flops": 0.9}}
    save_artifact(folder, slimmed, network, pruning, provenance=budgets, measured={"test": 0.9})


def _read_artifact(folder: Path) -> Any:
    network = load_artifact(folder).network
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return network(torch.rand(4, *_SHAPE, generator=generator))


def _write_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    forms = {"png": {}, "jpeg": {"quality": 90}, "tiff": {}, "gif": {}, "bmp": {}, "webp": {}}
    for split in ("train", "test"):
        for label in ("a", "b"):
            inside = folder / "folder" / split / label
            inside.mkdir(parents=True)
            for form, options in forms.items():
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(inside / f"{form}.{form}", **options)
    cells = [{"bytes": path.read_bytes()} for path in sorted((folder / "folder").rglob("*.png"))]
    table = pa.table({"image": cells, "label": [0, 1] * (len(cells) // 2)})
    (folder / "parquet").mkdir()
    for split in ("train", "test"):
        pq.write_table(table, folder / "parquet" / f"{split}-0.parquet")


def _read_images(folder: Path) -> None:
    for name in ("folder", "parquet"):
        data = load_data(DataSpec(name=name, root=folder / name))
        for source in (data.train, data.test):
            source.load(np.arange(len(source)))


TARGETS: Mapping[str, Target] = {
    "spec": Target(_write_spec, _read_spec, closed=False),
    "record": Target(_write_record, _read_record),
    "history": Target(_write_history, _read_history),
    "run": Target(_write_run, _read_run),
    "checkpoint": Target(_write_checkpoint, _read_checkpoint, checked=True),
    "weights": Target(_write_weights, _read_weights, closed=False),
    "artifact": Target(_write_artifact, _read_artifact, checked=True),
    "images": Target(_write_images, _read_images, closed=False),
}
"""By name of the kind."""


def copied(intact: Path, folder: Path) -> None:
    """An input to be changed."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(intact, folder)
