"""Networks and images that are handed over as objects: what they become, and what is refused."""

from __future__ import annotations

import pickle
from typing import Any

import cloudpickle
import prunetune as pt
import pytest
import torch
from prunetune._live import LiveObjects, live_references
from prunetune.errors import DataError, NetworkError, SpecError
from prunetune.models import Data, load_task
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

from .live_networks import SIZES, SmallNet, digits, parameters, trained

TRAIN, TEST = digits()


@pytest.fixture(scope="module")
def network() -> SmallNet:
    return trained(epochs=1)


class Items(Dataset[Any]):
    """A data set that says nothing of its labels."""

    def __len__(self) -> int:
        return len(TRAIN[1])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return TRAIN[0][index], int(TRAIN[1][index])


class Labelled(Items):
    """A data set that says its labels, and draws noise."""

    targets = TRAIN[1].tolist()

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = super().__getitem__(index)
        return image + 0.01 * torch.randn(image.shape), label


def test_images_are_what_the_network_reads(network: SmallNet) -> None:
    task = load_task(pt.Task(network, train=TRAIN, test=TEST).spec, seed=0)
    assert task.num_classes == 10 and task.input_shape == (1, 8, 8)
    assert torch.equal(task.test().images, TEST[0]) and torch.equal(task.test().labels, TEST[1])
    every = {tuple(image.flatten().tolist()) for image in TRAIN[0]}
    assert {tuple(image.flatten().tolist()) for image in task.calibration} <= every
    assert len(task.validation) == 325 and len(task.train_indices) == 1300 - 325


def test_network_is_copied_and_never_in_place(network: SmallNet) -> None:
    before = parameters(network)
    network.train()
    task = pt.Task(network, train=TRAIN, test=TEST)
    with torch.no_grad():
        network.classifier.bias.add_(1.0)
    loaded = load_task(task.spec, seed=0).network
    assert not loaded.training and network.training
    assert not any(getattr(module, "inplace", False) for module in loaded.modules())
    assert all(torch.equal(before[name], value) for name, value in loaded.state_dict().items())
    with torch.no_grad():
        network.classifier.bias.sub_(1.0)
    network.eval()


@pytest.mark.parametrize(
    "train",
    [TensorDataset(*TRAIN), Items(), Subset(Items(), range(1300)), [TRAIN[0], TRAIN[1]]],
    ids=["TensorDataset", "Dataset", "Subset", "list"],
)
def test_every_form_of_the_same_images_is_the_same_task(network: SmallNet, train: Any) -> None:
    reference = pt.Task(network, train=TRAIN, test=TEST)
    assert pt.Task(network, train=train, test=TEST).digest == reference.digest


def test_data_set_with_labels_of_its_own_is_read_later_and_always_the_same(
    network: SmallNet,
) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    spec = pt.Task(network, train=Labelled(), test=TEST).spec
    first, second = load_task(spec, seed=0), load_task(spec, seed=0)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.calibration, second.calibration)
    assert first.digest == second.digest


def test_mean_and_std_normalise_uint8_and_float_alike(network: SmallNet) -> None:
    pixels = ((TRAIN[0] + 1) * 127.5).round().to(torch.uint8)
    options = {"test": (pixels[:50], TRAIN[1][:50]), "mean": [0.5], "std": [0.25]}
    whole = pt.Task(network, train=(pixels, TRAIN[1]), **options)
    options["test"] = (pixels[:50].float() / 255, TRAIN[1][:50])
    share = pt.Task(network, train=(pixels.float() / 255, TRAIN[1]), **options)
    expected = (pixels[:50].float() / 255 - 0.5) / 0.25
    for task in (whole, share):
        torch.testing.assert_close(load_task(task.spec, 0).test().images, expected)


def test_calibration_and_validation_may_be_given(network: SmallNet) -> None:
    task = pt.Task(
        network, train=TRAIN, test=TEST, calibration=TEST[0][:7], validation=(TEST[0], TEST[1])
    )
    loaded = load_task(task.spec, seed=0)
    assert torch.equal(loaded.calibration, TEST[0][:7])
    assert torch.equal(loaded.validation.labels, TEST[1])
    assert len(loaded.train_indices) == 1300
    fewer = load_task(pt.Task(network, train=TRAIN, test=TEST, validation=20).spec, seed=0)
    assert len(fewer.validation) == 20


def test_whole_data_brings_its_normalisation(network: SmallNet) -> None:
    from prunetune.models.data.given import given_images

    data = Data(
        "mine",
        given_images(TRAIN, "train"),
        given_images(TEST, "test"),
        10,
        (1, 8, 8),
        (0.5,),
        (0.5,),
    )
    loaded = load_task(pt.Task(network, train=data).spec, seed=0)
    torch.testing.assert_close(loaded.test().images, (TEST[0] - 0.5) / 0.5)


def test_digest_knows_weights_graph_and_images(network: SmallNet) -> None:
    reference = pt.Task(network, train=TRAIN, test=TEST)
    assert pt.Task(network, train=TRAIN, test=TEST).digest == reference.digest
    other = trained(epochs=1)
    with torch.no_grad():
        other.classifier.bias[0] += 1e-3
    graph = trained(epochs=1)
    graph.features[2] = nn.ReLU6()
    images = (TRAIN[0].clone(), TRAIN[1])
    images[0][0, 0, 0, 0] += 0.5
    tasks = [
        pt.Task(other, train=TRAIN, test=TEST),
        pt.Task(graph, train=TRAIN, test=TEST),
        pt.Task(network, train=images, test=TEST),
        pt.Task(network, train=TRAIN, test=TEST, calibration=TEST[0]),
        pt.Task(network, train=TRAIN, test=TEST, mirror=True),
    ]
    assert len({task.digest for task in [*tasks, reference]}) == 6


def test_spec_names_the_network_and_its_digest(network: SmallNet) -> None:
    task = pt.Task(network, train=TRAIN, test=TEST, name="my net")
    assert task.spec.model == task.spec.data.name == f"live:my-net@{(task.digest or '')[:16]}"
    assert task.groups() == SIZES
    assert live_references(task.spec.model_dump(mode="json")) == {task.spec.model}


def test_objects_travel_by_value(network: SmallNet) -> None:
    """Unpickled where neither this test's module nor the object is known."""
    import subprocess
    import sys

    task = pt.Task(network, train=Items(), test=TEST, name="travelling")
    sent = cloudpickle.dumps(LiveObjects([task.spec.model]))
    script = (
        "import pickle, sys\n"
        "pickle.loads(sys.stdin.buffer.read())\n"
        "from prunetune.models import TaskSpec, load_task\n"
        f"spec = TaskSpec.model_validate({task.spec.model_dump(mode='json')!r})\n"
        "print(load_task(spec, 0).digest)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=sent, capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == load_task(task.spec, 0).digest


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"train": TRAIN[0]}, "no labels"),
        ({"train": Subset(TensorDataset(TRAIN[0]), range(9))}, "without a label|no labels"),
        ({"train": (TRAIN[0], TRAIN[1].float())}, "whole numbers"),
        ({"train": (TRAIN[0], TRAIN[1][:9])}, "1300 images and 9 labels"),
        ({"train": (TRAIN[0][:, 0], TRAIN[1])}, r"\[N, C, H, W\]"),
        ({"train": (TRAIN[0].to(torch.uint8), TRAIN[1])}, "give mean and std"),
        ({"train": (TRAIN[0], TRAIN[1] - 1)}, "labels begin at 0"),
        ({"test": None}, "no test images"),
        ({"test": (TEST[0][..., :4], TEST[1])}, "bring them to one size"),
        ({"mean": [0.5]}, "both mean and std"),
        ({"mean": [0.5, 0.5], "std": [1, 1]}, "1 numbers each"),
        ({"calibration": TEST[0][..., :4]}, "bring them to one size"),
        ({"train": 3}, "a pair of tensors"),
    ],
)
def test_images_that_make_no_task(
    network: SmallNet, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        pt.Task(network, **{"train": TRAIN, "test": TEST, **options})


def test_networks_that_do_not_fit() -> None:
    with pytest.raises(NetworkError, match="5 outputs but labels go up to 9"):
        pt.Task(SmallNet(5), train=TRAIN, test=TEST)
    with pytest.raises(NetworkError, match="cannot run on 1x8x8 images"):
        pt.Task(nn.Linear(3, 10), train=TRAIN, test=TEST)
    with pytest.raises(NetworkError, match=r"Task.from_spec"):
        pt.Task("resnet20", train=TRAIN, test=TEST)  # type: ignore[arg-type]


def test_more_outputs_than_labels_are_fine() -> None:
    task = pt.Task(SmallNet(30), train=TRAIN, test=TEST)
    assert load_task(task.spec, 0).num_classes == 30


def test_task_of_names_is_that_of_a_spec() -> None:
    task = pt.Task.from_spec({"model": "digits-net", "validation": 300})
    assert task.digest is None and task.name == "digits-net" and task.spec.validation == 300
    with pytest.raises(SpecError, match="did you mean 'validation'"):
        pt.Task.from_spec({"model": "digits-net", "validaton": 300})


def test_candidate_is_evaluated_in_this_process(network: SmallNet) -> None:
    task = pt.Task(network, train=TRAIN, test=TEST)
    whole = pt.evaluate(task, {}, precision="fp32")
    assert whole.costs["flops"] == 1.0
    half = pt.evaluate(task, {"features.0": 6}, precision="fp32")
    assert half.candidate == (6, 16) and half.costs["flops"] < 0.7
    assert half.measures == pt.evaluate(task, [6, 16], precision="fp32").measures
    for wrong, sentence in (
        ({"features.9": 3}, "no channel group 'features.9'"),
        ([3], "1 numbers, but the network has 2"),
        ([0, 3], "keeps 1 to 12 units, not 0"),
    ):
        with pytest.raises(SpecError, match=sentence):
            pt.evaluate(task, wrong, precision="fp32")  # type: ignore[arg-type]


def test_live_objects_pickle_again_where_they_arrived(network: SmallNet) -> None:
    task = pt.Task(network, train=TRAIN, test=TEST)
    once = pickle.loads(pickle.dumps(LiveObjects([task.spec.model])))
    assert len(pickle.loads(pickle.dumps(once))) == 1
