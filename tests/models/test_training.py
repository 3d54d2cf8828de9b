"""Training: it learns, repeats itself, follows its schedule, and says when it fails."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from prunetune.errors import NetworkError
from prunetune.models import (
    ArrayImages,
    Data,
    LabelledImages,
    PlainProgress,
    PruningTask,
    TrainingSpec,
    accuracy,
    build_network,
    train,
)
from prunetune.models.batchnorm import recalibrate_batchnorm
from torch import nn


def _fresh(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_network("digits-net", 10, (1, 8, 8))


def _spec(**options: object) -> TrainingSpec:
    return TrainingSpec.model_validate({"epochs": 2, "device": "cpu", **options})


@pytest.mark.parametrize(
    "options",
    [{}, {"precision": "bf16"}, {"schedule": "cosine"}, {"label_smoothing": 0.1, "augment": False}],
)
def test_training_learns_and_leaves_the_network_ready(
    digits_task: PruningTask, options: dict[str, object]
) -> None:
    network = _fresh()
    losses = train(network, digits_task.data, digits_task.train_indices, _spec(**options), 0)
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert accuracy(network, digits_task.validation) > 0.7
    assert not network.training
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    first = next(network.parameters())
    assert first.device.type == "cpu"


def test_training_is_a_function_of_the_seed(digits_task: PruningTask) -> None:
    runs = []
    for seed in (5, 5, 6):
        network = _fresh()
        torch.manual_seed(np.random.default_rng().integers(1000))
        train(network, digits_task.data, digits_task.train_indices, _spec(epochs=1), seed)
        runs.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_training_leaves_the_random_state_alone(digits_task: PruningTask) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    network = build_network("digits-net", 10, (1, 8, 8))
    torch.manual_seed(1)
    train(network, digits_task.data, digits_task.train_indices[:64], _spec(batch_size=32), 9)
    assert torch.equal(torch.rand(3), expected)


def test_frozen_statistics_stay_and_weights_do_not(digits_task: PruningTask) -> None:
    network = _fresh()
    before = copy.deepcopy(network.state_dict())
    spec = _spec(epochs=1, freeze_batchnorm=True)
    train(network, digits_task.data, digits_task.train_indices, spec, 0)
    for name, value in network.state_dict().items():
        kept = "running" in name or "num_batches" in name
        assert torch.equal(value, before[name]) == kept, name


def test_no_step_is_longer_than_the_clipped_gradient(digits_task: PruningTask) -> None:
    # Without momentum and decay a step is the gradient times the learning rate.
    network = _fresh()
    before = torch.cat([p.detach().flatten().clone() for p in network.parameters()])
    plain = {"momentum": 0.0, "weight_decay": 0.0, "schedule": "cosine", "learning_rate": 0.5}
    spec = _spec(epochs=1, clip=0.01, batch_size=32, **plain)
    train(network, digits_task.data, digits_task.train_indices[:32], spec, 0)
    after = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_no_epochs_change_nothing(digits_task: PruningTask) -> None:
    network = _fresh()
    before = copy.deepcopy(network.state_dict())
    assert train(network, digits_task.data, digits_task.train_indices, _spec(epochs=0), 0) == ()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_pure_distillation_ignores_labels(digits_task: PruningTask) -> None:
    """With wrong labels, a student can be right only if it listens to its teacher alone."""
    data = digits_task.data
    pixels = data.train.load(np.arange(len(data.train))).numpy()
    wrong = Data(
        "wrong",
        ArrayImages(pixels, (data.train.labels + 1) % 10),
        data.test,
        10,
        data.input_shape,
        data.mean,
        data.std,
        mirror=False,
    )
    teacher = digits_task.network
    before = copy.deepcopy(teacher.state_dict())
    student = _fresh()
    spec = _spec(epochs=4, distillation=1.0)
    train(student, wrong, digits_task.train_indices, spec, 0, teacher=teacher)
    assert accuracy(student, digits_task.validation) > 0.9
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name])


def test_recalibration_gives_the_statistics_of_the_data() -> None:
    norm = nn.BatchNorm2d(3, momentum=0.3)
    images = torch.randn(12, 3, 5, 5) * 4 + 2
    recalibrate_batchnorm(nn.Sequential(norm, nn.Dropout()), images.split(4))
    assert not norm.training
    assert norm.momentum == 0.3
    # Equal batches: the mean of their means is the mean of all images, that of variances is not.
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, images.mean((0, 2, 3)))
    within = torch.stack([batch.var((0, 2, 3)) for batch in images.split(4)]).mean(0)
    torch.testing.assert_close(norm.running_var, within)


def test_divergence_is_one_sentence(digits_task: PruningTask) -> None:
    spec = _spec(learning_rate=1e12, augment=False, weight_decay=1.0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    with pytest.raises(NetworkError, match=r"loss became .* lower learning_rate") as caught:
        train(network, digits_task.data, digits_task.train_indices, spec, 0)
    assert "\n" not in str(caught.value)


def test_absent_gpu_is_one_sentence(
    digits_task: PruningTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NetworkError, match="needs a GPU"):
        train(_fresh(), digits_task.data, digits_task.train_indices, _spec(device="cuda"), 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_training_ends_on_the_cpu(digits_task: PruningTask) -> None:
    network = _fresh()
    train(network, digits_task.data, digits_task.train_indices, _spec(device="cuda"), 0)
    assert accuracy(network, digits_task.validation) > 0.5


def test_accuracy_counts_right_answers_whatever_the_batch() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    weight = torch.eye(4)[:3]
    network[1].weight.data.copy_(weight)
    images = torch.eye(4)[[0, 1, 2, 2]].view(4, 1, 2, 2)
    labelled = LabelledImages(images, torch.tensor([0, 1, 2, 0]))
    for batch_size in (1, 3, 100):
        assert accuracy(network.train(), labelled, batch_size) == 0.75
    assert network.training


def test_plain_progress_prints_the_label_and_the_epochs(digits_task: PruningTask) -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, interval=0.0)
    train(
        _fresh(),
        digits_task.data,
        digits_task.train_indices[:128],
        _spec(epochs=1, batch_size=64),
        0,
        progress=progress,
        label="Fine-tuning",
    )
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Fine-tuning ..."
    assert lines[1].startswith("Fine-tuning: 1 of 2,")
    assert "epoch 1 of 1, loss" in lines[-2]
    assert lines[-1].startswith("Fine-tuning: done in")
