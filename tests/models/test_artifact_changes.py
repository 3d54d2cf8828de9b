"""Artifacts notice every change of what they say and of their weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from prunetune.errors import PruneTuneError
from prunetune.models import (
    load_artifact,
    verify_artifact,
)

from .artifacts import change, sign_weights, write


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact that nobody changes."""
    folder = tmp_path_factory.mktemp("template") / "a"
    write(folder)
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return tmp_path


_CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a unit less": lambda d: d["kept"]["stem.0"].pop(),
    "a unit twice": lambda d: d["kept"]["stem.0"].append(d["kept"]["stem.0"][-1]),
    "a unit that is not there": lambda d: d["kept"].update({"stem.0": [999]}),
    "a negative unit": lambda d: d["kept"].update({"stem.0": [-1]}),
    "no unit": lambda d: d["kept"].update({"stem.0": []}),
    "units that are no numbers": lambda d: d["kept"].update({"stem.0": ["a"]}),
    "another width": lambda d: d["widths"].update({"stem.0": 5 + d["widths"]["stem.0"]}),
    "no such group": lambda d: d["kept"].pop("stem.0"),
    "no widths": lambda d: d.pop("widths"),
    "no decisions": lambda d: d["decisions"].pop("stem.0"),
    "another channel": lambda d: d["layers"]["stem.0"].update(outputs=[0]),
    "a channel that is not there": lambda d: d["layers"]["stem.0"].update(outputs=[999]),
    "a channel of 10,000 bits": lambda d: d["layers"]["stem.0"].update(outputs=[2**10000]),
    "no channels": lambda d: d["layers"]["stem.0"].update(outputs=[]),
    "a layer that is not there": lambda d: d["layers"].update(
        {"stem.9": {"outputs": [0], "inputs": None}}
    ),
    "a layer that cannot be narrower": lambda d: d["layers"].update(
        {"": {"outputs": [0], "inputs": None}}
    ),
    "a layer that keeps all": lambda d: d["layers"].pop("stem.0"),
    "other outputs": lambda d: d["outputs"][0].__setitem__(0, 9.0 + d["outputs"][0][0]),
    "outputs of other classes": lambda d: d["outputs"][0].pop(),
    "no outputs": lambda d: d.update(outputs=[]),
    "fewer FLOPs": lambda d: d["measured"].update(flops=d["measured"]["flops"] - 2),
    "more parameters": lambda d: d["measured"].update(params=d["measured"]["params"] + 1),
    "FLOPs without end": lambda d: d["measured"].update(flops="1e999"),
    "nothing measured": lambda d: d.pop("measured"),
    "no provenance": lambda d: d.pop("provenance"),
    "a budget that is no number": lambda d: d["provenance"].update(budgets={"flops": "half"}),
    "a budget that is not met": lambda d: d["provenance"].update(budgets={"params": 0.001}),
    "another network": lambda d: d["network"].update(model="resnet20"),
    "an unknown network": lambda d: d["network"].update(model="digitsnet"),
    "a network without end": lambda d: d["network"].update(model="a" * 10**6),
    "no network": lambda d: d.pop("network"),
    "another input": lambda d: d["network"].update(input_shape=[3, 8, 8]),
    "another number of classes": lambda d: d["network"].update(num_classes=11),
    "more classes than there can be": lambda d: d["network"].update(num_classes=10**9),
    "larger images than there can be": lambda d: d["network"].update(input_shape=[1, 10**6, 10**6]),
    "a number that is a truth": lambda d: d["network"].update(num_classes=True),
    "another format": lambda d: d.update(format=99),
    "a format that is none": lambda d: d.update(format=[]),
    "something more": lambda d: d.update(code="print()"),
    "half a character": lambda d: None,
    "values that are nested deeply": lambda d: d["provenance"].update(run=_nested(100)),
}


def _nested(depth: int) -> list[Any]:
    return [_nested(depth - 1)] if depth else []


@pytest.mark.parametrize("name", sorted(_CHANGES))
def test_a_changed_description_is_noticed_in_one_sentence(folder: Path, name: str) -> None:
    verify_artifact(folder)
    if name == "half a character":
        path = folder / "pruning.json"
        path.write_text(
            path.read_text().replace('"provenance": {', '"provenance": {"a": "\\ud800",')
        )
    else:
        change(folder, _CHANGES[name])
    with pytest.raises(PruneTuneError) as caught:
        verify_artifact(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 3000


@pytest.mark.parametrize("part", ["measured", "provenance", "network", "outputs"])
def test_the_digest_covers_everything_that_is_said(folder: Path, part: str) -> None:

    def edit(content: dict[str, Any]) -> None:
        if part == "outputs":
            content[part][0][0] += 1e-6
        else:
            content[part]["test_after"] = 0.99

    change(folder, edit, sign=False)
    with pytest.raises(PruneTuneError, match="changed after it was written"):
        load_artifact(folder)


@pytest.mark.parametrize(
    "text",
    [b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b'{"format": NaN}', b"1" * 5000, b""],
)
def test_what_is_no_json_is_one_sentence(folder: Path, text: bytes) -> None:
    (folder / "pruning.json").write_bytes(text)
    with pytest.raises(PruneTuneError, match="not valid JSON") as caught:
        load_artifact(folder)
    assert "\n" not in str(caught.value)


def test_changed_weights_are_noticed(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    weights["linear.bias"][0] += 1e-3
    safetensors.torch.save_file(weights, path)
    for read in (load_artifact, verify_artifact):
        with pytest.raises(PruneTuneError, match="weights"):
            read(folder)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(PruneTuneError, match="safetensors"):
        load_artifact(folder)
    path.unlink()
    with pytest.raises(PruneTuneError, match="does not exist"):
        verify_artifact(folder)


_WEIGHTS: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "half precision": lambda w: {name: each.half() for name, each in w.items()},
    "double precision": lambda w: {**w, "linear.bias": w["linear.bias"].double()},
    "whole numbers": lambda w: {**w, "linear.bias": w["linear.bias"].long()},
    "NaN": lambda w: {**w, "linear.bias": w["linear.bias"] * torch.nan},
    "negative variances": lambda w: {**w, "stem.1.running_var": -w["stem.1.running_var"]},
    "other values": lambda w: {**w, "linear.bias": w["linear.bias"] + 3},
    "another shape": lambda w: {**w, "linear.bias": w["linear.bias"][:5].clone()},
    "one more": lambda w: {**w, "more": torch.zeros(3)},
    "one less": lambda w: {name: each for name, each in w.items() if name != "linear.bias"},
}


@pytest.mark.parametrize("name", sorted(_WEIGHTS))
def test_weights_of_another_kind_are_refused_though_digests_fit(folder: Path, name: str) -> None:
    path = folder / "model.safetensors"
    safetensors.torch.save_file(_WEIGHTS[name](safetensors.torch.load_file(path)), path)
    sign_weights(folder)
    with pytest.raises(PruneTuneError) as caught:
        load_artifact(folder)
    assert "\n" not in str(caught.value)
