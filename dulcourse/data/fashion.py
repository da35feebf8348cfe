"""Fashion-MNIST: 28×28 photographs of clothes (Xiao, Rasul and Vollgraf 2017), downloaded."""

from dulcourse.data import idx
from dulcourse.data.dataset import Dataset

__all__ = ["SHA256", "URL", "load"]

URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}


def load(split: str, *, seed: int = 0, levels: int = 256) -> Dataset:
    """50 000 pictures to train on, 10 000 to validate, 10 000 to test; y is one of ten kinds of clothes."""
    return idx.split_of("fashion", split, seed=seed, levels=levels, url=URL, sha256=SHA256)
