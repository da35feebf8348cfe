"""MNIST: 28×28 handwritten digits (LeCun, Bottou, Bengio and Haffner 1998), downloaded."""

from dulcourse.data import idx
from dulcourse.data.dataset import Dataset

__all__ = ["SHA256", "URL", "load"]

URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


def load(split: str, *, seed: int = 0, levels: int = 256) -> Dataset:
    """50 000 digits to train on, 10 000 to validate, 10 000 to test; y is the digit."""
    return idx.split_of("mnist", split, seed=seed, levels=levels, url=URL, sha256=SHA256)
