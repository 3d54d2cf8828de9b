"""Images as they are in life: types of pixels, odd files and folders, labels, and bombs."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from prunetune.errors import DataError
from prunetune.models import SilentProgress
from prunetune.models.data import ArrayImages, Data, DataSpec, load_data
from prunetune.models.data.decode import Decoder
from prunetune.models.data.headers import MOST_PIXELS
from prunetune.models.live import make_live_task
from torch import nn, rand, zeros

_RAMP = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
_EXPECTED = np.rint(_RAMP * (255 / 65535)).astype(np.uint8)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNETUNE_CACHE", str(tmp_path_factory.mktemp("cache")))


class _Notes(SilentProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def _file(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def _png_chunk(name: bytes, content: bytes) -> bytes:
    body = name + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def _deep_png(values: np.ndarray[Any, Any]) -> bytes:
    """A PNG of 16 bits a channel, written by hand: [H, W] grey or [H, W, 3] colours."""
    rows = values.astype(">u2").reshape(len(values), -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    colour = 0 if values.ndim == 2 else 2
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(*chunk) for chunk in chunks)


def _bomb(side: int) -> bytes:
    """A PNG that says it is huge, and holds next to nothing."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(*chunk) for chunk in chunks)


def _decode(image: bytes, channels: int = 1) -> np.ndarray[Any, Any]:
    return Decoder((channels, 8, 8), resize=False).decode(image, "x.png")


@pytest.mark.parametrize(
    "image",
    [
        _deep_png(_RAMP),
        _file(Image.fromarray(_RAMP), "PNG"),
        _file(Image.fromarray(_RAMP), "TIFF"),
        b"P5 8 8 65535\n" + _RAMP.astype(">u2").tobytes(),
    ],
    ids=["png by hand", "png", "tiff", "pgm"],
)
def test_sixteen_bits_are_scaled_by_their_range(image: bytes) -> None:
    decoded = _decode(image)[0].astype(int)
    assert np.abs(decoded - _EXPECTED).max() == 0
    assert np.array_equal(_decode(image, 3), np.stack([decoded] * 3))


def test_sixteen_bit_colours_are_scaled_by_their_range() -> None:
    colours = np.stack([_RAMP, _RAMP[::-1], _RAMP.T], axis=-1)
    expected = np.rint(colours * (255 / 65535)).transpose(2, 0, 1)
    assert np.abs(_decode(_deep_png(colours), 3).astype(int) - expected).max() <= 1


def test_resizing_does_not_depend_on_the_type() -> None:
    small = Decoder((1, 4, 4), resize=True)
    deep = small.decode(_file(Image.fromarray(_RAMP), "PNG"), "x.png")
    assert np.array_equal(deep, small.decode(_file(Image.fromarray(_EXPECTED), "PNG"), "x.png"))
    palette = Image.fromarray(np.stack([_EXPECTED] * 3, axis=-1)).quantize(256)
    plain = small.decode(_file(palette.convert("RGB"), "PNG"), "x.png")
    assert np.array_equal(small.decode(_file(palette, "PNG"), "x.png"), plain)


def test_floating_point_pixels_go_from_0_to_1_or_are_refused() -> None:
    share = (_RAMP / 65535).astype(np.float32)
    assert np.array_equal(_decode(_file(Image.fromarray(share), "TIFF"))[0], _EXPECTED)
    for wrong in (share * 255, np.where(share > 0.9, np.nan, share).astype(np.float32), -share):
        with pytest.raises(DataError, match=r"floating-point pixels .* must go from 0 to 1"):
            _decode(_file(Image.fromarray(wrong), "TIFF"))


def test_whole_numbers_of_32_bits_are_refused() -> None:
    image = _file(Image.fromarray(_RAMP.astype(np.int32)), "TIFF")
    with pytest.raises(DataError, match=r"32-bit whole numbers.* convert it to 8 or 16 bits"):
        _decode(image)


def test_bits_palettes_and_alpha_have_the_colours_that_people_see() -> None:
    colours = np.zeros((8, 8, 3), np.uint8)
    colours[:4, :, 0], colours[4:, :, 2] = 255, 255
    plain = Image.fromarray(colours)
    for odd in (plain.quantize(4), plain.convert("RGBA"), plain):
        assert np.array_equal(_decode(_file(odd, "PNG"), 3), colours.transpose(2, 0, 1))
    black_and_white = Image.fromarray(_EXPECTED > 100)
    assert np.array_equal(_decode(_file(black_and_white, "PNG"))[0], (_EXPECTED > 100) * 255)


def test_other_programs_are_not_run_for_an_image(tmp_path: Path) -> None:
    """Pillow would call Ghostscript for it, whatever the file's ending."""
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n"
    with pytest.raises(DataError, match="not a readable image"):
        _decode(script)


def _colour(value: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("RGB", size, (value, 0, 255 - value))


def _folder(root: Path, count: int = 12, ending: str = ".png") -> Path:
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for index in range(count):
            kind = "PNG" if ending == ".png" else "JPEG"
            content = _file(_colour(20 * label + index), kind)
            (root / name / f"{index:02}{ending}").write_bytes(content)
    return root


def _load(root: Path, **values: object) -> tuple[Data, list[str]]:
    notes = _Notes()
    spec = DataSpec.model_validate({"name": "imagefolder", "root": root, **values})
    return load_data(spec, notes), notes.notes


def test_ordinary_images_need_no_note(tmp_path: Path) -> None:
    data, notes = _load(_folder(tmp_path))
    assert data.input_shape == (3, 8, 8) and notes == []


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (_file(Image.fromarray(_EXPECTED), "PNG"), r"1 of the 24 images are grey; .* read as RGB"),
        (_deep_png(_RAMP), "1 of the 24 images are of more than 8 bits"),
        (_file(_colour(1).convert("RGBA"), "PNG"), "1 of the 24 images are with an alpha channel"),
    ],
    ids=["grey", "deep", "alpha"],
)
def test_the_first_image_does_not_decide_for_all_and_odd_ones_are_counted(
    image: bytes, said: str, tmp_path: Path
) -> None:
    (_folder(tmp_path) / "cat" / "00.png").write_bytes(image)
    data, notes = _load(tmp_path)
    assert data.input_shape == (3, 8, 8)
    assert any(said.partition(";")[0] in note for note in notes), notes


def test_most_images_decide_and_the_spec_overrules_them(tmp_path: Path) -> None:
    for path in (_folder(tmp_path) / "dog").iterdir():
        path.write_bytes(_file(Image.open(path).convert("L"), "PNG"))
    (tmp_path / "cat" / "00.png").write_bytes(_file(Image.fromarray(_EXPECTED), "PNG"))
    data, notes = _load(tmp_path)
    assert data.input_shape == (1, 8, 8)
    assert any(note.startswith("11 of the 24 images are coloured") for note in notes)
    assert _load(tmp_path, channels=3)[0].input_shape == (3, 8, 8)


def test_cmyk_is_counted(tmp_path: Path) -> None:
    _folder(tmp_path, ending=".jfif")
    (tmp_path / "cat" / "00.jfif").write_bytes(_file(_colour(9).convert("CMYK"), "JPEG"))
    data, notes = _load(tmp_path)
    assert len(data.train) + len(data.test) == 24
    assert any("1 of the 24 images are of CMYK colours" in note for note in notes)


def test_truncated_and_unreadable_images_are_counted_named_and_left_out(tmp_path: Path) -> None:
    _folder(tmp_path)
    whole = _file(
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)), "PNG"
    )
    (tmp_path / "cat" / "03.png").write_bytes(whole[:-40])
    (tmp_path / "dog" / "05.png").write_bytes(b"no image")
    for _ in range(2):
        # The second time it is known from the first.
        data, notes = _load(tmp_path)
        assert len(data.train) + len(data.test) == 22
        said = next(note for note in notes if "left out" in note)
        assert said.startswith("2 of the 24 images cannot be read")
        assert "03.png" in said and "05.png" in said
        for source in (data.train, data.test):
            assert len(source.load(np.arange(len(source)))) == len(source)


def test_a_changed_image_is_looked_at_again(tmp_path: Path) -> None:
    _load(_folder(tmp_path))
    (tmp_path / "cat" / "03.png").write_bytes(b"no image")
    assert any("03.png" in note for note in _load(tmp_path)[1])


def test_many_broken_images_are_refused(tmp_path: Path) -> None:
    for path in (_folder(tmp_path) / "dog").iterdir():
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"12 of the 24 images cannot be read: .*00\.png"):
        _load(tmp_path)


def test_another_size_is_named_before_anything_is_decoded(tmp_path: Path) -> None:
    (_folder(tmp_path) / "dog" / "07.png").write_bytes(_file(_colour(0, (9, 8)), "PNG"))
    with pytest.raises(DataError, match=r"07\.png is 9x8 but most images are 8x8"):
        _load(tmp_path)
    assert _load(tmp_path, image_size=8)[0].input_shape == (3, 8, 8)


@pytest.mark.parametrize("side", [int(MOST_PIXELS**0.5) + 1, 40_000])
def test_a_bomb_is_refused_by_its_header(side: int, tmp_path: Path) -> None:
    (_folder(tmp_path) / "dog" / "07.png").write_bytes(_bomb(side))
    _, notes = _load(tmp_path, image_size=8)
    assert any("1 of the 24 images cannot be read" in note for note in notes)
    with pytest.raises(DataError, match="more than 67 million pixels"):
        Decoder((3, 8, 8), resize=True).decode(_bomb(side), "x.png")


def test_what_systems_leave_behind_is_no_class(tmp_path: Path) -> None:
    _folder(tmp_path)
    (tmp_path / "__MACOSX" / "cat").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "cat" / "._00.png").write_bytes(b"fork")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "cat" / "._00.png").write_bytes(b"fork")
    (tmp_path / "cat" / "readme.txt").write_text("cats")
    data, notes = _load(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert len(data.train) + len(data.test) == 24
    assert any("__MACOSX" in note for note in notes)
    assert any("1 .txt" in note for note in notes)


@pytest.mark.parametrize(
    ("train", "test"), [("training", "testing"), ("Train", "Val"), ("train", "valid")]
)
def test_names_of_splits_are_understood(train: str, test: str, tmp_path: Path) -> None:
    _folder(tmp_path / train, 3)
    _folder(tmp_path / test, 2)
    (tmp_path / "__MACOSX" / "train").mkdir(parents=True)
    data, _ = _load(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert (len(data.train), len(data.test)) == (6, 4)


def test_one_split_without_the_other_is_refused(tmp_path: Path) -> None:
    _folder(tmp_path / "testing", 2)
    with pytest.raises(DataError, match="a folder testing but no train split"):
        _load(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    (_folder(tmp_path) / "dog").rename(tmp_path / "train")
    assert _load(tmp_path)[0].class_names == ("cat", "train")


def test_every_ending_of_jpeg_is_read_and_a_class_without_images_refused(tmp_path: Path) -> None:
    for path in (_folder(tmp_path, ending=".jfif") / "dog").iterdir():
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(DataError, match=r"dog has no images \(there is 12 \.heic\)"):
        _load(tmp_path)


def _parquet(root: Path, train: list[int], test: list[int]) -> tuple[Data, list[str]]:
    root.mkdir(exist_ok=True)
    for split, labels in (("train", train), ("test", test)):
        cells = [{"bytes": _file(_colour(index % 256), "PNG")} for index in range(len(labels))]
        table = pa.table(
            {
                "image": pa.array(cells, pa.struct([("bytes", pa.binary())])),
                "label": pa.array(labels, pa.int64()),
            }
        )
        pq.write_table(table, root / f"{split}.parquet")
    notes = _Notes()
    return load_data(DataSpec(name="parquet", root=root), notes), notes.notes


@pytest.mark.parametrize(
    ("labels", "classes"),
    [([1, 2, 3, 4], 4), ([0, 255], 2), ([0, 10**9], 2), ([7, 3, 5], 3)],
)
def test_labels_that_are_no_classes_are_numbered_anew_and_said(
    labels: list[int], classes: int, tmp_path: Path
) -> None:
    data, notes = _parquet(tmp_path / "data", labels * 3, labels[:1])
    assert data.num_classes == classes
    order = sorted(labels)
    assert data.train.labels.tolist() == [order.index(label) for label in labels * 3]
    assert data.test.labels.tolist() == [order.index(labels[0])]
    assert any("numbered anew" in note and str(max(labels)) in note for note in notes)


def test_labels_that_are_classes_stay(tmp_path: Path) -> None:
    data, notes = _parquet(tmp_path / "data", [0, 3, 1, 0], [3])
    assert (data.num_classes, data.train.labels.tolist(), notes) == (4, [0, 3, 1, 0], [])


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ([-1, 0, 1], [0], "from -1 to 1; labels begin at 0"),
        ([1, 2, 1, 2], [3], r"labels that no training image has \(3\)"),
        (list(range(0, 2000, 10)), [0], "200 different labels, from 0 to 1990"),
    ],
)
def test_labels_that_cannot_be_classes_are_refused(
    train: list[int], test: list[int], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        _parquet(tmp_path / "data", train, test)


@pytest.mark.parametrize("std", [float("nan"), float("inf"), 0.0, -1.0, 1e-46, 1e-39])
def test_a_normalisation_that_gives_no_numbers_is_refused(std: float) -> None:
    images = ArrayImages(np.zeros((4, 1, 8, 8), np.uint8), [0, 1, 0, 1])
    with pytest.raises(DataError, match="std"):
        Data("own", images, images, 2, (1, 8, 8), (0.5,), (std,))
    with pytest.raises(DataError, match="mean"):
        Data("own", images, images, 2, (1, 8, 8), (std if std != std else float("inf"),), (1.0,))


def test_floats_with_a_normalisation_of_shares_must_be_shares() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    labels = zeros(8).long()
    images = rand(8, 1, 8, 8)
    make_live_task(network, (images, labels), (images, labels), mean=(0.5,), std=(0.5,))
    with pytest.raises(DataError, match=r"mean and std are of pixels in \[0, 1\]"):
        make_live_task(network, (images * 255, labels), (images, labels), mean=(0.5,), std=(0.5,))


def test_the_same_names_and_sizes_with_other_pixels_are_other_images(tmp_path: Path) -> None:
    prints = []
    for value in (10, 11):
        for path in _folder(tmp_path / str(value)).rglob("*.png"):
            path.write_bytes(_file(_colour(value), "PNG"))
        prints.append(_load(tmp_path / str(value))[0].train.fingerprint())
    assert prints[0] != prints[1]
    (tmp_path / "10").rename(tmp_path / "moved")
    assert _load(tmp_path / "moved")[0].train.fingerprint() == prints[0]
