"""A flow's density: composition adds log-dets, any prior will do, and wrong parts are noticed."""

import math

import pytest
import torch
from torch.distributions import Laplace, MultivariateNormal, Normal, Uniform

from dulcourse.errors import UsageError
from dulcourse.flows.affine import Affine, Diagonal
from dulcourse.flows.base import Compose, Flow, Transform, per_event
from dulcourse.flows.elementwise import LeakyReLU, Logit, Scaling, Sigmoid
from tests.flows.checks import assert_one_to_one, disturb, integral


def chain(generator) -> Compose:
    return disturb(Compose([Scaling(0.5, -1.0), Affine(2), LeakyReLU(0.3), Diagonal((2,))]), generator)


def test_composition_adds_log_dets(float64, generator):
    f = chain(generator)
    x = torch.randn(5, 2, generator=generator)
    z, total, steps = x, 0.0, []
    for transform in f.transforms:
        z, log_det = transform(z)
        total, steps = total + log_det, [*steps, log_det]
    torch.testing.assert_close(f(x), (z, total))
    assert all((step != 0).any() for step in steps)  # each of them counts


def test_composition_is_one_to_one(float64, generator):
    assert_one_to_one(chain(generator), torch.randn(6, 2, generator=generator))


def test_nothing_composed_is_the_identity(float64):
    x = torch.ones(3, 2)
    z, log_det = Compose([])(x)
    assert torch.equal(z, x)
    assert torch.equal(log_det, torch.zeros(3))


def test_the_density_integrates_to_one_in_two_dimensions(float64, generator):
    assert integral(Flow(chain(generator), (2,)), -40, 40, 800) == pytest.approx(1, abs=1e-3)


PRIORS = {
    "normal": Normal(0.0, 1.0),
    "wide": Normal(torch.zeros(2), torch.tensor([1.0, 2.0])),
    "laplace": Laplace(0.0, 1.0),
    "correlated": MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.6], [0.6, 2.0]])),
}


@pytest.mark.parametrize("prior", PRIORS)
def test_any_prior_integrates_to_one(prior, float64, generator):
    flow = Flow(chain(generator), (2,), prior=PRIORS[prior])
    assert integral(flow, -60, 60, 800) == pytest.approx(1, abs=5e-3)


def test_the_default_prior_is_the_standard_normal(float64, generator):
    f, x = chain(generator), torch.randn(5, 2, generator=generator)
    named = Flow(f, (2,), prior=Normal(torch.zeros(2), torch.ones(2)))
    torch.testing.assert_close(Flow(f, (2,)).log_prob(x), named.log_prob(x))


@pytest.mark.parametrize("prior", [None, "correlated"])
def test_samples_have_the_moments_of_the_density(prior, float64, generator):
    """20 000 samples against sums over a grid: four standard errors of mean and of second moment."""
    f = Compose([Affine(2), LeakyReLU(0.4)])
    with torch.no_grad():
        f.transforms[0].b.copy_(torch.tensor([1.0, -2.0]))
        f.transforms[0].upper.fill_(0.7)
    flow = Flow(f, (2,), prior=prior and PRIORS[prior])
    x = flow.sample(20_000, generator=generator)
    axis = torch.linspace(-30, 30, 601)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        p = flow.log_prob(grid).exp()
    p = p / p.sum()
    for power in (1, 2):
        expected, spread = (p @ grid**power), x.pow(power).std(0) / math.sqrt(len(x))
        assert ((x.pow(power).mean(0) - expected).abs() < 4 * spread + 0.01).all()


def test_training_under_one_prior_and_sampling_from_another_is_seen(float64, generator):
    """x ~ N(0, 1): the mean of log p over a flow's own samples is −its entropy, under its own prior only."""
    flow = Flow(Scaling(1.0), (1,))
    own, other = (
        Flow(Scaling(1.0), (1,), prior=p).sample(5000, generator=generator) for p in (None, Laplace(0.0, 3.0))
    )
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    assert -flow.log_prob(own).mean().item() == pytest.approx(entropy, abs=0.05)
    assert -flow.log_prob(other).mean().item() > entropy + 5


def test_a_prior_on_another_support_is_seen(float64, generator):
    """∫ p(x) dx = P_z(image of f): below one for a sigmoid before N(0, 1), an error for z outside U(0, 1)."""
    x = torch.randn(100, 1, generator=generator)
    assert integral(Flow(Sigmoid(), (1,)), -40, 40, 4000) < 0.35
    with pytest.raises(ValueError, match="support"):
        Flow(LeakyReLU(), (1,), prior=Uniform(0.0, 1.0)).log_prob(x)


def test_sampling_leaves_the_global_generator_alone(generator):
    state = torch.get_rng_state()
    for prior in (None, Laplace(0.0, 1.0)):
        flow = Flow(Scaling(2.0), (3,), prior=prior)
        first, again = (flow.sample(4, generator=torch.Generator().manual_seed(1)) for _ in range(2))
        assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)


def test_forward_and_log_prob_do_not_change_x(generator):
    """A peer's preprocessing wrote into the images it was given."""
    x = torch.rand(4, 2, generator=generator)
    before = x.clone()
    Flow(Compose([Scaling(0.9, 0.05), Logit(0.01), Diagonal((2,)), LeakyReLU()]), (2,)).log_prob(x)
    assert torch.equal(x, before)


def test_log_slopes_add_up_over_the_event():
    assert per_event(torch.ones(2, 3, 4)).tolist() == [12, 12]
    assert per_event(torch.ones(2)).tolist() == [1, 1]


def test_what_a_subclass_must_define_is_said():
    for call in (Transform(), Transform().inverse):
        with pytest.raises(NotImplementedError, match="Transform does not define"):
            call(torch.zeros(1, 2))


def test_wrong_inputs_are_refused_in_words():
    flow = Flow(Scaling(2.0), (2,))
    with pytest.raises(UsageError, match=r"x has shape \[3, 5\], expected \[batch, 2\]"):
        flow(torch.zeros(3, 5))
    with pytest.raises(UsageError, match="a density of integers is meaningless"):
        flow.check(torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(UsageError, match=r"z has shape \[3, 5\], expected \[batch, 2\]"):
        flow.inverse(torch.zeros(3, 5))
