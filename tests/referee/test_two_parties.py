"""Flows and latent-variable models: exact for honest ones, and no cheat beats the entropy of the source."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dulcourse import randomness
from dulcourse.errors import UsageError
from dulcourse.flows.realnvp import RealNVP
from dulcourse.latent.base import LatentModel
from dulcourse.referee import flow, latent
from dulcourse.referee.code import most
from dulcourse.referee.diagnosis import diagnose, own_bits_per_dim
from dulcourse.referee.flow import SIGMA
from tests.referee.pairs import (
    FAMILIES,
    LATENTS,
    LEVELS,
    SECRET,
    SHAPE,
    TABLE,
    D,
    Party,
    blind,
    draw,
    entropy,
    gains_nothing,
    honest,
)
from tests.referee.parties import local

both = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
N = 400


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return draw(N)


# What honest models cost


@both
def test_who_knows_the_law_pays_its_entropy(family, images):
    found = blind(family, honest(family), honest(family), images)
    own = float(-np.log2(TABLE[np.arange(D), images.reshape(N, -1)]).mean())
    assert found.reference_bits_per_dim == pytest.approx(own, abs=1e-5)
    # A density that jumps between two levels costs more where y is within σ of the jump.
    assert found.difference == pytest.approx(0.0, abs=0.01)
    assert abs(found.bits_per_dim - entropy()) < 4 * found.standard_error
    assert (found.failures, found.reason, found.positions, found.images) == (0, "", "all", N)


class Coder(LatentModel):
    """Any encoder and decoder, with marginals that make its own samples cheap."""

    def __init__(self, dtype=torch.float32):
        super().__init__((1, 4, 4), 5, 3)
        generator = torch.Generator().manual_seed(3)
        self.to_z = nn.Parameter(0.05 * torch.randn(16, 6, generator=generator))
        self.to_x = nn.Parameter(0.2 * torch.randn(3, 80, generator=generator))
        self.bias = nn.Parameter(4.0 * torch.randn(80, generator=generator))

    def encode(self, x):
        return (x.flatten(1).to(self.to_z.dtype) @ self.to_z).chunk(2, dim=1)

    def decode(self, z):
        return (z @ self.to_x + self.bias).view(-1, 5, 1, 4, 4)


class SingleCoder(Coder):
    """Code as students write it: `x.float()` cannot meet weights in double precision."""

    def encode(self, x):
        return (x.flatten(1).float() @ self.to_z).chunk(2, dim=1)


@pytest.mark.parametrize(("model", "exact"), [(Coder(), 1e-6), (SingleCoder(), 1e-4)])
def test_bits_back_cost_what_the_models_own_log_weight_says_at_the_same_noise(model, exact):
    images = model.sample(64, generator=torch.Generator().manual_seed(0)).numpy()
    frozen = latent.freeze(b"\x08\0\0\0\0\0\0\0{}      ", (1, 4, 4), 5, 3)
    party = local(model, "m")
    asked = latent.ask_first(party, "m", frozen, images, generator=np.random.default_rng(0))
    found = latent.score(
        party, "m", frozen, asked, images, generator=np.random.default_rng(1), reference=model
    )
    noise = np.random.default_rng(1).standard_normal((64, 3))
    assert (found.bits < most(16, 5)).all()  # none was capped
    assert found.bits_per_dim == pytest.approx(own_bits_per_dim(party, "m", images, noise=noise), abs=exact)
    assert found.difference == pytest.approx(0.0, abs=exact)
    assert found.parts["kl"] + found.parts["reconstruction"] == pytest.approx(found.bits_per_dim, abs=1e-9)


def added_up(parts) -> float:
    """What the parts of a score come to."""
    return sum({"log_det": -1.0, "round_trip": 0.0}.get(key, 1.0) * bits for key, bits in parts.items())


@both
@given(st.sampled_from([-3.0, 0.0, 5.0, 1e3, 1e5, 1e9, math.nan]), st.integers(0, N))
def test_the_parts_add_up_to_the_score_whether_images_are_capped_or_not(family, wrong, many):
    """`many` images are answered worse by `wrong`: z far out or unusable, and what comes back of it."""
    images, model = draw(N), honest(family)
    key = "z" if family.name == "flow" else "mean"

    def declares(**question):
        answer = {name: a.astype(np.float64) for name, a in model.call(f"m.{family.first}", question).items()}
        answer[key][:many] += wrong
        return answer

    def returns(**question):
        answer = model.call(f"m.{family.second}", question)[family.back].astype(np.float64)
        answer[:many] += wrong * np.arange(answer[0].size).reshape(answer[0].shape)
        return {family.back: answer}

    found = blind(family, Party(**{family.first: declares}), Party(**{family.second: returns}), images)
    largest = max(map(abs, found.parts.values()))
    assert added_up(found.parts) == pytest.approx(found.bits_per_dim, abs=max(1e-9, 1e-12 * largest))
    assert ("cap" in found.parts) == (found.bits == most(D, LEVELS)).any()
    assert found.parts.get("cap", -1.0) < 0


def randomised(model: nn.Module, scale: float) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.data += scale * torch.randn(parameter.shape, generator=generator)
    return model


def test_local_bits_back_cost_the_exact_density_of_a_real_flow():
    """64 dimensions, convolutions, a logit, two scales: 0.002 bits/dim around −log₂ p(x + u) in float64."""
    shape = (1, 8, 8)
    model = randomised(RealNVP(shape, 4, width=8, blocks=1), 0.03).eval()
    images = model.sample(24, generator=torch.Generator().manual_seed(0)).floor().clamp(0, 3).long().numpy()
    frozen = flow.freeze(b"\x08\0\0\0\0\0\0\0{}      ", shape, 256)  # a cap that no image reaches
    party = local(model, "m")
    asked = flow.ask_first(party, "m", frozen, images, generator=np.random.default_rng(0))
    found = flow.score(party, "m", frozen, asked, images, generator=np.random.default_rng(1), reference=model)
    assert (found.bits < most(64, 256)).all()
    assert found.difference == pytest.approx(0.0, abs=0.002)
    assert found.bits_per_dim == pytest.approx(own_bits_per_dim(party, "m", images + asked.u), abs=0.002)
    assert found.parts["prior"] - found.parts["log_det"] == pytest.approx(found.bits_per_dim, abs=1e-9)
    assert found.parts["round_trip"] == pytest.approx(1.0, abs=0.05)


@both
def test_a_reference_of_other_sizes_is_asked_with_noise_of_its_own(family, images):
    """Only latent-variable models can differ: any number of latents may be compared on the same images."""
    if family.name == "flow":
        given = np.full(N, 1.0)
        asked = flow.ask_first(honest(family), "m", family.frozen, images, generator=np.random.default_rng(0))
        found = flow.score(
            honest(family),
            "m",
            family.frozen,
            asked,
            images,
            generator=np.random.default_rng(1),
            reference_bits=given,
        )
        assert (found.reference_bits_per_dim, found.reference_standard_error) == (1.0, 0.0)
        return
    other = family.reference()
    other.latents = 2
    other.encode = lambda x: (torch.zeros(len(x), 2), torch.zeros(len(x), 2))
    found = blind(family, honest(family), honest(family), images, reference=other)
    assert found.difference == pytest.approx(0.0, abs=1e-9)


@both
def test_a_reference_is_capped_like_everybody(family, images):
    """Else whoever is capped would be better than a reference that is worse than a uniform guess."""
    model = family.reference()
    if family.name == "latent":
        model.bias = -5 * model.bias
    else:
        model.log_prob = lambda x: x.new_full((len(x),), -1e3)
    found = blind(family, honest(family), Party(), images, reference=model)
    assert found.bits_per_dim == pytest.approx(most(D, LEVELS) / D)
    assert found.difference == pytest.approx(0.0)


# What cheats cost: each pair is (A's answer to images, B's answer to z)


def saying(family, declare, give_back):
    """A and B as two parties that share nothing."""
    first = Party(**{family.first: lambda x: family.declared(len(x), **declare(x))})
    return first, Party(**{family.second: lambda z: {family.back: give_back(z)}})


def certain(x: np.ndarray) -> np.ndarray:
    """Logits that bet everything on x."""
    return 40.0 * np.moveaxis(np.eye(LEVELS)[np.clip(x, 0, LEVELS - 1)], -1, 1)


def told(family, x: np.ndarray) -> np.ndarray:
    """B's answer once it believes that it knows the image (for a flow, x + ½)."""
    return certain(x.astype(int)) if family.name == "latent" else x + 0.5


def hidden(x: np.ndarray, scale: float) -> np.ndarray:
    """The image in numbers of this size, one a latent (or dimension)."""
    return np.floor(x).reshape(len(x), -1) * scale


def found_again(z: np.ndarray, scale: float) -> np.ndarray:
    return np.clip(np.round(z / scale), 0, LEVELS - 1).reshape(-1, *SHAPE)


@pytest.mark.parametrize("log_scale", [-1e300, -1e3, -15.0, 15.0, 1e3, 1e300])
@both
def test_a_spike_or_a_blur_of_a_posterior_pays_for_itself(family, log_scale, images):
    """z tells B the image exactly, or log q is as small as can be."""
    key = {"latent": "log_std", "flow": "jacobian"}[family.name]
    with np.errstate(over="ignore"):
        eye = np.diag(np.full(D, np.exp(np.float64(log_scale)) / SIGMA))

    def declare(x):
        scale = np.full((len(x), LATENTS), log_scale) if key == "log_std" else np.tile(eye, (len(x), 1, 1))
        return {key: scale, {"latent": "mean", "flow": "z"}[family.name]: hidden(x, 1.0)}

    parties = saying(family, declare, lambda z: told(family, found_again(z, 1.0)))
    found = blind(family, *parties, images)
    assert np.isfinite(found.bits).all()
    assert found.difference > 0.1


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**-29, 2.0**-33, 2.0**-45, 2.0**-52, 1e-300])
@both
def test_low_bits_of_a_mean_tell_nothing(family, scale, images):
    """A hides the image below the noise, whose own low bits B knows: everything is a multiple of 2⁻³⁰."""

    def declare(x):
        return {{"latent": "mean", "flow": "z"}[family.name]: hidden(x, scale)} | (
            {} if family.name == "latent" else {"jacobian": np.tile(np.eye(D) / SIGMA, (len(x), 1, 1))}
        )

    def give_back(z):
        return told(family, found_again(np.mod(z, LEVELS * scale), scale))

    found = blind(family, *saying(family, declare, give_back), images)
    assert found.difference > 0.1


@both
def test_b_gets_multiples_of_the_grid_and_nothing_finer(family, images):
    first, second = saying(family, lambda x: {}, lambda z: family.returned(len(z)))
    blind(family, first, second, images)
    ((_, sent),) = second.questions
    assert set(sent) == {"z"}
    assert (sent["z"] * 2.0**30 == np.round(sent["z"] * 2.0**30)).all()


@both
def test_noise_that_can_be_guessed_would_give_all_away_and_noise_from_a_secret_does_not(family, images):
    """The test's teeth: with ε known, z − ε is a mean that tells all of the image, and costs nothing."""
    scale, width = 2.0**-8, LATENTS if family.name == "latent" else D

    def declare(x):
        return {{"latent": "mean", "flow": "z"}[family.name]: x.reshape(len(x), -1) * scale} | (
            {} if family.name == "latent" else {"jacobian": np.tile(np.eye(D) / SIGMA, (len(x), 1, 1))}
        )

    def give_back(z):
        guess = np.random.default_rng(4)
        noise = guess.standard_normal((len(z), width))[guess.permutation(len(z))]
        y = ((z - noise) / scale).reshape(-1, *SHAPE)
        return certain(y.round().astype(int)) if family.name == "latent" else y

    guessed = blind(family, *saying(family, declare, give_back), images, generator=np.random.default_rng(4))
    secret = randomness.generator(SECRET, "score", "m")
    safe = blind(family, *saying(family, declare, give_back), images, generator=secret)
    assert guessed.difference < -0.9 * entropy()
    assert safe.difference > 0.1


class Remembering:
    """One process that keeps what it is shown, and recognises an image by the number that its z tells."""

    def __init__(self, family):
        self.family, self.seen = family, np.zeros((0, *SHAPE))

    def call(self, name, arrays):
        if name.endswith(self.family.first):
            self.seen = arrays["x"]
            number = np.arange(len(self.seen)) / 2
            z = np.zeros((len(self.seen), D))
            z[:, 0] = number - number.mean()
            if self.family.name == "latent":
                return self.family.declared(len(z), mean=z, log_std=np.tile([-2.7] + [0.0] * 5, (len(z), 1)))
            wide = np.tile(np.eye(D) / SIGMA, (len(z), 1, 1))
            wide[:, 0, 0] = math.exp(-2.7) / SIGMA
            return self.family.declared(len(z), z=z, jacobian=wide)
        z, n = arrays["z"], len(self.seen)
        if n == 0:
            return {self.family.back: self.family.returned(len(z))}
        number = np.clip(np.round(2 * z[:, 0] + (n - 1) / 2), 0, n - 1).astype(int)
        known = self.seen[number]
        return {self.family.back: certain(known.astype(int)) if self.family.name == "latent" else known}


@both
def test_a_party_that_remembers_gains_only_when_it_lives_on(family):
    """Closed by phases: B never lived while images were shown. The first pair is the test's teeth."""
    images = draw(4, seed=3)
    party = Remembering(family)
    alive = blind(family, party, party, images)
    apart = blind(family, Remembering(family), Remembering(family), images)
    assert alive.difference < -0.3
    assert gains_nothing(apart)
    assert apart.difference > 0


@both
def test_hard_images_cannot_be_dropped_by_answering_nan(family, images):
    """Neither by A, who has seen them, nor by B, who has not."""
    likely = TABLE.argmax(axis=1)

    def declare(x):
        hard = (np.floor(x).reshape(len(x), -1) != likely).sum(axis=1) > 2
        key, width = {"latent": ("mean", LATENTS), "flow": ("z", D)}[family.name]
        return {key: np.where(hard[:, None], np.nan, np.zeros((len(x), width)))}

    best = likely.reshape(1, *SHAPE)

    def give_back(z):
        answer = np.repeat(told(family, best), len(z), axis=0).astype(float)
        answer[::3] = np.nan
        return answer

    found = blind(family, *saying(family, declare, give_back), images)
    assert found.images == N
    assert found.failures > N // 3
    assert gains_nothing(found)


@both
def test_images_that_come_sorted_tell_b_nothing(family):
    images = draw(N, seed=2)
    images = images[np.lexsort(images.reshape(N, -1).T)]
    first, second = saying(family, lambda x: {}, lambda z: told(family, images[: len(z)]))
    assert gains_nothing(blind(family, first, second, images))


# Flows alone


def flow_party(forward, inverse):
    def first(x):
        z, jacobian, log_det = forward(x.reshape(len(x), -1))
        return {"z": z, "jacobian": jacobian, "log_det": log_det}

    return Party(forward=first), Party(inverse=lambda z: {"x": inverse(z).reshape(-1, *SHAPE)})


def scaled(by: float, told_by: float):
    """z = by · (y − 2), with the Jacobian of told_by."""
    jacobian = told_by * np.eye(D)

    def forward(y):
        return by * (y - 2), np.tile(jacobian, (len(y), 1, 1)), np.full(len(y), D * math.log(told_by))

    return flow_party(forward, lambda z: z / by + 2)


def test_the_claimed_log_det_buys_nothing(images):
    family = FAMILIES["flow"]

    class Boasting:
        def call(self, name, arrays):
            answer = honest(family).call(name, arrays)
            if "log_det" in answer:
                answer["log_det"] += 1e6
            return answer

    boast, plain = (blind(family, first, honest(family), images) for first in (Boasting(), honest(family)))
    assert boast.bits_per_dim == plain.bits_per_dim


@pytest.mark.parametrize("factor", [1e-6, 0.01, 0.5, 0.9, 1.1, 2.0, 100.0, 1e6])
def test_a_false_jacobian_costs_more_than_the_true_one(factor, images):
    family = FAMILIES["flow"]
    true = blind(family, *scaled(1.0, 1.0), images)
    false = blind(family, *scaled(1.0, factor), images)
    assert false.bits_per_dim > true.bits_per_dim
    assert gains_nothing(false)


@pytest.mark.parametrize("by", [1e-8, 1e-3, 1.0, 1e3, 1e8])
def test_no_scale_beats_the_entropy(by, images):
    assert gains_nothing(blind(FAMILIES["flow"], *scaled(by, by), images))


def test_a_map_that_folds_cannot_be_undone(images):
    """z = Φ⁻¹ of a fold would make y twice as likely as it is; B cannot know the side."""

    def forward(y):
        sign = np.sign(y - 2)
        return np.abs(y - 2), sign[:, :, None] * np.eye(D), np.zeros(len(y))

    assert gains_nothing(blind(FAMILIES["flow"], *flow_party(forward, lambda z: np.abs(z) + 2), images))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, -1e300, 1e30])
@pytest.mark.parametrize("where", ["z", "jacobian", "log_det", "x"])
def test_numbers_of_any_size_cost_at_most_the_cap(where, value, images):
    family = FAMILIES["flow"]
    first = Party(forward=lambda x: family.declared(len(x), **spoiled(family, len(x), where, value)))
    second = Party(inverse=lambda z: {"x": np.full((len(z), *SHAPE), value if where == "x" else 2.0)})
    found = blind(family, first, second, images)
    assert np.isfinite(found.bits).all()
    assert found.bits.max() <= most(D, LEVELS)
    assert found.difference > 0.1


def spoiled(family, n, where, value):
    answer = family.declared(n)
    if where not in answer:
        return {}
    answer[where].reshape(n, -1)[:, 0] = value
    return {where: answer[where]}


def test_a_jacobian_without_rank_is_a_jacobian_all_the_same(images):
    ones = np.ones((D, D))
    parties = flow_party(lambda y: (y, np.tile(ones, (len(y), 1, 1)), np.zeros(len(y))), lambda z: z)
    found = blind(FAMILIES["flow"], *parties, images)
    assert np.isfinite(found.bits).all()
    assert gains_nothing(found)


def test_another_prior_than_the_standard_normal_is_not_believed(images):
    """A flow to a logistic prior: exact under its own prior, and worse under N(0, I)."""
    family = FAMILIES["flow"]
    model = family.reference()
    true_forward, true_inverse = model.transform.forward, model.transform.inverse

    def wide(x):
        z, log_det = true_forward(x)
        return 2 * z, log_det + D * math.log(2)

    model.transform.forward, model.transform.inverse = wide, lambda z: true_inverse(z / 2)
    found = blind(family, honest(family, model), honest(family, model), images)
    assert found.difference > 0.1


# Latent-variable models alone


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, -1e300])
@pytest.mark.parametrize("where", ["mean", "log_std", "logits"])
def test_latents_of_any_size_cost_at_most_the_cap(where, value, images):
    family = FAMILIES["latent"]

    def give_back(z):
        logits = np.tile(np.log(TABLE).T.reshape(LEVELS, *SHAPE), (len(z), 1, 1, 1, 1))
        if where == "logits":
            logits[:, 0] = value
        return logits

    first, second = saying(family, lambda x: spoiled(family, len(x), where, value), give_back)
    found = blind(family, first, second, images)
    assert np.isfinite(found.bits).all()
    assert found.bits.max() <= most(D, LEVELS)
    assert gains_nothing(found)


def test_a_row_that_is_not_finite_is_the_prior_before_any_noise_is_drawn():
    mean, log_std = np.full((3, 2), 1e9), np.full((3, 2), -99.0)
    mean[1, 0], log_std[2, 1] = np.nan, -np.inf
    asked = latent._made_safe(mean, log_std)
    assert asked.mean.tolist() == [[1e6, 1e6], [0, 0], [0, 0]]
    assert asked.log_std.tolist() == [[-15, -15], [0, 0], [0, 0]]
    assert asked.failures == 2


# What both refuse


@pytest.mark.parametrize("broken", ["first", "second"])
@both
def test_an_answer_of_another_shape_costs_every_image_its_cap(family, broken, images):
    def wrong(**arrays):
        return {"nothing": np.zeros(3)}

    good = honest(family)
    bad = Party(**{family.first: wrong, family.second: wrong})
    found = blind(family, *((bad, good) if broken == "first" else (good, bad)), images)
    assert found.bits == pytest.approx(np.full(N, most(D, LEVELS)))
    assert found.failures == N
    assert "answered with ['nothing']" in found.reason
    if broken == "first":
        assert found.parts == {}


@both
def test_after_a_failure_of_the_first_party_the_second_is_asked_nothing(family, images):
    second = Party(**{family.second: lambda z: pytest.fail("asked")})
    blind(family, Party(), second, images)
    assert second.questions == []


@both
def test_many_images_are_sent_in_calls_of_bounded_size_each_of_them_once(family, images, monkeypatch):
    whole = blind(family, honest(family), honest(family), images)
    monkeypatch.setattr("dulcourse.referee.bitsback.NUMBERS", 700)
    parties = [Party(**vars_of(family)) for _ in range(2)]
    found = blind(family, *parties, images)
    assert found.bits == pytest.approx(whole.bits, abs=1e-9)
    for party, key in zip(parties, ("x", "z"), strict=True):
        sent = [question[key] for _, question in party.questions]
        assert len(sent) > 5
        assert sum(map(len, sent)) == N
    assert len(np.unique(np.concatenate(sent), axis=0)) == N


def vars_of(family):
    model = honest(family)
    return {q: (lambda q=q, **arrays: model.call(f"m.{q}", arrays)) for q in (family.first, family.second)}


@both
def test_arguments_that_cannot_be_right_are_refused_in_words(family):
    for wrong in (draw(1), draw(4) + LEVELS, draw(4).reshape(4, 1, 3, 2)):
        with pytest.raises(UsageError):
            blind(family, honest(family), honest(family), wrong)
    with pytest.raises(UsageError, match="latents is None"):
        latent.freeze(b"", SHAPE, LEVELS, None)


numbers = st.floats(width=64) | st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324])


@given(st.data())
@both
def test_whatever_is_declared_and_answered_the_charge_is_a_number(family, data):
    """Finite, at most the cap; the diagnosis ends with words of bounded length; no warning is left."""

    def answers(*shape):
        few = data.draw(st.lists(numbers, min_size=1, max_size=5))
        pattern = np.random.default_rng(data.draw(st.integers(0, 99))).integers(len(few), size=shape)
        return np.array(few)[pattern]

    n, frozen = 3, family.frozen
    declared = {key: answers(*a.shape) for key, a in family.declared(n).items()}
    first = Party(**{family.first: lambda x: declared})
    returned, told = answers(*family.returned(n).shape), answers(n)
    second = Party(
        **{family.second: lambda z: {family.back: returned}},
        log_prob=lambda **question: {"log_prob": told},
    )
    rng, images = np.random.default_rng(0), draw(n)
    asked = family.protocol.ask_first(first, "m", frozen, images, generator=rng)
    found = family.protocol.score(second, "m", frozen, asked, images, generator=rng)
    assert np.isfinite(found.bits).all()
    assert found.bits.max() <= most(D, LEVELS)
    said = diagnose(second, "m", frozen, found, images, generator=rng, asked=asked, claimed=float(told[0]))
    assert all(len(words) < 500 for words in said.words)
    assert all(math.isfinite(value) for value in found.parts.values())
    largest = max(map(abs, found.parts.values()), default=0.0)
    total = found.bits_per_dim if found.parts else 0.0
    assert added_up(found.parts) == pytest.approx(total, abs=max(1e-9, 1e-12 * largest))
