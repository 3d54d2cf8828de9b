"""Data sets against the libraries that made their files, augmentation, and errors."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from prunetune.errors import DataError, UnknownNameError
from prunetune.models.data import ArrayImages, Data, DataSpec, augment, crop_and_mirror, load_data
from pydantic import ValidationError
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

_PIXELS = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)


def _encode(pixels: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, lossless=True)
    return file.getvalue()


def _table(images: list[bytes | None], labels: list[int], column: str = "img") -> pa.Table:
    cells = [{"bytes": image, "path": None} for image in images]
    layout = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({column: pa.array(cells, layout), "label": pa.array(labels, pa.int64())})


def _write_parquet(folder: Path) -> Path:
    """Eight train images in two files of several row groups, in two formats, and four to test."""
    encoded = [_encode(p, "WEBP" if i % 2 else "PNG") for i, p in enumerate(_PIXELS)]
    labels = [0, 1, 2] * 4
    pq.write_table(_table(encoded[:5], labels[:5]), folder / "train-0.parquet", row_group_size=2)
    pq.write_table(_table(encoded[5:8], labels[5:8]), folder / "train-1.parquet")
    pq.write_table(_table(encoded[8:], labels[8:]), folder / "test.parquet")
    return folder


@pytest.fixture
def parquet_folder(tmp_path: Path) -> Path:
    return _write_parquet(tmp_path)


@pytest.fixture(scope="module")
def parquet_folder_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_parquet(tmp_path_factory.mktemp("parquet"))


def _load(folder: Path, **options: object) -> Data:
    return load_data(DataSpec.model_validate({"name": "parquet", "root": folder, **options}))


@given(st.lists(st.integers(0, 7), max_size=12))
def test_parquet_gives_the_pixels_that_were_encoded(
    parquet_folder_once: Path, asked: list[int]
) -> None:
    data = _load(parquet_folder_once)
    loaded = data.train.load(np.array(asked, dtype=np.int64)).numpy()
    assert np.array_equal(loaded, _PIXELS[asked].transpose(0, 3, 1, 2))


def test_parquet_splits_classes_and_labels(parquet_folder: Path) -> None:
    data = _load(parquet_folder)
    assert data.input_shape == (3, 6, 5)
    assert data.num_classes == 3
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert data.test.labels.tolist() == [2, 0, 1, 2]


def test_images_are_resized_when_asked(parquet_folder: Path) -> None:
    assert _load(parquet_folder, image_size=4).train.load(np.arange(3)).shape == (3, 3, 4, 4)


def _no_test(folder: Path) -> None:
    (folder / "test.parquet").unlink()


def _empty(folder: Path) -> None:
    (folder / "train-0.parquet").write_bytes(b"")


def _corrupt(folder: Path) -> None:
    (folder / "train-1.parquet").write_bytes(b"PAR1 is how a Parquet file begins, not ends")


def _no_rows(folder: Path) -> None:
    pq.write_table(_table([], []), folder / "test.parquet")


def _no_label(folder: Path) -> None:
    table = _table([_encode(_PIXELS[0])], [0]).drop_columns(["label"])
    pq.write_table(table, folder / "train-0.parquet")


def _no_image(folder: Path) -> None:
    table = _table([_encode(_PIXELS[0])], [0], column="picture")
    pq.write_table(table, folder / "train-0.parquet")


def _text_labels(folder: Path) -> None:
    table = _table([_encode(_PIXELS[0])], [0])
    table = table.set_column(1, "label", pa.array(["cat"]))
    pq.write_table(table, folder / "train-0.parquet")


def _unknown_class(folder: Path) -> None:
    pq.write_table(_table([_encode(_PIXELS[0])], [3]), folder / "test.parquet")


def _other_test_size(folder: Path) -> None:
    pq.write_table(_table([_encode(_PIXELS[0][:4])], [0]), folder / "test.parquet")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_test, "has no test split"),
        (_empty, r"train-0\.parquet is empty"),
        (_corrupt, r"train-1\.parquet is not a readable Parquet file"),
        (_no_rows, r"test\.parquet has no rows"),
        (_no_label, "no column label; it has img"),
        (_no_image, r"no column image \(or img\); it has picture, label"),
        (_text_labels, "labels must be integers"),
        (_unknown_class, "test labels of 'parquet' run from 3 to 3 but there are 3 classes"),
        (_other_test_size, "set data.image_size"),
    ],
)
def test_damaged_parquet_is_one_sentence(parquet_folder: Path, damage: Any, message: str) -> None:
    damage(parquet_folder)
    with pytest.raises(DataError, match=message) as caught:
        _load(parquet_folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"not an image", r"Row 1 of .*train-0\.parquet cannot be decoded"),
        (_encode(_PIXELS[0])[:60], r"Row 1 of .*train-0\.parquet cannot be decoded"),
        (_encode(_PIXELS[0][:3]), r"Row 1 of .* is 5x3 but most training images are 5x6"),
        (None, r"Row 1 of .* has no image bytes"),
    ],
)
def test_bad_image_is_named_by_row(parquet_folder: Path, image: bytes | None, message: str) -> None:
    good = _encode(_PIXELS[0])
    pq.write_table(_table([good, image], [0, 1]), parquet_folder / "train-0.parquet")
    (parquet_folder / "train-1.parquet").unlink()
    with pytest.raises(DataError, match=message):
        _load(parquet_folder)


def test_missing_folder_and_unknown_name() -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        load_data(DataSpec.model_validate("parquet:nowhere"))
    with pytest.raises(DataError, match="needs a folder"):
        load_data(DataSpec(name="imagefolder"))
    with pytest.raises(UnknownNameError, match="did you mean 'cifar10'"):
        load_data(DataSpec(name="cifar-10"))


def _write_folder(root: Path, names: tuple[str, ...], per_class: int) -> None:
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = np.full((4, 4, 3), 10 * label + index, dtype=np.uint8)
            (root / name / f"{index}.png").write_bytes(_encode(pixels))


def test_imagefolder_with_train_and_val(tmp_path: Path) -> None:
    _write_folder(tmp_path / "train", ("cat", "dog"), 3)
    _write_folder(tmp_path / "val", ("cat", "dog"), 2)
    data = load_data(DataSpec.model_validate(f"imagefolder:{tmp_path}"))
    assert data.class_names == ("cat", "dog")
    assert data.train.load(np.arange(6))[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert data.test.labels.tolist() == [0, 0, 1, 1]


def test_single_imagefolder_is_split_by_its_own_seed(tmp_path: Path) -> None:
    _write_folder(tmp_path, ("cat", "dog"), 8)
    spec = DataSpec(name="imagefolder", root=tmp_path)
    first, again = load_data(spec), load_data(spec)
    other = load_data(spec.model_copy(update={"split_seed": 1}))
    pixels = [
        {int(v) for v in source.load(np.arange(len(source)))[:, 0, 0, 0]}
        for source in (first.train, first.test)
    ]
    assert not pixels[0] & pixels[1]
    assert len(pixels[0] | pixels[1]) == 16
    assert first.test.labels.tolist() == [0, 0, 1, 1]
    assert first.test.fingerprint() == again.test.fingerprint() != other.test.fingerprint()


def test_imagefolder_with_other_test_classes_is_refused(tmp_path: Path) -> None:
    _write_folder(tmp_path / "train", ("cat", "dog"), 1)
    _write_folder(tmp_path / "test", ("cat", "eel"), 1)
    with pytest.raises(DataError, match=r"classes that .* lacks \(eel\)"):
        load_data(DataSpec(name="imagefolder", root=tmp_path))
    (tmp_path / "test").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="no test split"):
        load_data(DataSpec(name="imagefolder", root=tmp_path))


def _write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Yann LeCun's IDX format, which the Fashion-MNIST files are in."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())
    with gzip.open(f"{path}.gz", "wb") as file:
        file.write(header + array.astype(np.uint8).tobytes())


def test_fashion_mnist_from_a_local_folder(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28))
    for prefix in ("train", "t10k"):
        _write_idx(raw / f"{prefix}-images-idx3-ubyte", images)
        _write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(20) % 10)
    data = load_data(DataSpec.model_validate(f"fashion-mnist:{tmp_path}"))
    assert data.input_shape == (1, 28, 28)
    assert np.array_equal(data.test.load(np.arange(20))[:, 0].numpy(), images)


def test_cifar10_from_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The original pickled batches; only torchvision's checksums of the real files are replaced."""
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (6, 10, 3, 32, 32), dtype=np.uint8)
    names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    sums = {}
    for name, batch in zip(names, pixels, strict=True):
        content = pickle.dumps({"data": batch.reshape(10, -1), "labels": list(range(10))})
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    meta = pickle.dumps({"label_names": list("abcdefghij")})
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [[names[5], sums[names[5]]]])
    checksum = {"filename": "batches.meta", "key": "label_names"}
    checksum["md5"] = hashlib.md5(meta).hexdigest()
    monkeypatch.setattr(CIFAR10, "meta", checksum)
    data = load_data(DataSpec(name="cifar10", root=tmp_path))
    assert data.class_names == tuple("abcdefghij")
    assert np.array_equal(data.train.load(np.arange(50)), pixels[:5].reshape(50, 3, 32, 32))
    assert np.array_equal(data.test.load(np.arange(10)), pixels[5])


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist"])
def test_absent_torchvision_set_says_what_to_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set data.root to where it is, or data.download: true"):
        load_data(DataSpec(name=name, root=tmp_path))
    assert not list(tmp_path.iterdir())


def test_digits_are_scikit_learns() -> None:
    data = load_data(DataSpec())
    ours = torch.cat([s.load(np.arange(len(s))) for s in (data.train, data.test)])
    labels = np.concatenate([data.train.labels, data.test.labels])
    theirs = load_digits()
    expected = sorted(map(bytes, np.rint(theirs.images * 255 / 16).astype(np.uint8)))
    assert sorted(map(bytes, ours[:, 0].numpy())) == expected
    assert np.array_equal(np.bincount(labels), np.bincount(theirs.target))
    assert not data.mirror


def test_normalised_data_has_zero_mean_and_unit_variance() -> None:
    data = load_data(DataSpec())
    images = torch.cat([data.labelled(s).images for s in (data.train, data.test)])
    assert images.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert images.std().item() == pytest.approx(1.0, abs=1e-3)


def test_wrong_normalisation_is_refused() -> None:
    with pytest.raises(DataError, match="one value a channel"):
        load_data(DataSpec(mean=(0.5,) * 3, std=(0.5,) * 3))
    with pytest.raises(ValidationError, match="both mean and std"):
        DataSpec(mean=(0.5,))
    with pytest.raises(ValidationError, match="positive"):
        DataSpec(mean=(0.5,), std=(0.0,))


def test_shorthand_strings() -> None:
    assert DataSpec.model_validate("digits") == DataSpec()
    assert DataSpec.model_validate("parquet:a/b") == DataSpec(name="parquet", root=Path("a/b"))
    assert DataSpec.model_validate("mine.py:data") == DataSpec(name="mine.py:data")
    with pytest.raises(ValidationError):
        DataSpec.model_validate({"name": "digits", "rot": "x"})


def test_users_own_data(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "import numpy as np\n"
        "from prunetune.models import ArrayImages, Data\n"
        "def data():\n"
        "    images = ArrayImages(np.zeros((6, 1, 4, 4), np.uint8), [0, 1] * 3)\n"
        "    return Data('own', images, images, 2, (1, 4, 4), (0.5,), (0.5,))\n"
        "def wrong(): return []\n"
    )
    assert load_data(DataSpec.model_validate(f"{file}:data")).num_classes == 2
    with pytest.raises(DataError, match="returned a list"):
        load_data(DataSpec.model_validate(f"{file}:wrong"))


@given(seed=st.integers(0, 1000), mirror=st.booleans())
def test_augmented_images_are_shifted_copies(seed: int, mirror: bool) -> None:
    images = torch.arange(1, 2 * 3 * 16 * 16 + 1).view(2, 3, 16, 16)
    augmented = crop_and_mirror(images, torch.Generator().manual_seed(seed), mirror=mirror)
    for image, result in zip(images, augmented, strict=True):
        padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
        candidates = [padded[:, y : y + 16, x : x + 16] for y in range(5) for x in range(5)]
        if mirror:
            candidates += [candidate.flip(-1) for candidate in candidates]
        assert any(torch.equal(result, candidate) for candidate in candidates)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_augmented_as_asked_for_and_by_the_seed_alone(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (20, channels, 16, 16), generator=generator, dtype=torch.uint8)
    state = torch.get_rng_state()
    cropped = augment(images, "crop-and-mirror", 3)
    varied = augment(images, "randaugment", 3)
    assert torch.equal(augment(images, "none", 3), images)
    assert torch.equal(
        cropped, crop_and_mirror(images, torch.Generator().manual_seed(3), mirror=True)
    )
    assert varied.shape == images.shape and varied.dtype == torch.uint8
    assert not torch.equal(varied, cropped)
    assert torch.equal(augment(images, "randaugment", 3), varied)
    assert not torch.equal(augment(images, "randaugment", 4), varied)
    assert torch.equal(torch.get_rng_state(), state)


def test_array_fingerprint_follows_pixels_and_labels() -> None:
    images = np.zeros((2, 1, 2, 2), np.uint8)
    prints = {
        ArrayImages(images, [0, 1]).fingerprint(),
        ArrayImages(images, [1, 0]).fingerprint(),
        ArrayImages(images + 1, [0, 1]).fingerprint(),
    }
    assert len(prints) == 3


@pytest.mark.real
def test_real_cifar10_has_its_published_mean(real_data: Path) -> None:
    data = load_data(DataSpec(name="parquet", root=real_data / "cifar10"))
    assert (len(data.train), len(data.test), data.num_classes) == (50_000, 10_000, 10)
    pixels = data.train.load(np.arange(0, 50_000, 10)).float().div(255)
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-3)
