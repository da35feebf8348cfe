"""Blind scores: what the respondent sees, what the score is of, and how exactly."""

import math

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from dulcourse.autoregressive.base import AutoregressiveModel
from dulcourse.errors import UsageError
from dulcourse.referee.autoregressive import freeze, reference_charges, score
from dulcourse.referee.code import most
from dulcourse.referee.diagnosis import own_bits_per_dim
from dulcourse.referee.respondent import Malformed
from dulcourse.referee.score import summary
from tests.referee.parties import Answering, Law, frozen_of, honest, local, noise, raster

SHAPE = (1, 2, 3)
ORDER = np.array([4, 2, 0, 5, 1, 3])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def uniform(levels: int) -> Answering:
    return Answering(lambda x, position: np.zeros((len(x), levels)))


class Table(AutoregressiveModel):
    """A trusted model whose conditionals depend on the position alone."""

    def __init__(self, shape, levels, seed=0):
        super().__init__(shape, levels)
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.nn.Parameter(torch.randn(levels, *shape, generator=generator))

    def logits(self, x, y=None):
        return self.table.expand(len(x), *self.table.shape)


class Scripted(np.random.Generator):
    """Draws the positions it was given; everything else is the first choice."""

    def __init__(self, positions):
        super().__init__(np.random.PCG64(0))
        self.positions = np.array(positions)

    def integers(self, high, size=None):
        drawn, self.positions = self.positions, np.zeros_like(self.positions)
        return drawn

    def permutation(self, n):
        return np.arange(n)


def test_all_positions_of_a_trained_model_cost_what_it_says_of_itself(made):
    images = made.images[:128]
    party = local(made.model)
    blind = score(party, "made", made.frozen, images, decoys=made.train, generator=rng(), positions="all")
    assert blind.failures == 0
    assert blind.bits_per_dim == pytest.approx(own_bits_per_dim(party, "made", images), abs=1e-4)
    assert blind.bits_per_dim < 1.8  # it has learned something: independent pixels need more, uniform ones 2


def test_one_position_estimates_all_of_them(made):
    """Within two standard errors, which the reference makes small."""
    party, reference = local(made.model), Table((1, 8, 8), 4)
    both = {"decoys": made.train, "reference": reference}
    whole = score(party, "made", made.frozen, made.images, generator=rng(), positions="all", **both)
    single = score(party, "made", made.frozen, made.images, generator=rng(1), positions="one", **both)
    assert abs(single.difference - whole.difference) < 2 * single.difference_standard_error
    assert abs(single.bits_per_dim - whole.bits_per_dim) < 2 * single.standard_error
    assert single.reference_bits_per_dim == whole.reference_bits_per_dim


def test_a_reference_like_the_model_takes_the_noise_of_the_position_away(made):
    party = local(made.model)
    settings = {"decoys": made.train, "positions": "one"}
    alone = score(party, "made", made.frozen, made.images, generator=rng(), **settings)
    paired = score(party, "made", made.frozen, made.images, generator=rng(), reference=made.model, **settings)
    assert paired.difference_standard_error < 1e-6
    assert paired.standard_error < alone.standard_error / 3


def test_the_estimate_is_unbiased_whatever_the_reference():
    """The mean over all D² draws of two positions is the score of all positions, exactly."""
    law, order, levels = Law((1, 1, 3), 2, 3), np.array([1, 2, 0]), 2
    frozen, images = frozen_of(order, (1, 1, 3), levels), law.images()[[2, 5]]
    settings = {"decoys": noise((1, 1, 3), levels), "reference": Table((1, 1, 3), levels)}
    whole = score(honest(law, order), "m", frozen, images, generator=rng(), positions="all", **settings)
    estimates = [
        score(honest(law, order), "m", frozen, images, generator=Scripted([s, t]), **settings)
        for s in range(3)
        for t in range(3)
    ]
    assert np.mean([e.bits_per_dim for e in estimates]) == pytest.approx(whole.bits_per_dim, abs=1e-12)
    assert np.mean([e.difference for e in estimates]) == pytest.approx(whole.difference, abs=1e-12)


def test_a_model_that_sees_what_it_predicts_is_found_out(made):
    """Its own figure passes any threshold, the blind one is worse than a uniform guess."""

    class Leaky(torch.nn.Module):
        shape, levels, order = (1, 8, 8), 4, made.model.order

        def logits(self, x, y=None):
            return made.model.logits(x) + 6 * torch.nn.functional.one_hot(x, 4).movedim(-1, 1)

        def log_prob(self, x, y=None):
            return self.logits(x).log_softmax(1).gather(1, x[:, None]).flatten(1).sum(1)

    party = local(Leaky())
    blind = score(
        party, "made", made.frozen, made.images[:64], decoys=made.train, generator=rng(), positions="all"
    )
    assert own_bits_per_dim(party, "made", made.images[:64]) < 0.5
    assert blind.bits_per_dim > 2


def test_only_the_past_is_sent_and_a_decoy_follows():
    frozen, images = frozen_of(ORDER, SHAPE, 2), np.ones((64, *SHAPE), np.int64)
    party = uniform(2)
    score(party, "m", frozen, images, decoys=np.zeros((2, *SHAPE), np.int64), generator=rng())
    ((name, sent),) = party.questions
    assert name == "m.conditional"
    rank = np.argsort(ORDER)
    assert set(sent["position"]) == set(range(6))
    expected = (rank[None, :] < rank[sent["position"]][:, None]).astype(np.int64)
    assert np.array_equal(sent["x"].reshape(64, -1), expected)


def test_rounds_rise_in_rank_and_hold_an_image_once():
    frozen, images = frozen_of(ORDER, SHAPE, 2), np.ones((4, *SHAPE), np.int64)
    party = uniform(2)
    result = score(
        party, "m", frozen, images, decoys=np.zeros((2, *SHAPE), np.int64), generator=rng(), positions="all"
    )
    positions = [sent["position"] for _, sent in party.questions]
    assert [set(p) for p in positions] == [{i} for i in ORDER]
    assert [len(p) for p in positions] == [4] * 6
    assert [sent["x"].sum() for _, sent in party.questions] == [4 * t for t in range(6)]
    assert result.bits == pytest.approx(np.full(4, 6.0), abs=1e-9)


def test_groups_are_answered_at_once_and_see_earlier_groups_only():
    group = np.array([0, 1, 1, 0, 2, 2])
    order = np.array([0, 3, 1, 2, 4, 5])
    frozen = frozen_of(order, SHAPE, 2, group=group)
    party, images = uniform(2), np.ones((3, *SHAPE), np.int64)
    score(
        party, "m", frozen, images, decoys=np.zeros((2, *SHAPE), np.int64), generator=rng(), positions="all"
    )
    assert [sorted(set(sent["position"])) for _, sent in party.questions] == [[0, 3], [1, 2], [4, 5]]
    for (_, sent), known in zip(party.questions, ([], [0, 3], [0, 1, 2, 3]), strict=True):
        expected = np.isin(np.arange(6), known).astype(np.int64)
        assert (sent["x"].reshape(-1, 6) == expected).all()


def test_a_lower_bound_that_nobody_passes_costs_the_cap():
    images = np.zeros((10, *SHAPE), np.int64)
    certain = Answering(lambda x, position: np.tile([-1e6, 0.0], (len(x), 1)))
    settings = {"decoys": noise(SHAPE, 2), "generator": rng()}
    for positions, sent in (("one", 1), ("all", 6)):
        result = score(certain, "m", raster(SHAPE, 2), images, positions=positions, **settings)
        assert result.bits == pytest.approx(np.full(10, most(sent, 2)))


@pytest.mark.parametrize(
    "answer",
    [
        lambda x, position: np.zeros((len(x), 3)),
        lambda x, position: np.zeros((len(x) - 1, 2)),
        lambda x, position: np.zeros((len(x), 2), np.int64),
        lambda x, position: np.zeros((len(x), 2), complex),
        lambda x, position: 1 / 0,
    ],
    ids=["too many levels", "too few rows", "integers", "complex", "raises"],
)
@pytest.mark.parametrize("positions", ["one", "all"])
def test_an_unusable_answer_costs_every_image_its_cap(answer, positions):
    images = law_images()
    result = score(
        Answering(answer), "m", raster(SHAPE, 2), images, decoys=images, generator=rng(), positions=positions
    )
    assert result.bits == pytest.approx(np.full(len(images), most(6 if positions == "all" else 1, 2)))
    assert result.failures >= len(images)
    assert result.reason
    assert math.isfinite(result.bits_per_dim)


def law_images() -> np.ndarray:
    return Law(SHAPE, 2).images()


def test_a_late_surprise_is_charged_where_it_happens():
    """Rows that are not finite cost log2 L each; the rest of the answer stands."""

    def answer(x, position):
        log_p = np.tile(np.log([0.75, 0.25]), (len(x), 1))
        log_p[::2, 1] = np.nan
        return log_p

    images = np.zeros((200, *SHAPE), np.int64)
    result = score(Answering(answer), "m", raster(SHAPE, 2), images, decoys=images, generator=rng())
    assert result.failures == 100
    assert np.sort(result.bits)[[0, -1]] == pytest.approx([-math.log2(0.75), 1.0], abs=1e-5)


def test_reference_bits_stand_in_for_a_reference():
    images, reference = law_images(), Table(SHAPE, 2)
    settings = {"decoys": images, "positions": "all"}
    bits = reference_charges(reference, images).sum(axis=1) / 6
    given = score(uniform(2), "m", raster(SHAPE, 2), images, generator=rng(), reference_bits=bits, **settings)
    asked = score(uniform(2), "m", raster(SHAPE, 2), images, generator=rng(), reference=reference, **settings)
    assert given.difference == pytest.approx(asked.difference, abs=1e-12)
    assert given.reference_standard_error == pytest.approx(asked.reference_standard_error)


def test_the_reference_is_charged_what_its_log_prob_says():
    images, reference = law_images(), Table(SHAPE, 2)
    nats = -reference.log_prob(torch.from_numpy(images)).double().detach().numpy()
    assert reference_charges(reference, images).sum(axis=1) == pytest.approx(nats / math.log(2), abs=1e-4)


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        (b"", "cannot be read"),
        (save({"weight": np.zeros(3)}), "no buffer 'order'"),
        (save({"order": np.arange(5)}), r"expected integers of shape \[6\]"),
        (save({"order": np.arange(6.0)}), "float64"),
        (save({"order": np.array([0, 1, 2, 3, 4, 4])}), "not a permutation"),
        (save({"order": np.array([0, 1, 2, 3, 4, -5])}), "not a permutation"),
        (save({"order": np.arange(6), "group": np.array([1, 0, 0, 0, 0, 0])}), "must not decrease"),
    ],
)
def test_a_checkpoint_that_declares_nothing_usable_is_refused_in_words(checkpoint, words):
    with pytest.raises(Malformed, match=words):
        freeze(checkpoint, SHAPE, 2)


def test_another_order_than_the_one_asked_for_is_named():
    with pytest.raises(Malformed, match="at t = 0 is 0, expected 4"):
        freeze(save({"order": np.arange(6)}), SHAPE, 2, ORDER)
    with pytest.raises(Malformed, match="holds the inverse"):
        freeze(save({"order": np.argsort(ORDER)}), SHAPE, 2, ORDER)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": np.full((4, *SHAPE), 2)}, "outside 0 … 1"),
        ({name: np.zeros((4, 1, 3, 2), np.int64) for name in ("images", "decoys")}, "expected int64"),
        ({"images": np.zeros((1, *SHAPE), np.int64)}, "at least 2"),
        ({"decoys": np.full((4, *SHAPE), -1)}, "decoys have values"),
        ({"reference_bits": np.zeros(4)}, "positions='all' only"),
        ({"positions": "all", "reference_bits": np.zeros(3)}, "3 reference_bits for 4"),
        ({"labels": np.zeros(4, np.int64)}, "classes is None"),
        ({"labels": np.full(4, 7), "classes": 7}, "from 0 to classes"),
    ],
)
def test_arguments_that_cannot_be_right_are_refused_in_words(change, words):
    zeros = np.zeros((4, *SHAPE), np.int64)
    arguments = {"images": zeros, "decoys": zeros, "generator": rng()} | change
    images = arguments.pop("images")
    with pytest.raises(UsageError, match=words):
        score(uniform(2), "m", raster(SHAPE, 2), images, **arguments)


def test_a_conditional_model_is_sent_its_labels_and_wrong_ones_cost_it():
    """Half of the images are all zeros and half all ones, which the label tells and nothing else."""
    labels = np.arange(400) % 2
    images = np.broadcast_to(labels[:, None, None, None], (400, *SHAPE)).copy()

    def answer(x, position, y):
        return 8.0 * np.eye(2)[y]

    result = score(
        Answering(answer),
        "m",
        raster(SHAPE, 2),
        images,
        decoys=noise(SHAPE, 2),
        generator=rng(),
        labels=labels,
        classes=2,
    )
    assert result.images == 300  # the others got shuffled labels
    assert result.bits_per_dim == pytest.approx(1 / 6, abs=1e-2)  # log2 2 bits for the label, nothing else
    assert result.label_gap > 3


def test_a_model_that_ignores_its_labels_loses_nothing_by_wrong_ones():
    labels = np.arange(400) % 2
    result = score(
        Answering(lambda x, position, y: np.zeros((len(x), 2))),
        "m",
        raster(SHAPE, 2),
        np.zeros((400, *SHAPE), np.int64),
        decoys=noise(SHAPE, 2),
        generator=rng(),
        labels=labels,
        classes=2,
    )
    assert result.label_gap == pytest.approx(0.0, abs=1e-9)
    assert result.bits_per_dim == pytest.approx(1 + 1 / 6, abs=1e-6)


def test_the_error_of_what_wrong_labels_cost_is_of_both_groups():
    """A quarter of the images have wrong labels: the gap is less certain than either mean."""
    draws = rng().standard_normal(4000)
    control = np.arange(4000) % 4 == 0
    found = summary(draws, None, draws, failures=0, reason="", control=control)
    assert found.label_gap_standard_error == pytest.approx(math.sqrt(1 / 1000 + 1 / 3000), rel=0.05)
    assert abs(found.label_gap) < 3 * found.label_gap_standard_error
