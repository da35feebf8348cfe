"""Flows and latent-variable models that went wrong in the usual ways: each mistake is planted and named."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from torch import nn

from dulcourse.flows.base import Flow, Transform
from dulcourse.flows.mixture_cdf import MixtureCDF, MixtureMap
from dulcourse.latent.base import LatentModel, gaussian_kl, gaussian_log_prob
from dulcourse.likelihood import log_prob
from dulcourse.referee import flow, latent
from dulcourse.referee.diagnosis import diagnose, units
from dulcourse.referee.diagnosis import latent as diagnosis_of_latents
from dulcourse.referee.diagnosis.latent import explain
from dulcourse.referee.respondent import LocalRespondent

SHAPE, LEVELS, D, LATENTS = (1, 4, 4), 8, 16, 3
CHECKPOINT = save({"weight": np.zeros(1)})
LN2, LN_2PI = math.log(2), math.log(2 * math.pi)


class Couplings(Transform):
    """x/L − ½, then two affine couplings; the places to go wrong are methods of their own."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(0.4 * torch.randn(4, 8, 8, generator=generator))
        self.spread = nn.Parameter(torch.tensor(1.5))

    def halves(self, x):
        return x.flatten(1).chunk(2, dim=1)

    def scales(self, k, a):
        return torch.tanh(a @ self.weight[2 * k]) + self.spread, a @ self.weight[2 * k + 1]

    def forward(self, x):
        a, b = self.halves(x / LEVELS - 0.5)
        s, t = self.scales(0, a)
        b = b * torch.exp(s) + t
        r, u = self.scales(1, b)
        a = a * torch.exp(r) + u
        return torch.cat([a, b], 1).view_as(x), self.total(s, r)

    def total(self, s, r):
        return s.sum(1) + r.sum(1) - D * math.log(LEVELS)

    def inverse(self, z):
        a, b = self.halves(z)
        r, u = self.scales(1, b)
        a = (a - u) * torch.exp(-r)
        s, t = self.scales(0, a)
        b = (b - t) * torch.exp(-s)
        return (torch.cat([a, b], 1).view_as(z) + 0.5) * LEVELS, -self.total(s, r)


def with_total(total):
    """Couplings whose log-determinant is something else."""
    model = Couplings()
    model.total = lambda s, r: total(s, r)
    return model


def true_total(s, r):
    return s.sum(1) + r.sum(1) - D * math.log(LEVELS)


class WrongInverse(Couplings):
    def inverse(self, z):
        a, b = self.halves(z)
        s, t = self.scales(0, a)  # the couplings are undone in the order in which they were done
        b = (b - t) * torch.exp(-s)
        r, u = self.scales(1, b)
        a = (a - u) * torch.exp(-r)
        return (torch.cat([a, b], 1).view_as(z) + 0.5) * LEVELS, -self.total(s, r)


class RoughInverse(Couplings):
    def inverse(self, z):
        x, log_det = super().inverse(z)
        return (x * 1000).round() / 1000, log_det


class Contracting(Couplings):
    """As after training with a sign that rewards it: z is next to 0, and every scale at its bound."""

    def forward(self, x):
        z, log_det = super().forward(x)
        return z * math.exp(-8), log_det + 8 * D

    def inverse(self, z):
        return super().inverse(z * math.exp(8))


class Contracted(Couplings):
    """As after training without log_det: z is next to 0, and what forward says of it is right."""

    def total(self, s, r):
        return super().total(s, r) - 3 * D

    def forward(self, x):
        z, log_det = super().forward(x)
        return z * math.exp(-3), log_det

    def inverse(self, z):
        return super().inverse(z * math.exp(3))


class Idle(Couplings):
    """Both couplings transform the same half."""

    def forward(self, x):
        a, b = self.halves(x / LEVELS - 0.5)
        s, t = self.scales(0, a)
        r, u = self.scales(1, a)
        b = (b * torch.exp(s) + t) * torch.exp(r) + u
        return torch.cat([b, a], 1).view_as(x), self.total(s, r)

    def inverse(self, z):
        b, a = self.halves(z)
        s, t = self.scales(0, a)
        r, u = self.scales(1, a)
        b = ((b - u) * torch.exp(-r) - t) * torch.exp(-s)
        return (torch.cat([a, b], 1).view_as(z) + 0.5) * LEVELS, -self.total(s, r)


class Spikes(Transform):
    """As after training without noise: steep at whole numbers, and shallow between them."""

    def forward(self, x):
        angle = 2 * math.pi * x
        z = x + 0.99 * torch.sin(angle) / (2 * math.pi)
        return 4 * z / LEVELS - 2, (torch.log1p(0.99 * torch.cos(angle)) + math.log(4 / LEVELS)).flatten(
            1
        ).sum(1)

    def inverse(self, z):
        target, low = (z + 2) * LEVELS / 4, torch.zeros_like(z) - 4
        high = low + LEVELS + 8
        for _ in range(60):
            x = (low + high) / 2
            below = x + 0.99 * torch.sin(2 * math.pi * x) / (2 * math.pi) < target
            low, high = torch.where(below, x, low), torch.where(below, high, x)
        return x, -self(x)[1]


class WithPrior(Couplings):
    """log F' where log f' is meant."""

    def forward(self, x):
        z, log_det = super().forward(x)
        return z, log_det + standard(z.flatten(1))


class Rounded(Couplings):
    """Right up to the digits that it keeps."""

    def forward(self, x):
        z, log_det = super().forward(x)
        return z + ((z * 2e4).round() / 2e4 - z).detach(), log_det


def own(make):
    """A flow whose log_prob is another function of z and log_det."""

    class Own(Flow):
        def log_prob(self, x):
            return make(*self(x))

    return lambda: Own(Couplings(), SHAPE, LEVELS)


def standard(z):
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(1)


def logistic(z):
    return -(z + 2 * torch.nn.functional.softplus(-z)).sum(1)


def plain(transform=Couplings):
    return lambda: Flow(transform(), SHAPE, LEVELS)


def told(total):
    return lambda: Flow(with_total(total), SHAPE, LEVELS)


def scaling(factor):
    """Exact, whatever the factor is."""

    class Scaling(Transform):
        def forward(self, x):
            return (x - 3.5) * factor, torch.full((len(x),), D * math.log(factor), dtype=x.dtype)

        def inverse(self, z):
            return z / factor + 3.5, torch.full((len(z),), -D * math.log(factor), dtype=z.dtype)

    return Scaling()


FLOWS = {
    "the sign of the log-determinant": (told(lambda s, r: -true_total(s, r)), "the sign is wrong"),
    "the sign of one layer": (
        told(lambda s, r: -s.sum(1) - r.sum(1) - D * math.log(LEVELS)),
        "compare each layer's log_det",
    ),
    "no log-determinant": (told(lambda s, r: 0 * s.sum(1)), "zero throughout"),
    "half of the log-determinant": (told(lambda s, r: true_total(s, r) / 2), "it is half of it"),
    "half of the dimensions": (
        told(lambda s, r: s[:, :4].sum(1) + r[:, :4].sum(1) - D / 2 * math.log(LEVELS)),
        "about half is missing",
    ),
    "averaged": (told(lambda s, r: true_total(s, r) / D), "averaged over the 16 dimensions"),
    "a mean over the batch": (
        told(lambda s, r: true_total(s, r).mean().expand(len(s))),
        "averaged over the batch",
    ),
    "a layer's mean over the batch": (
        told(lambda s, r: s.sum(1).mean() + r.sum(1) - D * math.log(LEVELS)),
        "averaged over the batch",
    ),
    "in bits": (told(lambda s, r: true_total(s, r) / LN2), "it is in bits"),
    "no log₂ L": (told(lambda s, r: s.sum(1) + r.sum(1)), "which is log₂ 8 bits/dim"),
    "a constant": (told(lambda s, r: true_total(s, r) + 5.0), "off by +5.000 for every image"),
    "a factor of 0.9": (
        told(lambda s, r: true_total(s, r) - D * math.log(0.9)),
        "a constant scaling is left out (by 0.9 if it is of all 16 dimensions)",
    ),
    "the sign of x/L": (
        told(lambda s, r: true_total(s, r) + 2 * D * math.log(LEVELS)),
        "is −16 · log 8, not +",
    ),
    "x/L twice": (told(lambda s, r: true_total(s, r) - D * math.log(LEVELS)), "of x/8 is counted twice"),
    "the kept half": (told(lambda s, r: true_total(s, r) + 60.0), "(the kept half of a coupling)"),
    "paid for contracting": (plain(lambda: Contracting()), "log_det does not charge for contracting"),
    "a loss without log_det": (plain(Contracted), "was log_det left out of the loss?"),
    "a mask that is never flipped": (plain(Idle), "8 of the 16 entries of z follow from one x each"),
    "trained without noise": (plain(Spikes), "was it trained on x + u"),
    "the prior in it": (plain(WithPrior), "the prior's log N(z; 0, I) is in it"),
    "one layer's slope": (told(lambda s, r: r.sum(1) - 60.0), "compare each layer's log_det"),
    "not finite": (told(lambda s, r: true_total(s, r) / 0), "log_det of forward is not finite for"),
    "an inverse in the wrong order": (plain(WrongInverse), "do not undo each other"),
    "an inverse of few digits": (plain(RoughInverse), "needs more steps, or float32 is used inside"),
    "another prior": (own(lambda z, d: logistic(z) + d), "another prior"),
    "no constant": (own(lambda z, d: -0.5 * (z**2).sum(1) + d), "lacks the prior's −½ log 2π"),
    "a mean of the prior": (
        own(lambda z, d: standard(z) / D + d),
        "averages the prior over the 16 dimensions",
    ),
    "a minus": (own(lambda z, d: standard(z) - d), "log_prob subtracts the log-determinant"),
    "few digits": (plain(Rounded), "not every x comes back to 0.0001 levels"),
    "z without end": (plain(lambda: scaling(1e8)), "z of forward is 1e+06 or more for"),
}


@pytest.fixture(scope="module")
def sampled():
    model = Flow(Couplings(), SHAPE, LEVELS)
    x = model.sample(160, generator=torch.Generator().manual_seed(0))
    return x.floor().clamp(0, LEVELS - 1).long().numpy()


def of_flow(model, images, claimed=None):
    party = LocalRespondent({"m": SimpleNamespace(model=model, claim=None, history=None)})
    frozen = flow.freeze(CHECKPOINT, SHAPE, LEVELS)
    asked = flow.ask_first(party, "m", frozen, images, generator=np.random.default_rng(0))
    found = flow.score(party, "m", frozen, asked, images, generator=np.random.default_rng(1))
    draws = np.random.default_rng(2)
    claimed = claimed(found) if callable(claimed) else claimed
    return diagnose(party, "m", frozen, found, images, generator=draws, asked=asked, claimed=claimed), found


@pytest.mark.parametrize(("build", "words"), FLOWS.values(), ids=FLOWS)
def test_a_mistake_in_a_flow_is_named_first(build, words, sampled):
    said, _ = of_flow(build(), sampled)
    assert words in said.words[0]


class Plane(Transform):
    """z_1 = (x_1 − 3.5)/2, z_2 = (x_2 − 3.5)/2 · exp(tanh z_1 − ½); log_det sums the slopes `counted`."""

    def __init__(self, counted=(True, True), mutual=False):
        super().__init__()
        self.counted, self.mutual = torch.tensor(counted), mutual

    def forward(self, x):
        first, second = ((x - 3.5) / 2).flatten(1).T
        log_slope = torch.tanh(first) - 0.5
        z = torch.stack([first, second * torch.exp(log_slope)], dim=1)
        if self.mutual:
            z = torch.stack([z[:, 0] + 0.9 * torch.sin(second), z[:, 1]], dim=1)
        logs = torch.stack([torch.zeros_like(log_slope), log_slope], dim=1) - math.log(2)
        return z.view_as(x), torch.where(self.counted, logs, 0.0).sum(1)

    def inverse(self, z):
        first, second = z.flatten(1).T
        x = torch.stack([first, second * torch.exp(0.5 - torch.tanh(first))], dim=1)
        return (2 * x + 3.5).view_as(z), torch.zeros(len(z), dtype=z.dtype)


@pytest.mark.parametrize(
    ("plane", "words"),
    [
        (Plane((False, True)), "it is log|∂z_2/∂x_2| alone; sum over all 2"),
        (Plane((True, False)), "it is log|∂z_1/∂x_1| alone; sum over all 2"),
        (Plane(mutual=True), "some z_i depends on what comes after x_i"),
        (Plane(), None),
    ],
)
def test_the_slopes_of_a_plane_are_told_apart(plane, words):
    shape = (2, 1, 1)
    x = torch.randint(LEVELS, (200, *shape), generator=torch.Generator().manual_seed(0)).numpy()
    party = LocalRespondent({"m": SimpleNamespace(model=Flow(plane, shape, LEVELS))})
    frozen = flow.freeze(CHECKPOINT, shape, LEVELS)
    asked = flow.ask_first(party, "m", frozen, x, generator=np.random.default_rng(0))
    found = flow.score(party, "m", frozen, asked, x, generator=np.random.default_rng(1))
    said = diagnose(party, "m", frozen, found, x, generator=np.random.default_rng(2), asked=asked)
    log_det = [word for word in said.words if word.startswith("log_det of forward")]
    assert len(log_det) == (words is not None)
    assert words is None or words in log_det[0]


def test_of_a_flow_without_mistakes_nothing_is_said(sampled):
    said, found = of_flow(Flow(Couplings(), SHAPE, LEVELS), sampled)
    assert said.words == []
    assert said.own_bits_per_dim == pytest.approx(uncapped(found), abs=1e-3)
    assert said.matrix is None


ONLY = {
    "the kept half": ("sign", "left out"),
    "a factor of 0.9": ("sign", "kept half"),
    "paid for contracting": ("kept half",),
    "one layer's slope": ("sign",),
}


@pytest.mark.parametrize(("mistake", "others"), ONLY.items(), ids=ONLY)
def test_no_other_cause_is_named(mistake, others, sampled):
    said, _ = of_flow(FLOWS[mistake][0](), sampled)
    (only,) = said.words
    assert not [other for other in others if other in only]


def spiky(log_scale, components):
    """A correct density of narrow logistics, the mean of each between two integers."""
    mixture = MixtureMap(components, "logistic", low=0.0, high=float(LEVELS), bound=8.0)
    transform = MixtureCDF(SHAPE, mixture)
    with torch.no_grad():
        transform.theta[..., 2 * components :].fill_(8 * math.atanh(log_scale / 8))
    return Flow(transform, SHAPE, LEVELS)


@pytest.mark.parametrize("log_scale", [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -7.99])
@pytest.mark.parametrize("components", [2, LEVELS])
def test_a_correct_flow_with_spikes_is_told_nothing_wrong(log_scale, components, sampled):
    """Where its density is all but nil, neither autograd nor an inverse has digits left."""
    said, _ = of_flow(spiky(log_scale, components), sampled)
    assert all("forward is so flat" in words or "follows from one x alone" in words for words in said.words)
    if log_scale <= -4:
        assert said.words


@pytest.mark.parametrize("factor", [1e-5, 5e-4, 2e-3, 1e-2, 1.0, 1e3])
def test_a_correct_scaling_is_told_nothing_wrong(factor, sampled):
    """But how far from N(0, I) it leaves z, or what that costs."""
    said, _ = of_flow(Flow(scaling(factor), SHAPE, LEVELS), sampled)
    expected = [
        "so flat" if factor < 0.003 else "stretching it would save" if factor < 0.1 else "from one x alone"
    ]
    assert len(said.words) == len(expected)
    assert all(some in words for some, words in zip(expected, said.words, strict=True))


def uncapped(score):
    """What the images would cost if no charge were capped: what a model says of itself."""
    return score.parts["prior"] - score.parts["log_det"]


CLAIMS = {
    "right": (uncapped, "agrees with"),
    "nats": (lambda s: uncapped(s) * LN2, "in nats; divide by ln 2"),
    "a sum": (lambda s: uncapped(s) * D, "the sum over the 16 dimensions"),
    "no log₂ L": (lambda s: uncapped(s) - 3, "log₂ 8 is missing"),
    "a sign": (lambda s: s.parts["prior"] + s.parts["log_det"], "log-determinant has the wrong sign"),
    "the prior alone": (lambda s: s.parts["prior"], "log-determinant was left out"),
    "the prior alone, nats": (lambda s: s.parts["prior"] * LN2, "left out", "and it is in nats"),
    "half": (lambda s: s.parts["prior"] - s.parts["log_det"] / 2, "half of the log-determinant is missing"),
    "twice divided": (lambda s: s.parts["prior"] - s.parts["log_det"] / D, "by the 16 dimensions twice"),
    "overfitted": (lambda s: uncapped(s) - 0.3, "on training images"),
}


@pytest.mark.parametrize("row", CLAIMS.values(), ids=CLAIMS)
def test_the_claim_of_a_flow_is_explained(row, sampled):
    claim, *words = row
    said, _ = of_flow(Flow(Couplings(), SHAPE, LEVELS), sampled, claimed=claim)
    (only,) = said.words
    assert all(each in only for each in words), only


def test_answers_that_are_not_finite_are_said_first(sampled):
    class Broken(Couplings):
        def inverse(self, z):
            x, log_det = super().inverse(z)
            x[::2] = torch.nan
            return x, log_det

    said, _ = of_flow(Flow(Broken(), SHAPE, LEVELS), sampled, claimed=prior_alone)
    (only,) = said.words
    assert only.startswith("80 answers could not be used and were charged in full")


def prior_alone(score):
    return score.parts["prior"]


def test_what_failed_in_forward_is_not_held_against_the_others(sampled):
    class Evasive(Flow):
        """Has an own log_prob, of every image."""

        def log_prob(self, x):
            return Flow(Couplings().to(x.dtype), SHAPE, LEVELS).log_prob(x)

    class Broken(Couplings):
        def forward(self, x):
            z, log_det = super().forward(x)
            return z * torch.where(torch.arange(len(x)) % 2 == 0, torch.nan, 1.0)[
                :, None, None, None
            ], log_det

    for model in (Flow(Broken(), SHAPE, LEVELS), Evasive(Broken(), SHAPE, LEVELS)):
        said, _ = of_flow(model, sampled, claimed=prior_alone)
        (only,) = said.words
        assert only.startswith("80 answers could not be used and were charged in full")


# Latent-variable models


class Coder(LatentModel):
    """A model that fits its own samples well: z moves the picture, and the encoder finds it again."""

    def __init__(self):
        super().__init__(SHAPE, LEVELS, LATENTS)
        generator = torch.Generator().manual_seed(2)
        self.way = nn.Parameter(torch.randn(LATENTS, D, generator=generator))
        self.bias = nn.Parameter(torch.randn(D, generator=generator))

    def moments(self, x):
        middle = (x.flatten(1).double() - 3.5 - self.bias) @ self.way.double().T
        precision = torch.eye(LATENTS).double() + self.way.double() @ self.way.double().T
        return middle @ torch.linalg.inv(precision), -0.5 * torch.log(torch.diagonal(precision))

    def encode(self, x):
        mean, log_std = self.moments(x)
        return mean.to(self.way.dtype), log_std.to(self.way.dtype).expand(len(x), LATENTS)

    def decode(self, z):
        middle = 3.5 + self.bias + z @ self.way
        levels = torch.arange(LEVELS).view(1, LEVELS, 1)
        return (-0.5 * (levels - middle[:, None, :]) ** 2).view(len(z), LEVELS, *SHAPE)


class LogVariance(Coder):
    """Returns log σ² and means it: its own bound is right in its own terms."""

    def encode(self, x):
        mean, log_std = super().encode(x)
        return mean, 2 * log_std

    def log_weight(self, x, noise):
        mean, log_std = super().encode(x)
        z = mean + log_std.exp() * noise
        return gaussian_log_prob(z) + log_prob(self.decode(z), x) - gaussian_log_prob(noise) + log_std.sum(1)


class Deviation(Coder):
    """Returns σ, which was to be positive."""

    def encode(self, x):
        mean, log_std = super().encode(x)
        return mean, log_std.exp()


class Collapsed(Coder):
    def encode(self, x):
        mean, log_std = super().encode(x)
        return 0 * mean, 0 * log_std

    def decode(self, z):
        return super().decode(0 * z)


def weighing(make):
    """A model whose log_weight is another function of log p(x | z) and KL."""

    class Own(Coder):
        def log_weight(self, x, noise):
            mean, log_std = self.encode(x)
            return make(log_prob(self.decode(mean + log_std.exp() * noise), x), gaussian_kl(mean, log_std))

    return Own


class Broad(Coder):
    """Draws z from much more than the posterior, so that σ² and σ are far apart."""

    def encode(self, x):
        mean, log_std = super().encode(x)
        return mean, log_std + 1.0


class Softmax(Coder):
    def decode(self, z):
        return super().decode(z).softmax(1)


class Sure(Coder):
    """Says what is right at the mean with much certainty, and something else with as much around it."""

    def encode(self, x):
        mean, log_std = super().encode(x)
        return mean, torch.zeros_like(log_std)

    def decode(self, z):
        return 60 * super().decode(z)


def at_z(make, model=Coder):
    """A model whose log_weight is another function of log p(x | z), log p(z), log q(z | x) and log σ at z."""

    class Own(model):
        def log_weight(self, x, noise):
            mean, log_std = self.encode(x)
            z = mean + log_std.exp() * noise
            log_q = gaussian_log_prob(noise) - log_std.sum(1)
            return make(log_prob(self.decode(z), x), gaussian_log_prob(z), log_q, log_std.sum(1))

    return Own


@pytest.fixture(scope="module")
def drawn():
    return Coder().sample(250, generator=torch.Generator().manual_seed(0)).numpy()


def of_latent(model, images, claimed=None):
    party = LocalRespondent({"m": SimpleNamespace(model=model, claim=None, history=None)})
    frozen = latent.freeze(CHECKPOINT, SHAPE, LEVELS, LATENTS)
    asked = latent.ask_first(party, "m", frozen, images, generator=np.random.default_rng(0))
    found = latent.score(party, "m", frozen, asked, images, generator=np.random.default_rng(1))
    draws = np.random.default_rng(2)
    claimed = claimed(found) if callable(claimed) else claimed
    return diagnose(party, "m", frozen, found, images, generator=draws, asked=asked, claimed=claimed), found


MODELS = {
    "log σ²": (LogVariance, "encode seems to return log σ² where log σ is expected"),
    "σ": (Deviation, "encode seems to return σ where log σ is expected"),
    "KL left out": (weighing(lambda r, k: r), "own log_weight where the referee finds"),
    "KL added": (weighing(lambda r, k: r + k), "the KL term has the wrong sign"),
    "KL averaged": (weighing(lambda r, k: r - k / LATENTS), "the KL term was averaged over the 3 latents"),
    "likelihood averaged": (weighing(lambda r, k: r / D - k), "the log-likelihood was averaged"),
    "KL divided by D": (weighing(lambda r, k: r - k / D), "the KL term was divided by the 16 dimensions"),
    "q without σ": (at_z(lambda r, p, q, s: r + p - (q + s)), "log q(z | x) lacks −log σ of each latent"),
    "q without 2π": (
        at_z(lambda r, p, q, s: r + p - (q + LATENTS * LN_2PI / 2)),
        "log q(z | x) lacks −½ log 2π of each latent",
    ),
    "p without 2π": (
        at_z(lambda r, p, q, s: r + (p + LATENTS * LN_2PI / 2) - q),
        "log p(z) lacks −½ log 2π of each latent",
    ),
    "no p": (at_z(lambda r, p, q, s: r - q), "log p(z) was left out"),
    "no q": (at_z(lambda r, p, q, s: r + p, Broad), "log q(z | x) was left out"),
    "something else": (
        weighing(lambda r, k: 1.5 * r - 3.1 * k),
        "is it log p(z) + log p(x | z) − log q(z | x)",
    ),
    "no noise in training": (Sure, "was the decoder trained on z = mean + exp(log_std) · noise"),
    "a softmax": (Softmax, "decode returns probabilities where logits are expected"),
    "collapsed": (Collapsed, "the posterior has collapsed onto the prior"),
}


@pytest.mark.parametrize(("build", "words"), MODELS.values(), ids=MODELS)
def test_a_mistake_in_a_latent_variable_model_is_named_first(build, words, drawn):
    said, _ = of_latent(build(), drawn)
    assert words in said.words[0]


def test_of_a_latent_variable_model_without_mistakes_nothing_is_said(drawn):
    said, found = of_latent(Coder(), drawn)
    assert said.words == []
    assert said.own_bits_per_dim == pytest.approx(found.bits_per_dim, abs=0.05)


def test_what_is_charged_has_a_bound_which_is_no_mistake_of_log_weight(drawn):
    said, found = of_latent(Sure(), drawn, claimed=lambda score: 1.0001 * own_of(Sure(), drawn))
    assert said.own_bits_per_dim > sum(parts(found)) + 0.1
    (only,) = said.words
    assert "a uniform guess costs 3" in only


class Runaway(Sure):
    def encode(self, x):
        mean, log_std = super().encode(x)
        return 1e3 * mean, log_std


def test_beside_a_runaway_divergence_the_decoder_is_not_blamed(drawn):
    said, _ = of_latent(Runaway(), drawn)
    assert any("is the KL term in the bound" in words for words in said.words)
    assert not any("was the decoder trained on" in words for words in said.words)


def own_of(model, images):
    return of_latent(model, images)[0].own_bits_per_dim


def parts(score):
    return score.parts["reconstruction"], score.parts["kl"]


BOUNDS = {
    "right": (lambda r, k: r + k, "agrees with"),
    "nats": (lambda r, k: (r + k) * LN2, "in nats; divide by ln 2"),
    "a sum": (lambda r, k: (r + k) * D, "the sum over the 16 dimensions"),
    "no KL": (lambda r, k: r, "the KL term was left out"),
    "no KL, nats": (lambda r, k: r * LN2, "the KL term was left out", "and it is in nats"),
    "minus KL": (lambda r, k: r - k, "the KL term has the wrong sign"),
    "mean KL": (lambda r, k: r + k / LATENTS, "averaged over the 3 latents"),
    "mean likelihood": (lambda r, k: r / D + k, "the log-likelihood was averaged over the dimensions"),
    "KL over D": (lambda r, k: r + k / D, "the KL term was divided by the 16 dimensions"),
    "KL alone": (lambda r, k: k, "this is the KL term alone"),
    "a sum over a batch": (lambda r, k: 300 * r + k, "is it a sum where a mean is meant?"),
}


@pytest.mark.parametrize("row", BOUNDS.values(), ids=BOUNDS)
def test_the_claim_of_a_latent_variable_model_is_explained(row, drawn):
    claim, *words = row
    said, _ = of_latent(Coder(), drawn, claimed=lambda score: claim(*parts(score)))
    (only,) = said.words
    assert all(each in only for each in words), only


FORMULAS = {
    "log σ was taken for log σ² in the KL term": lambda m, s: 0.5 * (m**2 + s.exp() - 1 - s),
    "σ stands for σ² in the KL term": lambda m, s: 0.5 * (m**2 + s.exp() - 1) - s,
    "½ log σ stands for log σ in the KL term": lambda m, s: 0.5 * (m**2 + (2 * s).exp() - 1 - s),
    "log σ was left out of the KL term": lambda m, s: 0.5 * (m**2 + (2 * s).exp() - 1),
    "log σ was added in the KL term": lambda m, s: 0.5 * (m**2 + (2 * s).exp() - 1) + s,
}


@pytest.mark.parametrize(("words", "formula"), FORMULAS.items(), ids=FORMULAS)
def test_a_mistake_in_the_formula_of_the_kl_term_is_named(words, formula, drawn):
    """The bound draws with exp(log_std), and its KL term is another one."""
    mean, log_std = (a.detach().double() for a in Coder().encode(torch.from_numpy(drawn)))
    wrong = float(formula(mean, log_std).sum(1).mean() / (D * LN2))
    frozen = latent.freeze(CHECKPOINT, SHAPE, LEVELS, LATENTS)
    score = replace(of_latent(Coder(), drawn)[1], standard_error=0.0)  # as if measured on very many images
    claimed = score.parts["reconstruction"] + wrong
    (only,) = explain(
        score, frozen=frozen, asked=latent.Asked(mean.numpy(), log_std.numpy()), claimed=claimed
    )
    assert words in only


def test_mistakes_that_lead_to_the_same_claim_are_both_named():
    """Where z follows the prior on average, the KL term without log σ is nothing."""
    more = {"this": 1.1, "that": 1.102, "a third": 1.2}
    said = units(1.1, 1.3, 16, 8, more=more)
    assert said.endswith("where the referee finds 1.3: this; or: that.")
    said = units(1.1 * math.log(2), 1.3, 16, 8, more=more)
    assert said.endswith("finds 1.3: this; or: that; and it is in nats, divide by ln 2.")


def test_a_claim_that_repeats_a_wrong_log_weight_is_not_explained_again(drawn):
    model = weighing(lambda r, k: 1.5 * r - 3.1 * k)()
    alone, _ = of_latent(model, drawn)
    said, _ = of_latent(model, drawn, claimed=alone.own_bits_per_dim)
    assert said.words == alone.words
    assert len(said.words) == 1


def test_no_mistake_is_named_where_answers_could_not_be_used(drawn):
    class Broken(Coder):
        def decode(self, z):
            logits = super().decode(z)
            logits[::2, :, :, :2] = torch.nan
            return logits

    class Unsure(Coder):
        def encode(self, x):
            mean, log_std = super().encode(x)
            return mean.index_fill(0, torch.arange(0, len(x), 2), torch.nan), log_std

    for model in (Broken(), Unsure()):
        said, _ = of_latent(model, drawn, claimed=lambda score: score.parts["reconstruction"])
        (only,) = said.words
        assert "answers could not be used and were charged in full" in only


def test_too_narrow_a_posterior_is_not_taken_for_log_variance(drawn):
    """As after training with a KL term that is too small: wider would be cheaper, but is not meant."""

    class Narrow(Coder):
        def encode(self, x):
            mean, log_std = super().encode(x)
            return mean, log_std - 1.5

    class Wide(Coder):
        def encode(self, x):
            mean, log_std = super().encode(x)
            return mean, (log_std - 1.5) / 2

    said, _ = of_latent(Narrow(), drawn)
    assert not any("log σ²" in words for words in said.words)
    # Nor for a claim that happens to be what the wider one costs: log_weight says how z is drawn.
    wide = of_latent(Wide(), drawn)[0].own_bits_per_dim
    said, _ = of_latent(Narrow(), drawn, claimed=wide)
    assert not any("log σ²" in words for words in said.words)


def test_a_term_that_ran_away_is_named_and_a_claim_below_zero(drawn):
    class Added(Coder):
        def encode(self, x):
            mean, log_std = super().encode(x)
            return mean + 1e4, log_std

    said, _ = of_latent(Added(), drawn, claimed=-1e5)
    assert "z alone costs" in said.words[0]
    assert "a code length is never negative" in said.words[-1]


def as_wide_as(beta):
    """The factorised posterior that is best under log p − β KL: its precisions are 1 + (WWᵀ)_ii / β."""

    class Weighted(Coder):
        def encode(self, x):
            mean, _ = self.moments(x)
            weight = (self.way.double() @ self.way.double().T).diagonal()
            return mean.to(self.way.dtype), (-0.5 * torch.log1p(weight / beta)).to(self.way.dtype).expand(
                len(x), LATENTS
            )

    return Weighted()


def weigh(model, images):
    party = LocalRespondent({"m": SimpleNamespace(model=model, claim=None, history=None)})
    frozen = latent.freeze(CHECKPOINT, SHAPE, LEVELS, LATENTS)
    asked = latent.ask_first(party, "m", frozen, images, generator=np.random.default_rng(0))
    return (
        diagnosis_of_latents.weight(party, "m", frozen, asked, images, np.random.default_rng(3)),
        frozen,
        asked,
    )


@pytest.mark.parametrize("beta", [0.02, 0.2, 1.0, 4.0])
def test_the_weight_of_the_divergence_is_read_off_the_posterior(beta, drawn):
    (found, error), *_ = weigh(as_wide_as(beta), drawn)
    assert found == pytest.approx(beta, rel=0.25)
    assert 0 < error < 0.2 * beta


def test_where_widening_brings_z_no_nearer_to_the_prior_there_is_no_weight(drawn):
    assert math.isnan(weigh(Collapsed(), drawn)[0][0])


@pytest.mark.parametrize(
    ("beta", "words"),
    [
        ((0.2, 0.01), "weighted by β = 0.2"),
        ((4.0, 0.3), "weighted by β = 4"),
        ((0.02, 0.2), "weighted by β = 0.02"),
        ((1.0, 0.05), "figures agree with each other"),
        ((2.0, 0.1), "figures agree with each other"),  # as the importance-weighted bound leaves it
        ((30.0, 20.0), "figures agree with each other"),  # a few images decide
        ((math.nan, math.nan), "figures agree with each other"),
        (None, "figures agree with each other"),
    ],
)
def test_a_weight_that_is_not_one_is_named_where_it_costs(beta, words, drawn):
    _, frozen, asked = weigh(Coder(), drawn)
    _, found = of_latent(Coder(), drawn)
    measured = found.parts["kl"] + found.parts["reconstruction"]
    dearer = replace(found, difference=0.1, difference_standard_error=0.001)
    told = {"frozen": frozen, "asked": asked, "own": measured, "claimed": measured, "beta": beta}
    said = explain(dearer, **told)
    assert words in next(word for word in said if "agrees with the" not in word)
    assert all("agrees with the" in word for word in explain(found, **told))


class Positive(Coder):
    def encode(self, x):
        mean, log_std = super().encode(x)
        return mean.relu(), log_std


class Tanh(Coder):
    def decode(self, z):
        return torch.tanh(5 * super().decode(z) + 5)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (Positive, "mean of encode is never negative"),
        (Tanh, "logits that never leave [−1, 1]"),
    ],
)
def test_outputs_that_something_cuts_off_are_named(build, words, drawn):
    assert any(words in said for said in of_latent(build(), drawn)[0].words)
    assert not any(words in said for said in of_latent(Coder(), drawn)[0].words)


def test_scales_that_are_never_small_are_named(drawn):
    _, frozen, asked = weigh(Coder(), drawn)
    found = of_latent(Coder(), drawn)[1]
    wide = latent.Asked(asked.mean, np.abs(asked.log_std))
    assert "log_std of encode is never negative" in explain(found, frozen=frozen, asked=wide)[0]
    one = latent.Asked(asked.mean, 0.001 * asked.log_std)
    assert "does the gradient of log p(x | z) reach log_std" in explain(found, frozen=frozen, asked=one)[0]
    few = latent.Asked(wide.mean[:20], wide.log_std[:20])
    assert explain(found, frozen=frozen, asked=few) == []


def test_a_training_that_ran_away_is_told_of_and_nothing_else(drawn):
    class Away(Coder):
        def encode(self, x):
            mean, log_std = super().encode(x)
            return mean + 5e5, log_std

    (only,) = of_latent(Away(), drawn, claimed=1e12)[0].words
    assert "training has run away. Is the loss *minus* the bound" in only
    first, second = of_latent(Away(), drawn, claimed=-1e12)[0].words
    assert (first, "a code length is never negative" in second) == (only, True)
