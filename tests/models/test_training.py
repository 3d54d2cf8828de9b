"""Training: it learns, repeats itself, follows its schedule, and says when it fails."""

from __future__ import annotations

import copy
import io
from typing import Any, ClassVar

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
from prunetune.models.training import try_training
from prunetune.rewards.measures.agreement import mean_divergence
from torch import Tensor, nn
from torchvision.models.googlenet import GoogLeNetOutputs


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


class _ViewsItsMaps(nn.Module):
    """Its view joins channels and positions, which needs the usual order of memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3, 2, 1), nn.Linear(8 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).relu().view(x.shape[0], -1))


def test_a_network_that_needs_the_usual_order_of_memory_is_trained_and_judged(
    digits_task: PruningTask,
) -> None:
    torch.manual_seed(0)
    network, teacher = _ViewsItsMaps().eval(), _ViewsItsMaps().eval()
    spec = _spec(epochs=1, distillation=0.5)
    data, indices = digits_task.data, digits_task.train_indices
    train(network, data, indices, spec, 0, teacher=teacher)
    assert accuracy(network, digits_task.validation) > 0.2
    images = digits_task.validation.images
    last = LabelledImages(
        images.clone(memory_format=torch.channels_last), digits_task.validation.labels
    )
    assert accuracy(network, last) == accuracy(network, digits_task.validation)
    assert mean_divergence(network, teacher, images) > 0


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


class _WithHeads(nn.Module):
    """A network that has auxiliary outputs in training, as torchvision's GoogLeNet has."""

    outputs: ClassVar[type[Any]] = tuple

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
        self.head, self.first, self.second = (nn.Linear(16, 10) for _ in range(3))

    def forward(self, images: Tensor) -> Any:
        """Logits, in training those of the auxiliary heads, too."""
        x = self.body(images)
        if not self.training:
            return self.head(x)
        three = self.head(x), self.first(x), self.second(x)
        return three if self.outputs is tuple else self.outputs(*three)


class _AsGoogLeNet(_WithHeads):
    outputs = GoogLeNetOutputs


@pytest.mark.parametrize(("kind", "weight"), [(_WithHeads, 0.0), (_AsGoogLeNet, 0.3)])
def test_auxiliary_outputs_count_by_their_published_weight(
    digits_task: PruningTask, kind: type[_WithHeads], weight: float
) -> None:
    torch.manual_seed(0)
    network = kind()
    images = digits_task.data.normalise(digits_task.data.train.load(np.arange(32)))
    labels = torch.from_numpy(digits_task.data.train.labels[:32])
    with torch.no_grad():
        outputs = copy.deepcopy(network).train()(images)
        losses = [float(nn.functional.cross_entropy(each, labels)) for each in outputs]
    spec = _spec(epochs=1, batch_size=32, augment=False)
    (loss,) = train(network, digits_task.data, np.arange(32), spec, 0)
    assert loss == pytest.approx(losses[0] + weight * (losses[1] + losses[2]), rel=1e-5)
    assert torch.is_tensor(network(images))


def test_heads_of_training_that_do_not_fit_any_more_are_left_out(digits_task: PruningTask) -> None:
    network = _WithHeads()
    network.first = nn.Linear(15, 10)  # as after slimming what only it reads besides
    before = network.first.weight.detach().clone()
    losses = train(network, digits_task.data, digits_task.train_indices, _spec(), 0)
    assert losses[1] < losses[0]
    torch.testing.assert_close(network.first.weight.detach(), before)


class _Volumes(nn.Module):
    """Reads an image as a volume of one voxel's depth."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv3d(1, 8, (1, 3, 3), padding=(0, 1, 1)), nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.first(images[:, :, None]).relu().amax((2, 3, 4)))


def test_networks_with_other_than_flat_convolutions_are_trained(digits_task: PruningTask) -> None:
    losses = train(_Volumes(), digits_task.data, digits_task.train_indices, _spec(), 0)
    assert losses[1] < losses[0]


class _Faulty(nn.Module):
    """A layer of the user's own that does not work in training."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10, 64))

    def forward(self, images: Tensor) -> Tensor:
        """Logits; in training there is a mistake."""
        if self.training:
            raise KeyError("loss_weights")
        return nn.functional.linear(images.flatten(1), self.weight)


class _Cut(nn.Linear):
    """A layer that learns nothing."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits without a gradient."""
        return super().forward(images.flatten(1)).detach()


def test_one_step_tells_whether_a_network_can_be_trained(digits_task: PruningTask) -> None:
    task = digits_task
    network = _fresh()
    before = copy.deepcopy(network.state_dict())
    try_training(network, task.data, task.train_indices, _spec(), 0)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    for faulty, reason in (
        (_Faulty(), "KeyError: 'loss_weights'"),
        (_Cut(64, 10), "have a gradient"),
    ):
        with pytest.raises(NetworkError, match="cannot be trained") as found:
            try_training(faulty, task.data, task.train_indices, _spec(), 0)
        assert reason in str(found.value)


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
