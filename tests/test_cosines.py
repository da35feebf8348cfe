"""Cosines over levels: smooth, orthogonal, and enough of them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dulcourse.cosines import basis
from dulcourse.errors import UsageError


@given(levels=st.integers(2, 40))
def test_all_of_them_with_the_constant_say_everything(levels):
    rows = torch.cat([basis(levels, levels - 1).double(), torch.ones(1, levels, dtype=torch.float64)])
    products = rows @ rows.T
    torch.testing.assert_close(products, torch.diag(products.diag()), atol=1e-4, rtol=0)
    assert (products.diag() > 0.4).all()


@given(levels=st.integers(2, 40), cosines=st.integers(1, 39))
def test_entries_are_the_formula(levels, cosines):
    if cosines >= levels:
        return
    rows = basis(levels, cosines)
    assert rows.shape == (cosines, levels)
    for f, k in ((1, 0), (cosines, levels - 1)):
        expected = math.cos(math.pi * f * (k + 0.5) / levels)
        assert rows[f - 1, k].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("cosines", [0, 17, 18])
def test_more_than_a_softmax_can_use_is_refused(cosines):
    with pytest.raises(UsageError, match=f"cosines is {cosines}, expected 1 to 16 for levels=17"):
        basis(17, cosines)
