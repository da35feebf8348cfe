"""What scikit-learn ships is found without importing it."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images

from dulcourse.data import photos, shipped
from dulcourse.errors import InfrastructureError


def test_loading_imports_no_scikit_learn():
    program = (
        "import sys; from dulcourse.data import load; load('digits', 'test'); load('photos', 'test', n=1); "
        "print('sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_photographs_are_scikit_learns_to_the_last_bit():
    ours = torch.from_numpy(photos._photographs())
    assert torch.equal(ours, torch.from_numpy(np.stack(load_sample_images().images)))


@pytest.mark.parametrize(
    ("package", "message"),
    [
        (None, "not installed: run pip install"),
        (SimpleNamespace(origin="/nowhere/__init__.py"), "without data"),
    ],
)
def test_what_is_missing_is_said(package, message, monkeypatch):
    monkeypatch.setattr(shipped, "find_spec", lambda name: package)
    with pytest.raises(InfrastructureError, match=message):
        shipped.shipped("data/digits.csv.gz")
