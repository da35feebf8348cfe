"""The ten rules: each of their tests fails when its rule is taken out, which `rule_mutants.py` shows."""

import math
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from autograder.rubric import Model, Probe, Problem, Rubric
from dulcourse.errors import InfrastructureError, UsageError
from dulcourse.randomness import KEY_BYTES
from dulcourse.referee import secret
from dulcourse.referee.autoregressive import freeze, score
from dulcourse.referee.code import charges, most
from dulcourse.referee.edges import share
from dulcourse.referee.exam import Exam
from dulcourse.referee.respondent import Malformed
from dulcourse.referee.score import Score
from tests.referee.parties import Answering, Remembering, noise, raster

SHAPE = (1, 2, 3)
SECRET = bytes(range(16))
CHECKPOINT = save({"order": np.arange(64)})


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def uniform(levels: int = 2) -> Answering:
    return Answering(lambda x, position: np.zeros((len(x), levels)))


def frozen_exam(student: str = "ada") -> Exam:
    exam = Exam(SECRET, student)
    exam.freeze("made", CHECKPOINT, (1, 8, 8), 4)
    return exam


def of_difference(difference: np.ndarray) -> Score:
    """A score whose images differ from the reference by so much."""
    n = len(difference)
    error = difference.std(ddof=1) / math.sqrt(n)
    return Score(1.0, error, 1.0, 0.0, float(difference.mean()), error, n, 0, "one", np.ones(n))


def test_rule_1_an_order_declared_after_a_draw_is_refused():
    exam = frozen_exam()
    exam.generator("score", "made")
    with pytest.raises(UsageError, match="Freeze first"):
        exam.freeze("late", CHECKPOINT, (1, 8, 8), 4)


def test_rule_1_what_is_frozen_cannot_be_changed():
    frozen = freeze(CHECKPOINT, (1, 8, 8), 4)
    for declared in (frozen.order, frozen.group):
        with pytest.raises(ValueError, match="read-only"):
            declared[0] = 7


def test_rule_2_an_image_is_shown_once():
    exam = frozen_exam()
    exam.images("made", "glyphs", 5)
    with pytest.raises(UsageError, match="asked for twice"):
        exam.images("made", "glyphs", 5)


def test_what_rule_2_is_for():
    """Who is asked about the same images again remembers them."""
    images, party = noise((1, 4, 4), 4, n=5), Remembering(4)
    settings = {"decoys": noise((1, 4, 4), 4)[5:], "positions": "all"}
    first, second = (
        score(party, "m", raster((1, 4, 4), 4), images, generator=rng(), **settings).bits_per_dim
        for _ in range(2)
    )
    assert second < first / 2


def test_rule_2_two_models_are_asked_about_different_images():
    exam = Exam(SECRET, "ada")
    for name in ("made", "other"):
        exam.freeze(name, CHECKPOINT, (1, 8, 8), 4)
    one, other = (exam.images(name, "glyphs", 30).x.flatten(1) for name in ("made", "other"))
    assert (one[:, None] != other[None]).any(-1).all()


def test_rule_2_two_submissions_are_asked_about_different_images():
    """Sandboxes that run side by side and share images could tell each other what comes next."""
    one, other = (
        frozen_exam(student).images("made", "glyphs", 30).x.flatten(1) for student in ("ada", "bob")
    )
    assert (one[:, None] != other[None]).any(-1).all()


def test_rule_3_a_row_is_judged_before_its_symbol_is_known():
    """All but one entry NaN: were the symbol looked at first, a bet that is lost would cost log2 L only."""
    row = np.full((4, 4), np.nan)
    row[:, 2] = 0.0
    lengths = charges(row, np.arange(4), 4)
    assert (2.0**-lengths).sum() <= 1 + 1e-9


def test_rule_3_wrong_certainty_is_charged_without_a_clip():
    lengths = charges(np.tile([0.0, -1e4, -1e4, -1e4], (4, 1)), np.arange(4), 4)
    assert lengths[1:] == pytest.approx(np.full(3, 22.0))
    assert (2.0**-lengths).sum() <= 1 + 1e-9


def test_rule_4_failing_costs_the_cap_and_no_image_costs_more():
    """Who refuses when it gets hard pays for the whole image, and who is wrong throughout pays as much."""

    def refuse(x, position):
        if position[0] >= 2:
            raise Malformed("too hard")
        return 50.0 * np.eye(2)[np.zeros(len(x), int)]

    images = np.zeros((8, *SHAPE), np.int64)
    settings = {"decoys": images, "generator": rng(), "positions": "all"}
    refused = score(Answering(refuse), "m", raster(SHAPE, 2), images, **settings)
    assert refused.bits == pytest.approx(np.full(8, most(6, 2)))

    wrong = Answering(lambda x, position: 50.0 * np.eye(2)[np.ones(len(x), int)])
    spoiled = score(wrong, "m", raster(SHAPE, 2), images, **settings)
    assert spoiled.bits == pytest.approx(np.full(8, most(6, 2)))


def test_rule_4_the_score_is_the_plain_mean_of_all_images():
    """Answering the hard images with NaN takes none of them out of the mean."""

    def drop_hard(x, position):
        log_p = np.tile(np.log([0.999, 0.001]), (len(x), 1))
        log_p[x.reshape(len(x), -1)[:, 0] == 1] = np.nan
        return log_p

    images = np.zeros((10, *SHAPE), np.int64)
    images[:3] = 1
    result = score(
        Answering(drop_hard),
        "m",
        raster(SHAPE, 2),
        images,
        decoys=np.zeros_like(images),
        generator=rng(),
        positions="all",
    )
    assert result.images == 10
    assert result.bits_per_dim == pytest.approx(result.bits.mean() / 6, abs=1e-12)
    assert result.bits[:3].min() > 5 > result.bits[3:].max()


FAILURES = [InfrastructureError("disk"), OSError(5, "I/O"), TimeoutError(), MemoryError()]


@pytest.mark.parametrize("error", FAILURES)
def test_rule_5_whatever_fails_after_the_question_is_charged(error):
    def fail(x, position):
        raise error

    images = np.zeros((4, *SHAPE), np.int64)
    result = score(Answering(fail), "m", raster(SHAPE, 2), images, decoys=images, generator=rng())
    assert result.failures == 4
    assert result.bits == pytest.approx(np.full(4, most(1, 2)))


def test_rule_5_there_is_no_second_draw_and_a_restart_draws_the_same():
    exam = frozen_exam()
    first = exam.generator("score", "made").random(5)
    with pytest.raises(UsageError, match="drawn already"):
        exam.generator("score", "made")
    assert np.array_equal(frozen_exam().generator("score", "made").random(5), first)
    assert not np.array_equal(Exam(SECRET, "bob").generator("score", "made").random(5), first)


def test_rule_6_spoiling_images_never_earns_points():
    """A larger spread of its own, at the same mean, is worth nothing."""
    steady = np.full(400, 0.1) + np.tile([-0.01, 0.01], 200)
    spread = np.full(400, 0.1) + np.tile([-5.0, 5.0], 200)
    edges = {"full": 0.02, "none": 0.25}
    assert share(of_difference(spread), **edges) == pytest.approx(share(of_difference(steady), **edges))
    assert share(of_difference(steady), **edges) == pytest.approx((0.25 - 0.1) / (0.25 - 0.02))
    worse = steady.copy()
    worse[0] = 12.0
    assert share(of_difference(worse), **edges) < share(of_difference(steady), **edges)


def test_rule_6_edges_are_straight_and_end_at_the_reference():
    edges = {"full": 0.02, "none": 0.22}
    shares = [share(of_difference(np.full(9, d)), **edges) for d in (-3.0, 0.02, 0.12, 0.22, 9.0)]
    assert shares == pytest.approx([1, 1, 0.5, 0, 0])


def test_rule_7_all_of_128_bits_decide_every_draw():
    assert len(secret.new_secret()) == KEY_BYTES == 16
    assert secret.new_secret() != secret.new_secret()
    drawn = {secret.generator(SECRET, "x").integers(2**63)}
    for bit in range(128):
        flipped = (int.from_bytes(SECRET, "little") ^ (1 << bit)).to_bytes(16, "little")
        drawn.add(secret.generator(flipped, "x").integers(2**63))
    assert len(drawn) == 129


def test_rule_7_a_secret_that_can_be_guessed_is_refused():
    with pytest.raises(UsageError, match="can be guessed"):
        Exam(SECRET[:4], "ada")


def test_rule_8_a_party_is_dead_before_the_next_is_alive():
    alive = []

    @contextmanager
    def party(name):
        alive.append(name)
        yield name
        alive.remove(name)

    exam = frozen_exam()
    with exam.party(party("A")):
        with pytest.raises(UsageError, match="must be gone"), exam.party(party("B")):
            pass
        assert alive == ["A"]
    with exam.party(party("B")) as answering:
        assert (answering, alive) == ("B", ["B"])


def test_rule_8_a_party_that_fails_makes_room():
    @contextmanager
    def broken():
        raise InfrastructureError("no sandbox")
        yield

    exam = frozen_exam()
    with pytest.raises(InfrastructureError), exam.party(broken()):
        pass
    with exam.party(nullcontext()) as answering:
        assert answering is None


def test_rule_9_a_label_that_tells_the_image_saves_nothing():
    """One pixel, four levels, and the label is the pixel: two bits are two bits."""
    labels = np.arange(400) % 4
    told = Answering(lambda x, position, y: 50.0 * np.eye(4)[y])
    result = score(
        told,
        "m",
        raster((1, 1, 1), 4),
        labels.reshape(-1, 1, 1, 1),
        decoys=noise((1, 1, 1), 4),
        generator=rng(),
        labels=labels,
        classes=4,
    )
    assert result.bits_per_dim >= 2.0


def test_rule_9_the_order_of_the_images_tells_nothing():
    """Images sorted by content, and one who knows that: the first half of what it is sent is no darker."""
    images = np.sort(np.arange(512) % 2).reshape(-1, 1, 1, 1)
    sorted_away = Answering(lambda x, position: 3.0 * np.eye(2)[np.sort(np.arange(len(x)) % 2)])
    result = score(sorted_away, "m", raster((1, 1, 1), 2), images, decoys=images, generator=rng())
    assert result.bits_per_dim > 1.0


def test_rule_10_public_data_carries_a_small_share():
    def rubric(points: float) -> Rubric:
        model = Model(
            name="pixels", data="digits", shape=(1, 8, 8), levels=17, reference="pixels", points=points
        )
        probe = Probe(function="f", draw=lambda g: {}, reference=lambda: 0, points=80)
        problem = Problem(name="p", title="P", items=(model, probe))
        return Rubric(name="hw", title="HW", problems=(problem,), tiers={}, folder=Path())

    assert rubric(20).points == 100
    with pytest.raises(ValueError, match="20% at most"):
        rubric(21)
