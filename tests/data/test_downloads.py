"""Published data sets on small files of their real formats, and what they say without a network."""

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dulcourse import data
from dulcourse.data import cifar10, fashion, idx, mnist
from dulcourse.errors import UsageError

NOWHERE = "http://127.0.0.1:9/"  # nothing listens there
RNG = np.random.default_rng(0)
TRAIN, TEST = (RNG.integers(256, size=(n, 28, 28), dtype=np.uint8) for n in (60, 20))
PHOTOS = RNG.integers(256, size=(6, 10, 3, 32, 32), dtype=np.uint8)  # five training files and a test file


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder, and no network."""
    monkeypatch.setenv("DULCOURSE_DATA", str(tmp_path))
    for module in (mnist, fashion, cifar10):
        monkeypatch.setattr(module, "URL", NOWHERE)
    return tmp_path


def as_idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(head + array.tobytes())


def put(path: Path, content: bytes) -> str:
    """Write a file; its SHA-256."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def labels(n: int) -> np.ndarray:
    return (np.arange(n) % 10).astype(np.uint8)


@pytest.fixture(params=[mnist, fashion], ids=["mnist", "fashion"])
def published(request, cache, monkeypatch) -> str:
    name = request.param.__name__.rpartition(".")[2]
    files = {
        "train-images-idx3-ubyte.gz": TRAIN,
        "train-labels-idx1-ubyte.gz": labels(60),
        "t10k-images-idx3-ubyte.gz": TEST,
        "t10k-labels-idx1-ubyte.gz": labels(20),
    }
    assert request.param.SHA256.keys() == files.keys()
    sums = {file: put(cache / name / file, as_idx(array)) for file, array in files.items()}
    monkeypatch.setattr(request.param, "SHA256", sums)
    return name


def test_idx_splits_are_the_published_ones(published):
    train, validation, test = (data.load(published, split, seed=1) for split in data.SPLITS)
    assert [len(train), len(validation), len(test)] == [50, 10, 20]
    assert torch.equal(test.x[:, 0], torch.from_numpy(TEST).long())
    assert torch.equal(test.y, torch.from_numpy(labels(20)).long())
    order = np.random.default_rng(1).permutation(60)
    assert torch.equal(torch.cat([train.x, validation.x])[:, 0], torch.from_numpy(TRAIN[order]).long())
    assert torch.equal(torch.cat([train.y, validation.y]), torch.from_numpy(labels(60)[order]).long())
    assert (train.shape, train.levels, train.name) == ((1, 28, 28), 256, published)


@pytest.mark.parametrize("levels", idx.LEVELS)
def test_levels_are_equal_steps(published, levels):
    found = data.load(published, "test", levels=levels)
    assert torch.equal(found.x[:, 0], torch.from_numpy(TEST).long() // (256 // levels))


@pytest.fixture
def archive(cache, monkeypatch) -> Path:
    """CIFAR-10's binary archive with ten images a file instead of ten thousand."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, batch in zip((*cifar10._TRAIN, *cifar10._TEST), PHOTOS, strict=True):
            records = np.concatenate([labels(10)[:, None], batch.reshape(10, -1)], axis=1).tobytes()
            member = tarfile.TarInfo(name)
            member.size = len(records)
            tar.addfile(member, io.BytesIO(records))
    path = cache / "cifar10" / cifar10.FILE
    monkeypatch.setattr(cifar10, "SHA256", put(path, buffer.getvalue()))
    return path


def test_cifar10_is_red_green_and_blue_planes(archive):
    train, validation, test = (data.load("cifar10", split) for split in data.SPLITS)
    assert [len(train), len(validation), len(test)] == [45, 5, 10]
    assert (test.shape, test.levels) == ((3, 32, 32), 256)
    assert torch.equal(test.x, torch.from_numpy(PHOTOS[5]).long())
    assert test.y.tolist() == list(range(10))
    order = np.random.default_rng(0).permutation(50)
    together = torch.cat([train.x, validation.x])
    assert torch.equal(together, torch.from_numpy(PHOTOS[:5].reshape(50, 3, 32, 32)[order]).long())
    coarse = data.load("cifar10", "test", levels=4)
    assert torch.equal(coarse.x, test.x // 64)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "train-images-idx3-ubyte.gz"),
        ("fashion", "train-images-idx3-ubyte.gz"),
        ("cifar10", "cifar-10-binary.tar.gz"),
    ],
)
@pytest.mark.parametrize("there", [False, True], ids=["missing", "altered"])
def test_without_a_network_the_error_names_folder_file_and_address(cache, name, file, there):
    if there:
        put(cache / name / file, b"something else")
    with pytest.raises(UsageError) as caught:
        data.load(name, "train")
    message = str(caught.value)
    assert str(cache / name) in message
    assert file in message
    assert NOWHERE + file in message
    assert "DULCOURSE_DATA" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x08\x00",
        b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0",  # floats
        b"\0\0\x08\x01\0\0\0\x05abcd",  # a byte short
        b"\0\0\x08\x03\0\0\0\x01",  # sizes missing
    ],
)
def test_a_file_that_is_not_idx_is_refused(tmp_path, content):
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(UsageError, match=r"labels\.gz is not an IDX file"):
        idx.read(path)


def test_an_archive_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo(cifar10._TEST[0]))
    for members in (cifar10._TRAIN, ("nothing",)):
        with pytest.raises(UsageError, match="not CIFAR-10's binary archive"):
            cifar10.read(path, members)


def test_checksums_are_of_sha256():
    sums = [*mnist.SHA256.values(), *fashion.SHA256.values(), cifar10.SHA256]
    assert len(set(sums)) == 9
    assert all(len(digest) == 64 and int(digest, 16) for digest in sums)
