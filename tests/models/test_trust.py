"""A stranger's artifact is data: nothing runs, and nothing is read outside its folder."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from prunetune.errors import NetworkError, PruneTuneError
from prunetune.models import build_network, load_artifact, verify_artifact
from prunetune.models.artifact.exporting import export_artifact
from torch import nn

from ..commands import assert_one_sentence, invoke
from .artifacts import SHAPE, change, users_file, write


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """An artifact of a file's network, that file, and the trace that running it would leave."""
    folder, trace = tmp_path / "a", tmp_path / "trace"
    file = users_file(tmp_path, trace)
    write(folder, f"{file}:small")
    trace.unlink()
    for name in [each for each in sys.modules if "_prunetune_user_mine" in each]:
        monkeypatch.delitem(sys.modules, name)
    return folder, file, trace


def _nothing_runs(folder: Path, trace: Path, said: str) -> None:
    reads: list[Callable[[Path], Any]] = [
        load_artifact,
        verify_artifact,
        lambda where: export_artifact(where, "torch-export"),
    ]
    for read in reads:
        with pytest.raises(PruneTuneError) as caught:
            read(folder)
        assert said in str(caught.value) and "\n" not in str(caught.value)
        assert not trace.exists()


def test_no_file_that_an_artifact_names_is_run_unless_it_is_trusted(
    stranger: tuple[Path, Path, Path],
) -> None:
    folder, file, trace = stranger
    _nothing_runs(folder, trace, str(file))
    _nothing_runs(folder, trace, "trust=True (--trust)")
    network = load_artifact(folder, trust=True).network
    assert trace.exists()
    assert network(torch.zeros(1, *SHAPE)).shape == (1, 10)


@pytest.mark.parametrize(
    "form", ["beside", "relative", "above", "home", "link", "module", "dotted"]
)
def test_no_form_of_a_name_is_run(
    stranger: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    folder, file, trace = stranger
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(file.parent))
    monkeypatch.syspath_prepend(str(file.parent))
    shutil.copy(file, folder / "mine.py")
    (folder / "link.py").symlink_to(file)
    (file.parent / "package").mkdir()
    shutil.copy(file, file.parent / "package" / "__init__.py")
    model, said = {
        "beside": (f"{folder}/mine.py:small", "mine.py"),
        "relative": ("mine.py:small", "mine.py"),
        "above": ("../mine.py:small", "mine.py"),
        "home": ("~/mine.py:small", str(file)),
        "link": ("link.py:small", "link.py"),
        "module": ("mine:small", "module 'mine'"),
        "dotted": ("package.inner:small", "module 'package.inner'"),
    }[form]
    change(folder, lambda content: content["network"].update(model=model))
    _nothing_runs(folder, trace, said)
    if form not in ("dotted", "above"):
        load_artifact(folder, trust=True)
        assert trace.exists()


@pytest.mark.parametrize(
    "model", ["torchvision:../../mine", "torchvision:os", "timm:os", ":small", "os:system", "mine:"]
)
def test_names_of_packages_lead_to_their_networks_only(
    stranger: tuple[Path, Path, Path], model: str
) -> None:
    folder, _, trace = stranger
    change(folder, lambda content: content["network"].update(model=model))
    _nothing_runs(folder, trace, "")


def test_a_file_beside_an_artifact_is_no_package(
    stranger: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file, trace = stranger
    shutil.copy(file, folder / "timm.py")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    change(folder, lambda content: content["network"].update(model="timm:small"))
    _nothing_runs(folder, trace, "timm")


def test_what_the_reader_names_is_run_instead(stranger: tuple[Path, Path, Path]) -> None:
    folder, file, trace = stranger
    expected = load_artifact(folder, trust=True).network(torch.ones(1, *SHAPE))
    trace.unlink()
    moved = file.rename(file.with_name("moved.py"))
    with pytest.raises(PruneTuneError, match=r"does not exist.*if it has moved.*--model"):
        load_artifact(folder, trust=True)
    found = load_artifact(folder, model=f"{moved}:small").network(torch.ones(1, *SHAPE))
    assert torch.equal(found, expected)
    assert invoke("verify", folder, "--model", f"{moved}:small").exit_code == 0
    with pytest.raises(NetworkError, match="give the network that was pruned"):
        load_artifact(folder, model="resnet20")


def test_commands_ask_for_trust(stranger: tuple[Path, Path, Path], tmp_path: Path) -> None:
    folder, file, trace = stranger
    assert_one_sentence(invoke("verify", folder), str(file))
    assert_one_sentence(invoke("export", folder), "--trust")
    assert not trace.exists()
    assert invoke("verify", folder, "--trust").exit_code == 0
    assert trace.exists()


@pytest.mark.parametrize("name", ["pruning.json", "model.safetensors"])
def test_links_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    folder, elsewhere = tmp_path / "a", tmp_path / "b"
    write(folder)
    elsewhere.mkdir()
    (folder / name).rename(elsewhere / name)
    (folder / name).symlink_to(elsewhere / name)
    with pytest.raises(PruneTuneError, match="leads out of its folder"):
        load_artifact(folder)
    (folder / name).unlink()
    (folder / "inside").mkdir()
    (elsewhere / name).rename(folder / "inside" / name)
    (folder / name).symlink_to(folder / "inside" / name)
    load_artifact(folder)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "pruning.json").unlink()
    os.mkfifo(tmp_path / "pruning.json")
    with pytest.raises(PruneTuneError, match="is not an artifact"):
        load_artifact(tmp_path)


def test_a_description_of_any_length_is_not_read(tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / "pruning.json").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(PruneTuneError, match="bytes"):
        load_artifact(tmp_path)
    write(tmp_path)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(PruneTuneError, match="not a readable safetensors file"):
        load_artifact(tmp_path)


def test_nothing_is_built_that_the_weights_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    built: list[str] = []

    def noted(model: str, *facts: Any) -> nn.Module:
        built.append(model)
        return build_network(model, *facts)

    monkeypatch.setattr("prunetune.models.artifact.dense.build_network", noted)
    change(tmp_path, lambda d: d["network"].update(model="torchvision:vit_h_14", num_classes=60000))
    with pytest.raises(PruneTuneError):
        load_artifact(tmp_path)
    assert built == []
