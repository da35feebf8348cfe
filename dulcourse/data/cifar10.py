"""CIFAR-10: 32×32 RGB photographs of ten kinds (Krizhevsky 2009), downloaded in the binary version.

The version for Python is a pickle, which would run whatever code is in it; this one is bytes.
"""

import tarfile
from pathlib import Path

import numpy as np
import torch

from dulcourse.data import downloads
from dulcourse.data.dataset import Dataset, one_of
from dulcourse.data.idx import chosen_of
from dulcourse.errors import UsageError

__all__ = ["FILE", "LEVELS", "SHA256", "URL", "load", "read"]

URL = "https://www.cs.toronto.edu/~kriz/"
FILE = "cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
LEVELS = (256, 32, 4)

_FOLDER = "cifar-10-batches-bin"
_TRAIN = tuple(f"{_FOLDER}/data_batch_{i}.bin" for i in range(1, 6))
_TEST = (f"{_FOLDER}/test_batch.bin",)
_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32  # a label, then the red, green and blue planes


def load(split: str, *, seed: int = 0, levels: int = 256) -> Dataset:
    """45 000 to train on, 5 000 to validate (the end of `default_rng(seed)`'s permutation), 10 000 to test.

    A value v of 0 … 255 becomes ⌊levels · v / 256⌋.
    """
    one_of("levels of cifar10", levels, LEVELS)
    archive = downloads.fetch("cifar10", FILE, url=URL + FILE, sha256=SHA256)
    images, labels = read(archive, _TEST if split == "test" else _TRAIN)
    chosen = chosen_of(split, len(images), len(images) // 10, seed)
    x = torch.from_numpy(images[chosen].astype(np.int64) * levels // 256)
    return Dataset("cifar10", split, x, torch.from_numpy(labels[chosen].astype(np.int64)), levels)


def read(archive: Path, members: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[n, 3, 32, 32]` and labels uint8 `[n]` of the archive's files; nothing is unpacked."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            content = b"".join(tar.extractfile(member).read() for member in members)
        records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    except (tarfile.TarError, KeyError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{archive} is not CIFAR-10's binary archive ({error}): delete it, to have it downloaded again."
        ) from error
    return records[:, 1:].reshape(-1, *_SHAPE), records[:, 0]
