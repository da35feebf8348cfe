"""The ten rules for flows and latent-variable models: taken out, each is noticed (`rule_mutants.py`)."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from autograder.rubric import Model, Probe, Problem, Rubric
from dulcourse.errors import InfrastructureError, UsageError
from dulcourse.referee.code import most
from dulcourse.referee.edges import share
from dulcourse.referee.exam import Exam
from dulcourse.referee.flow import SIGMA
from dulcourse.referee.respondent import Malformed
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
    honest,
)

both = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
CHECKPOINT = save({"weight": np.zeros(1)})
N = 60


def exam(family, *names: str, student: str = "ada") -> Exam:
    """An examination with models of the family frozen: glyphs fit all of them."""
    new = Exam(SECRET, student)
    for name in names:
        new.freeze(name, CHECKPOINT, (1, 8, 8), 4, **options(family))
    return new


def options(family) -> dict:
    return {"family": family.name, "latents": LATENTS if family.name == "latent" else None}


def quiet(family) -> tuple[Party, Party]:
    """A and B that say nothing."""
    first = Party(**{family.first: lambda x: family.declared(len(x))})
    return first, Party(**{family.second: lambda z: {family.back: family.returned(len(z))}})


@both
def test_rule_1_sizes_and_weights_are_frozen_before_a_draw(family):
    late = exam(family, "m")
    late.images("m", "glyphs", 3)
    with pytest.raises(UsageError, match="Freeze first"):
        late.freeze("late", CHECKPOINT, (1, 8, 8), 4, **options(family))


@both
def test_rule_1_the_number_of_latents_is_not_the_models_to_choose(family):
    """With more numbers than were frozen A could say more; for a flow they are as many as symbols."""
    wide = LATENTS + 1 if family.name == "latent" else D + 1
    answer = {"mean": np.zeros((N, wide)), "log_std": np.zeros((N, wide))}
    if family.name == "flow":
        answer = family.declared(N, z=np.zeros((N, wide)), jacobian=np.zeros((N, wide, D)))
    found = blind(family, Party(**{family.first: lambda x: answer}), honest(family), draw(N))
    assert found.failures == N
    assert f"with shape [{N}, {wide}]" in found.reason


@both
def test_rule_2_images_are_shown_once_and_to_one_model(family):
    new = exam(family, "m", "other")
    one, other = (new.images(name, "glyphs", 30).x.flatten(1) for name in ("m", "other"))
    assert (one[:, None] != other[None]).any(-1).all()
    with pytest.raises(UsageError, match="asked for twice"):
        new.images("m", "glyphs", 30)


@both
def test_rule_2_public_test_images_are_dealt_once_for_all_models(family):
    new = exam(family, "m", "other")
    one, other = new.images("m", "digits", 200), new.images("other", "digits", 160)
    assert one.x.shape == (200, 1, 8, 8)
    assert one.y.shape == (200,)
    everything = np.concatenate([one.x.flatten(1).numpy(), other.x.flatten(1).numpy()])
    assert len(np.unique(everything, axis=0)) == 360
    with pytest.raises(UsageError, match="1 test images of 'digits' were asked for and 0 are left of 360"):
        new.images("m", "digits", 1)


@both
def test_rule_2_each_image_and_each_z_is_sent_once(family, monkeypatch):
    monkeypatch.setattr("dulcourse.referee.bitsback.NUMBERS", 100)
    parties = quiet(family)
    blind(family, *parties, draw(N))
    for party, key in zip(parties, ("x", "z"), strict=True):
        assert sum(len(sent[key]) for _, sent in party.questions) == N
        assert len(party.questions) > 2


@both
def test_rule_3_where_b_says_nothing_usable_a_symbol_costs_log2_levels(family):
    """Non-finite numbers are a uniform distribution, and nothing less: here q is the prior, so z is free."""
    first = Party(**{family.first: lambda x: family.declared(len(x), **prior(family, len(x)))})
    second = Party(**{family.second: lambda z: {family.back: family.returned(len(z)) * np.nan}})
    found = blind(family, first, second, draw(N))
    assert found.bits == pytest.approx(np.full(N, D * np.log2(LEVELS)), abs=1e-6)
    assert found.failures >= N


def prior(family, n: int) -> dict[str, np.ndarray]:
    """What A says to make q the prior."""
    if family.name == "latent":
        return {}
    return {"jacobian": np.tile(np.eye(D) / SIGMA, (n, 1, 1))}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@both
def test_rule_3_a_row_of_a_that_is_not_finite_says_nothing_else(family, bad):
    """One entry NaN, the others the image: B learns nothing, and the image costs as if A had been silent."""

    def declare(x):
        key = "mean" if family.name == "latent" else "z"
        width = LATENTS if key == "mean" else D
        told = np.tile(np.arange(width, dtype=float), (len(x), 1))
        told[:, 0] = bad
        return family.declared(len(x), **{key: told})

    first, second = Party(**{family.first: declare}), quiet(family)[1]
    found = blind(family, first, second, draw(N))
    assert found.failures == N
    sent = second.questions[0][1]["z"]
    assert abs(sent.mean()) < 0.3
    assert sent.std() == pytest.approx(1.0, abs=0.1)


@both
def test_rule_3_noise_is_charged_as_drawn(family):
    """log q comes from ε, not from a z that was rounded; and whatever was declared, z is on the grid."""
    width = LATENTS if family.name == "latent" else D
    first = Party(**{family.first: lambda x: family.declared(len(x), **narrow(family, len(x)))})
    second = Party(**{family.second: lambda z: {family.back: family.returned(len(z)) * np.nan}})
    found = blind(family, first, second, draw(N))
    draws = np.random.default_rng([0, 2])
    noise = draws.standard_normal((N, width))
    z = second.questions[0][1]["z"][np.argsort(draws.permutation(N))]
    nats = (-(noise**2) / 2 + 1 + z**2 / 2).sum(axis=1)  # log q − log p
    expected = np.minimum(nats / np.log(2) + D * np.log2(LEVELS), most(D, LEVELS))
    assert found.bits == pytest.approx(expected, abs=1e-9)
    assert np.allclose(z, 0.1 + noise / np.e, atol=1e-9)


def narrow(family, n: int) -> dict[str, np.ndarray]:
    """q = N(0.1, e⁻²) for every number of z."""
    if family.name == "latent":
        return {"log_std": np.full((n, LATENTS), -1.0), "mean": np.full((n, LATENTS), 0.1)}
    return {"jacobian": np.tile(np.eye(D) / np.e / SIGMA, (n, 1, 1)), "z": np.full((n, D), 0.1)}


def best(family) -> np.ndarray:
    likely = TABLE.argmax(axis=1).reshape(1, *SHAPE)
    return 40.0 * np.moveaxis(np.eye(LEVELS)[likely], -1, 1) if family.name == "latent" else likely + 0.5


@both
def test_rule_4_failing_costs_the_cap_and_no_image_costs_more(family):
    def refuse(**arrays):
        raise Malformed("too hard")

    first = Party(**{family.first: lambda x: family.declared(len(x), **prior(family, len(x)))})
    refused = blind(family, first, Party(**{family.second: refuse}), draw(N))
    assert refused.bits == pytest.approx(np.full(N, most(D, LEVELS)))
    absurd = Party(**{family.second: lambda z: {family.back: -1e9 * best_of(family, len(z))}})
    assert blind(family, first, absurd, draw(N)).bits.max() <= most(D, LEVELS)


def best_of(family, n: int) -> np.ndarray:
    return np.tile(best(family), (n, *[1] * (best(family).ndim - 1)))


@both
def test_rule_4_the_score_is_the_plain_mean_of_all_images(family):
    """Giving up on some images takes none of them out of the mean."""

    def declare(x):
        key = "mean" if family.name == "latent" else "z"
        told = family.declared(len(x), **prior(family, len(x)))
        told[key][np.floor(x).reshape(len(x), -1)[:, 0] == 0] = np.nan
        return told

    found = blind(family, Party(**{family.first: declare}), quiet(family)[1], draw(N))
    assert (found.images, len(found.bits)) == (N, N)
    assert found.bits_per_dim == pytest.approx(found.bits.mean() / D, abs=1e-12)
    assert 0 < found.failures < N


FAILURES = [InfrastructureError("disk"), OSError(5, "I/O"), TimeoutError(), MemoryError()]


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("error", FAILURES)
@both
def test_rule_5_whatever_fails_after_the_question_is_charged(family, error, who):
    def fail(**arrays):
        raise error

    parties = list(quiet(family))
    parties[who] = Party(**{(family.first, family.second)[who]: fail})
    found = blind(family, *parties, draw(N))
    assert found.failures == N
    assert found.bits == pytest.approx(np.full(N, most(D, LEVELS)))
    assert len(parties[who].questions) == 1


@both
def test_rule_5_a_restart_draws_the_same(family):
    """u, the order and ε are functions of the secret and what they are for."""

    def z_of(student):
        new, (first, second) = exam(family, "m", student=student), quiet(family)
        asked = family.protocol.ask_first(
            first, "m", family.frozen, draw(N), generator=new.generator("ask", "m")
        )
        family.protocol.score(
            second, "m", family.frozen, asked, draw(N), generator=new.generator("score", "m")
        )
        return first.questions[0][1]["x"], second.questions[0][1]["z"]

    (x, z), (x_again, z_again), (_, z_other) = z_of("ada"), z_of("ada"), z_of("bob")
    assert np.array_equal(x, x_again)
    assert np.array_equal(z, z_again)
    assert not np.array_equal(z, z_other)


@both
def test_rule_6_spoiling_images_never_earns_points(family):
    """The same answers, but for NaN on some images on purpose: a larger spread, and no more points."""
    edges = {"full": 0.02, "none": 2.0}
    clean = blind(family, honest(family), honest(family), draw(N))

    def spoil(**arrays):
        answer = honest(family).call(f"m.{family.second}", arrays)
        answer[family.back][::3] = np.nan
        return answer

    spoiled = blind(family, honest(family), Party(**{family.second: spoil}), draw(N))
    assert spoiled.difference_standard_error > clean.difference_standard_error
    assert share(spoiled, **edges) < share(clean, **edges)


@both
def test_rule_7_every_draw_comes_from_the_generator_that_is_given(family):
    def sent(seed):
        parties = quiet(family)
        blind(family, *parties, draw(N), seed=seed)
        return [party.questions[0][1][key] for party, key in zip(parties, ("x", "z"), strict=True)]

    for one, same, other in zip(sent(1), sent(1), sent(2), strict=True):
        assert np.array_equal(one, same)
        assert not np.array_equal(one, other)  # the order is another
    if family.name == "flow":
        assert not np.array_equal(np.sort(sent(1)[0], axis=0), np.sort(sent(2)[0], axis=0))  # and so is u
    assert not np.array_equal(np.sort(sent(1)[1], axis=0), np.sort(sent(2)[1], axis=0))  # and so is ε


@both
def test_rule_7_noise_in_a_flows_input_fills_the_unit_interval(family):
    """One u an image and a symbol, never the same again."""
    first, second = quiet(family)
    blind(family, first, second, np.zeros((N, *SHAPE), np.int64))
    u = first.questions[0][1]["x"]
    if family.name == "latent":
        assert (u == 0).all()
        return
    assert len(np.unique(u)) == u.size
    assert 0 <= u.min() < 0.05 < 0.95 < u.max() < 1
    assert (u * 2.0**32 == np.round(u * 2.0**32)).all()


@both
def test_rule_8_b_starts_when_a_is_gone_and_gets_z_alone(family):
    alive, parties = [], dict(zip("AB", quiet(family), strict=True))

    @contextmanager
    def party(name):
        alive.append(name)
        yield parties[name]
        alive.remove(name)

    new, images = exam(family, "m"), draw(N)
    with new.party(party("A")) as a:
        asked = family.protocol.ask_first(a, "m", family.frozen, images, generator=new.generator("ask", "m"))
        with pytest.raises(UsageError, match="must be gone"), new.party(party("B")):
            pass
        assert alive == ["A"]
    with new.party(party("B")) as b:
        assert alive == ["B"]
        family.protocol.score(b, "m", family.frozen, asked, images, generator=new.generator("score", "m"))
    assert {name for name, _ in a.questions} == {f"m.{family.first}"}
    assert {name for name, _ in b.questions} == {f"m.{family.second}"}
    assert all(set(arrays) == {"z"} for _, arrays in b.questions)


@both
def test_rule_9_where_z_stands_tells_nothing_of_its_image(family):
    """Images sorted by content, and a B that bets on that order; A tells nothing but u."""
    images = np.zeros((N, *SHAPE), np.int64)
    images[N // 2 :] = 3

    def tell_u(x):
        if family.name == "latent":
            return family.declared(len(x))
        z = torch.special.ndtri(torch.from_numpy(x % 1.0)).numpy().reshape(len(x), D)
        slope = np.sqrt(2 * np.pi) * np.exp(z**2 / 2)
        return family.declared(len(x), z=z, jacobian=slope[:, :, None] * np.eye(D))

    def sorted_away(z):
        if family.name == "flow":
            return {"x": images + torch.special.ndtr(torch.from_numpy(z)).numpy().reshape(-1, *SHAPE)}
        return {"logits": 9.0 * np.moveaxis(np.eye(LEVELS)[images], -1, 1)}

    first, second = Party(**{family.first: tell_u}), Party(**{family.second: sorted_away})
    assert blind(family, first, second, images).bits_per_dim > 1


@both
def test_rule_10_public_data_carries_a_small_share(family):
    def rubric(points: float) -> Rubric:
        model = Model(
            name="m",
            family=family.name,
            data="digits",
            shape=(1, 8, 8),
            levels=17,
            latents=options(family)["latents"],
            reference="m",
            points=points,
        )
        probe = Probe(function="f", draw=lambda g: {}, reference=lambda: 0, points=80)
        problem = Problem(name="p", title="P", items=(model, probe))
        return Rubric(name="hw", title="HW", problems=(problem,), tiers={}, folder=Path())

    assert rubric(20).points == 100
    with pytest.raises(ValueError, match="20% at most"):
        rubric(21)
