"""Networks of a run folder that somebody else may have written."""

from __future__ import annotations

from pathlib import Path

import prunetune as pt
import pytest
import torch

from ..models.artifacts import SHAPE, users_file, write
from ..search.runs import finished_trial, write_run


def test_a_network_of_a_file_is_loaded_if_the_run_is_trusted(tmp_path: Path) -> None:
    file = users_file(tmp_path)
    trial = finished_trial("accuracy", 0.5, 0, 0.9)
    run = write_run(tmp_path / "run", [trial])
    saved = write(run.path / str(trial["artifact"]), f"{file}:small")
    with pytest.raises(pt.PruneTuneError, match=f"{file}.*trust=True"):
        _ = pt.open_run(run.path).best.network
    found = pt.open_run(run.path, trust=True).best.network
    images = torch.rand(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(found(images), saved(images))
    moved = file.rename(tmp_path / "moved.py")
    copied = pt.open_run(run.path).best.save(tmp_path / "copied")
    with torch.no_grad():
        assert torch.equal(pt.load(copied, model=f"{moved}:small").network(images), saved(images))
