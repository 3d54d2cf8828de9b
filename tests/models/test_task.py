"""Tasks: splits that keep their promises, the digest, the cache, and the real networks."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prunetune.errors import DataError, NetworkError, WeightsError
from prunetune.models import (
    DataSpec,
    LabelledImages,
    Progress,
    PruningTask,
    SilentProgress,
    TaskSpec,
    accuracy,
    build_network,
    load_task,
    save_weights,
)


@pytest.fixture(scope="module")
def digits_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights, which load at once."""
    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    save_weights(build_network("digits-net", 10, (1, 8, 8)).state_dict(), path)
    return path


def _rows(images: torch.Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in images}


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31), calibration=st.integers(1, 900), validation=st.integers(1, 900))
def test_splits_are_disjoint_and_from_train(
    digits_weights: Path, seed: int, calibration: int, validation: int
) -> None:
    spec = TaskSpec(
        model="digits-net", weights=digits_weights, calibration=calibration, validation=validation
    )
    task = load_task(spec, seed)
    count = len(task.data.train)
    assert len(task.calibration) == min(calibration, count // 4)
    assert len(task.validation) == min(validation, count // 4)
    assert len(task.train_indices) == count - len(task.validation)
    learned = _rows(task.data.labelled(task.data.train, task.train_indices).images)
    steering = _rows(task.validation.images)
    assert not learned & steering
    assert _rows(task.calibration) <= learned
    assert not _rows(task.test().images) & (learned | steering)


def test_same_seed_same_task_and_any_change_another_digest(
    digits_weights: Path, tmp_path: Path
) -> None:
    spec = TaskSpec(model="digits-net", weights=digits_weights)
    task = load_task(spec, 0)
    again = load_task(spec, 0)
    assert torch.equal(task.validation.images, again.validation.images)
    assert task.digest == again.digest
    other_weights = tmp_path / "other.safetensors"
    save_weights(build_network("digits-net", 10, (1, 8, 8)).state_dict(), other_weights)
    changed = [
        load_task(spec, 1),
        load_task(spec.model_copy(update={"weights": other_weights}), 0),
        load_task(spec.model_copy(update={"calibration": 100}), 0),
        load_task(spec.model_copy(update={"augment_validation": "crop-and-mirror"}), 0),
        load_task(spec.model_copy(update={"augment_validation": "randaugment"}), 0),
        load_task(spec.model_copy(update={"data": DataSpec(mean=(0.4,), std=(0.4,))}), 0),
    ]
    digests = {task.digest, *(other.digest for other in changed)}
    assert len(digests) == 1 + len(changed)


def test_augmented_validation_is_seeded_and_keeps_its_labels(digits_weights: Path) -> None:
    plain = TaskSpec(model="digits-net", weights=digits_weights)
    augmented = plain.model_copy(update={"augment_validation": "crop-and-mirror"})
    first, again = load_task(augmented, 3), load_task(augmented, 3)
    unchanged = load_task(plain, 3)
    assert torch.equal(first.validation.images, again.validation.images)
    assert torch.equal(first.validation.labels, unchanged.validation.labels)
    assert not torch.equal(first.validation.images, unchanged.validation.images)


def test_digits_task_is_accurate_and_ready(digits_task: PruningTask) -> None:
    assert accuracy(digits_task.network, digits_task.test()) >= 0.97
    assert not digits_task.network.training
    assert digits_task.example_input.shape == (1, 1, 8, 8)
    assert digits_task.calibration.dtype == torch.float32


def test_test_images_are_not_read_before_they_are_asked_for(digits_weights: Path) -> None:
    task = load_task(TaskSpec(model="digits-net", weights=digits_weights), 0)
    closed = dataclasses.replace(task.data, test=_Closed(task.data.test))
    task = dataclasses.replace(task, data=closed)
    accuracy(task.network, task.validation)
    with pytest.raises(AssertionError, match="opened"):
        task.test()


class _Closed:
    """A source that must not be opened."""

    def __init__(self, source: object) -> None:
        self._source = source

    def __len__(self) -> int:
        raise AssertionError("opened")


class _Recorder(SilentProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps = 0

    def start(self, total: int, label: str) -> None:
        self.steps += total

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_dense_training_is_shown_once_and_then_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNETUNE_CACHE", str(tmp_path))
    spec = TaskSpec.model_validate({"model": "digits-net", "training": {"epochs": 1}})
    first, second, third = _Recorder(), _Recorder(), _Recorder()
    trained = load_task(spec, 0, first)
    cached = load_task(spec, 0, second)
    longer = spec.model_copy(update={"training": spec.training.model_copy(update={"epochs": 2})})
    load_task(longer, 0, third)
    assert first.steps > 0
    assert second.steps == 0
    assert third.steps == 2 * first.steps
    assert any("cache" in note for note in second.notes)
    assert trained.digest == cached.digest
    assert len(list((tmp_path / "networks").iterdir())) == 2


def test_unwritable_cache_does_not_lose_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    monkeypatch.setenv("PRUNETUNE_CACHE", str(blocked))
    progress = _Recorder()
    spec = TaskSpec.model_validate({"model": "digits-net", "training": {"epochs": 1}})
    task = load_task(spec, 0, progress)
    assert accuracy(task.network, task.validation) > 0.5
    assert any("cannot be written" in note for note in progress.notes)


def test_task_and_spec_travel(digits_weights: Path) -> None:
    spec = TaskSpec(model="digits-net", weights=digits_weights)
    assert TaskSpec.model_validate(json.loads(spec.model_dump_json())) == spec
    task = load_task(spec, 0)
    copy = pickle.loads(pickle.dumps(task))
    assert copy.digest == task.digest
    assert torch.equal(copy.network(task.calibration), task.network(task.calibration))


def test_tiny_network_errors_are_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\nfrom torch import nn\n"
        "class Broken(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.linear = nn.Linear(64, 10)\n"
        "    def forward(self, x):\n"
        "        return self.linear(x.flatten(1)) * float('nan')\n"
        "def seven():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))\n"
        "def wide():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(65, 10))\n"
    )
    for name, message in {
        "Broken": "NaN",
        "seven": "7 outputs but 'digits' has 10 classes",
        "wide": "cannot run on 1x8x8 images of 'digits'",
    }.items():
        with pytest.raises(NetworkError, match=message) as caught:
            load_task(TaskSpec(model=f"{file}:{name}"), 0)
        assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match="does not exist"):
        load_task(TaskSpec(model="digits-net", weights=tmp_path / "none.pt"), 0)


def test_data_with_too_few_images_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "import numpy as np\n"
        "from prunetune.models import ArrayImages, Data\n"
        "def data():\n"
        "    images = ArrayImages(np.zeros((3, 1, 8, 8), np.uint8), [0, 1, 0])\n"
        "    return Data('own', images, images, 2, (1, 8, 8), (0.5,), (0.5,))\n"
    )
    spec = TaskSpec(model="digits-net", data=DataSpec(name=f"{file}:data"))
    with pytest.raises(DataError, match="3 training images; at least 4"):
        load_task(spec, 0)


def test_a_progress_of_ones_own_must_be_whole() -> None:
    with pytest.raises(TypeError):
        Progress()  # type: ignore[abstract]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "top1", "mean", "std", "images", "tolerance"),
    [
        # On all images to the last digit; on a tenth of them within three standard errors.
        ("resnet20", 91.73, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 10_000, 0.02),
        ("resnet56", 93.39, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1000, 2.5),
        ("vgg16bn", 91.23, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 1000, 2.7),
    ],
)
def test_real_networks_have_their_published_accuracy(
    real_data: Path,
    model: str,
    top1: float,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    images: int,
    tolerance: float,
) -> None:
    spec = TaskSpec(
        model=model,
        weights=real_data / "weights" / f"cifar10_{model}.safetensors",
        data=DataSpec(name="parquet", root=real_data / "cifar10", mean=mean, std=std),
    )
    task = load_task(spec, 0)
    assert np.isin(task.train_indices, np.arange(50_000)).all()
    test = task.test()
    assert len(test) == 10_000
    some = LabelledImages(test.images[:images], test.labels[:images])
    assert 100 * accuracy(task.network, some) == pytest.approx(top1, abs=tolerance)
