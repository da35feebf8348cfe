"""A flow that is a Gaussian: everything about it is known in closed form."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal

from dulcourse.errors import UsageError
from dulcourse.flows.affine import Affine, Diagonal
from dulcourse.flows.base import Flow
from tests.flows.checks import assert_one_to_one, disturb


@given(
    shape=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
    seed=st.integers(0, 99),
    size=st.sampled_from([0.1, 1.0]),
)
@pytest.mark.parametrize("kind", ["full", "diagonal"])
def test_it_is_one_to_one(kind, shape, seed, size):

    g = torch.Generator().manual_seed(seed)
    f = Affine(torch.Size(shape).numel()) if kind == "full" else Diagonal(shape)
    x = 5 * torch.randn(2, *shape, generator=g, dtype=torch.float64)
    assert_one_to_one(disturb(f.double(), g, size), x, atol=1e-6)


@pytest.fixture
def affine(float64, generator) -> Affine:
    return disturb(Affine(4), generator, 0.5)


def test_it_is_the_normal_distribution_of_mean_b_and_covariance_a_a(affine, generator):
    x = 3 * torch.randn(20, 4, generator=generator)
    normal = MultivariateNormal(affine.b, affine.matrix @ affine.matrix.T)
    torch.testing.assert_close(Flow(affine, (4,)).log_prob(x), normal.log_prob(x))


def test_the_log_det_is_minus_that_of_the_matrix(affine):
    """det A is positive whatever the parameters are, so that A never stops being invertible."""
    sign, log_det = torch.linalg.slogdet(affine.matrix)
    assert sign == 1
    torch.testing.assert_close(affine(torch.zeros(1, 4))[1][0], -log_det)


def test_the_fit_is_the_maximum_of_the_likelihood(float64, generator):
    x = torch.randn(200, 3, generator=generator) @ torch.randn(3, 3, generator=generator) + 2
    fitted = Affine.fit(x)
    torch.testing.assert_close(fitted.b.detach(), x.mean(0))
    torch.testing.assert_close((fitted.matrix @ fitted.matrix.T).detach(), x.T.cov(correction=0))
    Flow(fitted, (3,)).log_prob(x).mean().backward()
    for parameter in fitted.parameters():
        torch.testing.assert_close(parameter.grad, torch.zeros_like(parameter), atol=1e-8, rtol=0)


def test_a_fitted_flow_whitens(float64, generator):
    x = torch.randn(50, 2, 1, generator=generator) * 7 + 1
    z, _ = Affine.fit(x)(x)
    torch.testing.assert_close(z.flatten(1).T.cov(correction=0).detach(), torch.eye(2), atol=1e-9, rtol=0)


def test_standardising_gives_mean_zero_and_deviation_one(float64, generator):
    x = torch.randn(100, 2, 3, generator=generator) * 4 - 1
    f = Diagonal((2, 3))
    f.standardise(x)
    z, log_det = f(x)
    torch.testing.assert_close(z.mean(0).detach(), torch.zeros(2, 3), atol=1e-9, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0).detach(), torch.ones(2, 3))
    torch.testing.assert_close(log_det[0].detach(), -x.std(0, correction=0).log().sum())


def test_a_constant_pixel_is_not_blown_up(float64):
    f = Diagonal((1,))
    f.standardise(torch.full((5, 1), 3.0), least=0.1)
    assert f.log_scale.exp().item() == pytest.approx(10)


def test_loading_does_not_standardise_again(float64, generator):
    """A peer's data-dependent layer initialised itself anew after loading."""
    source, target = Diagonal((2,)), Diagonal((2,))
    source.standardise(torch.randn(10, 2, generator=generator))
    target.load_state_dict(source.state_dict())
    x = 9 * torch.randn(5, 2, generator=generator)
    torch.testing.assert_close(target(x), source(x))
    torch.testing.assert_close(target(x), source(x))


def test_wrong_inputs_are_refused_in_words():
    with pytest.raises(UsageError, match=r"events of shape \(3,\) have 3 elements, expected 2"):
        Flow(Affine(2), (3,))
    with pytest.raises(UsageError, match=r"events have shape \(3,\), expected \(2,\)"):
        Flow(Diagonal((2,)), (3,))
    with pytest.raises(UsageError, match="dims is 0"):
        Affine(0)
