"""Data sets published as MNIST was: images and labels in gzipped IDX files, 60 000 to train, 10 000 to test.

The published training images are split by the permutation `default_rng(seed)`, whose last sixth validates.
The published test images are the test set, in their order, whatever the seed.
"""

import gzip
from pathlib import Path

import numpy as np
import torch

from dulcourse.data import downloads
from dulcourse.data.dataset import Dataset, one_of
from dulcourse.errors import UsageError

__all__ = ["LEVELS", "read", "split_of"]

LEVELS = (256, 16, 4, 2)


def split_of(name: str, split: str, *, seed: int, levels: int, url: str, sha256: dict[str, str]) -> Dataset:
    """One split of the data set whose files, with their checksums, lie under `url`.

    A value v of 0 … 255 becomes ⌊levels · v / 256⌋; with two levels that is a threshold, not the random
    binarisation that published likelihoods of MNIST are quoted for.
    """
    one_of(f"levels of {name}", levels, LEVELS)
    part = "t10k" if split == "test" else "train"
    files = (f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz")
    images, labels = (
        read(downloads.fetch(name, file, url=url + file, sha256=sha256[file])) for file in files
    )
    chosen = chosen_of(split, len(images), len(images) // 6, seed)
    x = torch.from_numpy(images[chosen].astype(np.int64) * levels // 256).unsqueeze(1)
    return Dataset(name, split, x, torch.from_numpy(labels[chosen].astype(np.int64)), levels)


def chosen_of(split: str, n: int, held_out: int, seed: int) -> np.ndarray:
    """Which of `n` published images belong to a split: of training images, the last `held_out` validate."""
    if split == "test":
        return np.arange(n)
    order = np.random.default_rng(seed).permutation(n)
    return order[: n - held_out] if split == "train" else order[n - held_out :]


def read(path: Path) -> np.ndarray:
    """The array of a gzipped IDX file of bytes: two zeros, the type 8, the rank, the sizes, the values."""
    content = gzip.decompress(path.read_bytes())
    rank = content[3] if len(content) > 4 and content[:3] == b"\0\0\x08" else 0
    sizes = (
        np.frombuffer(content[4 : 4 + 4 * rank], np.uint8).view(">u4") if len(content) > 4 * rank + 4 else ()
    )
    if rank == 0 or len(content) != 4 + 4 * rank + np.prod(sizes, dtype=np.int64):
        raise UsageError(f"{path} is not an IDX file of bytes: delete it, to have it downloaded again.")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(sizes)
