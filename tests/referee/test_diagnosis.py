"""What went wrong, in words: each bug of the course's list is planted once and must be named."""

import math

import numpy as np
import pytest
import torch

from dulcourse.autoregressive import orders
from dulcourse.autoregressive.base import AutoregressiveModel
from dulcourse.referee.diagnosis import (
    dependency,
    diagnose,
    explain,
    forbidden,
    missing,
    own_bits_per_dim,
    said,
    units,
)
from dulcourse.referee.score import Score
from tests.referee.parties import frozen_of, local, noise, raster

SHAPE = (1, 3, 3)
ORDER = orders.spiral(SHAPE)
RANK = ORDER.argsort()


class Linear(AutoregressiveModel):
    """logits_i = (W x)_i under any mask [D, D]; double, so that nothing is lost in rounding."""

    def __init__(self, mask, levels=3):
        super().__init__(SHAPE, levels, ORDER)
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(levels, 9, 9, generator=generator, dtype=torch.float64)
        self.weight = torch.nn.Parameter(weight * torch.as_tensor(mask))

    def logits(self, x, y=None):
        return torch.einsum("lij,nj->nli", self.weight, x.flatten(1).double()).unflatten(2, SHAPE)


def past(rank, strict=True):
    """Who may see whom when symbol i comes at rank[i]."""
    later, earlier = rank[:, None], rank[None, :]
    return (later > earlier if strict else later >= earlier).numpy()


def found(mask, levels=3):
    frozen = frozen_of(ORDER.numpy(), SHAPE, levels)
    generator = np.random.default_rng(0)
    return dependency(local(Linear(mask, levels)), "made", frozen, noise(SHAPE, levels, 2), generator), frozen


def scored(bits=1.2, **changes) -> Score:
    facts = {
        "bits_per_dim": bits,
        "standard_error": 0.001,
        "reference_bits_per_dim": bits,
        "reference_standard_error": 0.001,
        "difference": 0.0,
        "difference_standard_error": 0.001,
        "images": 100,
        "failures": 0,
        "positions": "one",
        "bits": np.full(100, bits),
        "label_gap_standard_error": 0.02,
    }
    return Score(**(facts | changes))


@pytest.mark.parametrize("levels", [2, 3, 9])
def test_the_matrix_is_the_mask(levels):
    mask = np.random.default_rng(1).random((9, 9)) < 0.4
    matrix, _ = found(mask, levels)
    assert np.array_equal(matrix, mask)


def test_a_trained_model_sees_all_of_its_past_and_nothing_else(made):
    matrix = dependency(local(made.model), "made", made.frozen, made.train[:2], np.random.default_rng(0))
    assert forbidden(matrix, made.frozen.order) is None
    assert missing(matrix, made.frozen.order) == []


class Faint(Linear):
    """The first symbol moves the last by less than float32 tells, but in images that start at level 2."""

    def logits(self, x, y=None):
        logits = super().logits(x, y).float()
        first, last = x.flatten(1)[:, 0], logits.flatten(2)[:, 0, 2]
        last += torch.where(x.flatten(1)[:, 1] == 2, 1.0, 1e-6) * first
        return logits


def test_an_effect_that_one_image_hides_is_looked_for_in_others():
    mask = past(RANK)
    mask[2, 0] = False
    frozen, generator = frozen_of(ORDER.numpy(), SHAPE, 3), np.random.default_rng(0)
    base = np.zeros((3, *SHAPE), int)
    base[2, ..., 1] = 2
    seen = [dependency(local(Faint(mask)), "made", frozen, base[:n], generator) for n in (2, 3)]
    assert [missing(matrix, ORDER.numpy()) for matrix in seen] == [[(2, 0)], []]


def test_numbers_of_any_size_leave_no_warning():
    """What a stranger answers must not stop the referee: the largest floats, of either sign."""

    class Huge(torch.nn.Module):
        shape, levels = SHAPE, 3

        def logits(self, x, y=None):
            signs = (x.flatten(1).sum(1) % 2 * 2 - 1).view(-1, 1, 1, 1, 1)
            return torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1, 1) * 3e38 * signs.expand(-1, 3, *SHAPE)

    matrix = dependency(local(Huge()), "made", raster(SHAPE, 3), noise(SHAPE, 3, 2), np.random.default_rng(0))
    assert matrix.shape == (9, 9)


def test_many_inputs_are_perturbed_in_pieces(monkeypatch):
    monkeypatch.setattr("dulcourse.referee.diagnosis.matrix.PIECE", 200)
    matrix, _ = found(past(RANK))
    assert np.array_equal(matrix, past(RANK))


def test_the_first_forbidden_pair_in_the_models_own_order():
    mask = past(RANK)
    order = ORDER.tolist()
    mask[order[6], order[8]] = mask[order[4], order[5]] = mask[order[4], order[7]] = True
    matrix, frozen = found(mask)
    assert forbidden(matrix, frozen.order) == (order[4], order[5])


def test_missing_pairs_are_counted_from_the_first():
    mask = past(RANK)
    order = ORDER.tolist()
    mask[order[5], order[2]] = mask[order[7], order[0]] = False
    matrix, frozen = found(mask)
    assert missing(matrix, frozen.order) == [(order[5], order[2]), (order[7], order[0])]


def test_groups_see_earlier_groups_only():
    group = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    allowed = group[:, None] > group[None, :]
    assert forbidden(allowed, np.arange(9), group) is None
    within = allowed.copy()
    within[4, 3] = True  # fine in raster order, but 3 and 4 are answered at once
    assert forbidden(within, np.arange(9)) is None
    assert forbidden(within, np.arange(9), group) == (4, 3)


FORWARDS = past(torch.arange(9))


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (past(RANK, strict=False), "sees input 4 (row 1, column 1), which it must predict itself"),
        (past(RANK, strict=False), "compare > with >="),
        (np.ones((9, 9), bool), "is any mask applied?"),
        (past(ORDER), "the masks follow `rank`"),
        (FORWARDS, "the masks follow the raster order"),
        (past(RANK) | np.eye(9, k=3, dtype=bool), "or at padding and shifts, of the layer that first"),
    ],
)
def test_a_leak_is_named_with_what_to_look_at(mask, words):
    matrix, frozen = found(mask)
    (said_first, *rest) = explain(scored(), frozen=frozen, matrix=matrix, claimed=0.3, own=0.3)
    assert said_first.startswith("a leak: output ")
    assert words in said_first
    assert rest == []


@pytest.mark.parametrize("levels", [2, 4])
def test_levels_and_pixels_that_change_places_are_named(levels):
    pixel, level = np.arange(9)[:, None], np.arange(levels)
    for meant in ((level * 9 + pixel) // levels, (pixel * levels + level) % 9):
        matrix, frozen = found(past(RANK)[meant].any(axis=1), levels)
        words = explain(scored(), frozen=frozen, matrix=matrix)[0]
        assert "levels and pixels of the outputs are mixed up" in words


def test_a_blind_spot_is_counted_and_independence_said():
    mask = past(RANK)
    order = ORDER.tolist()
    mask[order[5], order[2]] = False
    matrix, frozen = found(mask)
    (words,) = explain(scored(), frozen=frozen, matrix=matrix)
    assert words.startswith("1 of 36 earlier inputs are not used; first, output")
    matrix, frozen = found(np.zeros((9, 9), bool))
    assert "independent of the others" in explain(scored(), frozen=frozen, matrix=matrix)[0]


RGB, PIXELS = (3, 2, 2), 4
SUBPIXELS = torch.arange(12).view(RGB).permute(1, 2, 0).flatten()  # h, w, then c
SAME = (np.arange(12)[:, None] % PIXELS) == (np.arange(12)[None, :] % PIXELS)
EARLIER = past(SUBPIXELS.argsort())


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (EARLIER | SAME, "the channel order is not kept"),
        (EARLIER | (SAME & ~np.eye(12, dtype=bool)), "the channel order is not kept"),
        (EARLIER | np.eye(12, dtype=bool), "compare > with >="),
        (EARLIER & ~SAME, "All of them are earlier channels of the output's own pixel: the channel order"),
        (past(torch.arange(12)), "the masks follow the raster order, not the model's `order`"),
    ],
)
def test_mistakes_with_sub_pixels_are_named(mask, words):
    class Colours(AutoregressiveModel):
        def __init__(self):
            super().__init__(RGB, 3, SUBPIXELS)
            weight = torch.randn(3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
            self.weight = torch.nn.Parameter(weight * torch.as_tensor(mask))

        def logits(self, x, y=None):
            return torch.einsum("lij,nj->nli", self.weight, x.flatten(1).double()).unflatten(2, RGB)

    frozen = frozen_of(SUBPIXELS.numpy(), RGB, 3)
    matrix = dependency(local(Colours()), "made", frozen, noise(RGB, 3, 2), np.random.default_rng(0))
    assert words in explain(scored(), frozen=frozen, matrix=matrix)[0]


def test_the_blind_spot_of_stacked_convolutions_is_told_from_others():
    frozen = raster(SHAPE, 3)
    mask = past(torch.arange(9))
    mask[3, 2] = mask[6, 2] = mask[6, 5] = False  # the first pixel of a row, and what lies to its upper right
    words = explain(scored(), frozen=frozen, matrix=mask)[0]
    assert words.startswith("3 of 36 earlier inputs are not used; first, output 3")
    assert "All of them lie above and to the right: the blind spot" in words


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda b: b * math.log(2), "in nats; divide by ln 2"),
        (lambda b: b / math.log(2), "divided by ln 2 twice"),
        (lambda b: b * 64, "the sum over the 64 dimensions, not their mean"),
        (lambda b: b * 64 * math.log(2), "the sum over the 64 dimensions, in nats"),
        (lambda b: b / 64, "divided by the 64 dimensions twice"),
        (lambda b: -b, "the sign is wrong"),
        (lambda b: -b * math.log(2), "the sign is wrong, and it is in nats"),
        (lambda b: b - math.log2(17), "log₂ 17 is missing"),
        (lambda b: b + math.log2(17), "log₂ 17 was added twice"),
    ],
)
@pytest.mark.parametrize("bits", [0.9, 2.2372, 3.1])
def test_every_mistake_of_units_is_named(mistake, words, bits):
    assert words in units(mistake(bits * 1.002), bits, 64, 17)


def test_agreement_and_honest_differences_are_no_mistake_of_units():
    assert units(2.237, 2.2371, 64, 17) is None
    assert units(2.0, 2.2, 64, 17) is None
    assert "64" not in (units(6.2 * math.log(2), 6.2, 1, 100) or "")


@pytest.mark.parametrize(
    ("claimed", "own", "words"),
    [
        (1.21, 1.2, "agrees with the 1.200 measured"),
        (1.0, 1.2, "training images, or the model overfitted"),
        (1.4, 1.2, "before training ended"),
        (1.2 * math.log(2), 1.2, "in nats"),
        (None, 0.6, "log_prob and logits disagree"),
    ],
)
def test_claims_are_held_against_what_was_measured(claimed, own, words):
    said_of = explain(scored(1.2), frozen=raster(SHAPE, 3), claimed=claimed, own=own)
    assert words in said_of[0]


def test_unusable_answers_come_first_and_labels_last():
    score = scored(failures=7, reason="no answer", label_gap=0.31)
    words = explain(score, frozen=raster(SHAPE, 3), claimed=1.2, own=0.6)
    assert len(words) == 2  # nothing of figures in which the failures are
    assert words[0].startswith("7 answers could not be used and were charged in full (no answer)")
    assert words[-1].startswith("wrong labels cost +0.310 bits/dim, so the labels are used")
    for gap in (0.0005, 0.05, -0.05):  # within three standard errors of the gap
        (ignored,) = explain(scored(label_gap=gap), frozen=raster(SHAPE, 3))
        assert "the labels are ignored; look at where y enters" in ignored


@pytest.mark.parametrize(
    ("worth", "words"),
    [(0.0, "are ignored"), (0.001, "hardly change anything"), (0.1, "+0.100 bits/dim, so the")],
)
def test_whether_labels_are_used_is_seen_on_the_same_images(worth, words):
    """The gap that was measured is between different images, and noise."""
    for gap in (0.0, 0.1):
        score = scored(label_gap=gap)
        (only,) = explain(score, frozen=raster(SHAPE, 3), own=1.2, labels_worth=worth)
        assert words in only


def test_what_is_worse_than_the_reference_and_consistent_is_told_where_to_look():
    worse = {"reference_bits_per_dim": 1.0, "difference": 0.2}
    for changes, claimed, found in (
        (worse, 1.2, True),
        (worse, None, True),
        (worse, 1.2 * math.log(2), False),  # nats: that is said instead
        (worse | {"difference_standard_error": 0.1}, 1.2, False),
        ({}, 1.2, False),
    ):
        words = explain(scored(**changes), frozen=raster(SHAPE, 3), claimed=claimed, own=1.2)
        assert any("figures agree with each other" in word for word in words) == found
    leak = explain(scored(**worse), frozen=raster(SHAPE, 3), own=1.2, matrix=np.ones((9, 9), bool))
    assert len(leak) == 1


@pytest.mark.parametrize("which", ["what goes in", "all"])
def test_rows_and_columns_that_are_exchanged_are_told(which):
    turned = np.arange(9).reshape(3, 3).T.reshape(-1)
    mask = past(torch.arange(9))[:, turned]
    mask = mask[turned] if which == "all" else mask
    (words,) = explain(scored(), frozen=raster(SHAPE, 3), matrix=mask)
    assert "rows and columns are exchanged" in words


def test_a_row_that_does_not_see_its_own_past_is_told():
    row = np.arange(16) // 4
    mask = past(torch.arange(16)) & (row[:, None] != row[None, :])
    (words,) = explain(scored(), frozen=raster((1, 4, 4), 3), matrix=mask)
    assert "They lie in the output's own row: look at what the horizontal stack is given" in words


@pytest.mark.parametrize("logits", ["tanh", "free"])
def test_logits_that_end_in_a_tanh_are_named(logits):
    class Bounded(Linear):
        def logits(self, x, y=None):
            found = 50 * super().logits(x, y)
            return torch.tanh(found) if logits == "tanh" else found

    frozen, x = frozen_of(ORDER.numpy(), SHAPE, 3), noise(SHAPE, 3, 64)
    party = local(Bounded(past(RANK)))
    said = diagnose(party, "made", frozen, scored(), x, generator=np.random.default_rng(0), base=x[:8])
    assert any("that never leave [−1, 1]" in words for words in said.words) == (logits == "tanh")


@pytest.mark.parametrize("own", [5.0, 2.2, None])
def test_a_model_that_knows_less_than_nothing_is_told_so(own):
    """A loss whose sign is wrong: the score has its caps, and what the model says of itself has none."""
    (words,) = explain(scored(2.1), frozen=raster(SHAPE, 3), own=own)
    assert words.startswith("2.100 bits/dim are more than the 1.585 of a uniform guess")
    leak = explain(scored(2.1), frozen=raster(SHAPE, 3), own=own, matrix=np.ones((9, 9), bool))
    assert [word[:7] for word in leak] == ["a leak:"]
    assert "uniform" not in " ".join(explain(scored(2.1), frozen=raster(SHAPE, 3), own=1.2))


@pytest.mark.parametrize(
    ("claimed", "words"),
    [
        (1.5, "the claim of 1.200 bits/dim agrees with the 1.200 measured."),
        (
            1.2 * math.log(2) + 0.3,
            "0.8318 bits/dim were claimed where the referee finds 1.2: that is the figure",
        ),
        (1.2, "0.900 bits/dim were claimed, the referee measured 1.200 on new images: was"),
    ],
)
def test_claims_of_conditional_models_hold_the_price_of_labels(claimed, words):
    """As the score does; it is no part of what mistakes with units turn."""
    score = scored(1.5, label_gap=0.2, parts={"label": 0.3})
    found = explain(score, frozen=raster(SHAPE, 3), claimed=claimed, own=1.2)
    assert found[0].startswith(f"without the 0.300 bits/dim of the label, {words}")
    assert "the score holds 0.300 bits/dim for the label itself" in found[1]


def test_rows_above_that_nobody_sees_are_no_blind_spot():
    row, column = np.divmod(np.arange(9), 3)
    mask = past(torch.arange(9)) & (row[None, :] == row[:, None]) & (column[:, None] - column[None, :] < 2)
    (words,) = explain(scored(), frozen=raster(SHAPE, 3), matrix=mask)
    assert words.startswith("30 of 36 earlier inputs are not used")
    assert words.endswith(
        "Nothing of any row above is seen: of two stacks, the vertical one must feed the horizontal one."
    )
    mask[3, 0] = True
    assert "Nothing of any row above" not in explain(scored(), frozen=raster(SHAPE, 3), matrix=mask)[0]


def test_a_row_that_sees_itself_is_told_from_other_leaks():
    row = np.arange(9) // 3
    mask = row[None, :] <= row[:, None]
    (words,) = explain(scored(), frozen=raster(SHAPE, 3), matrix=mask)
    assert "look at the shift of the vertical stack" in words
    mask[0, 3] = True
    (words,) = explain(scored(), frozen=raster(SHAPE, 3), matrix=mask)
    assert "or at padding and shifts, of the layer that first" in words


@pytest.mark.parametrize("twice", [True, False])
def test_probabilities_for_logits_are_named_and_not_taken_for_a_blind_spot(twice):
    class Twice(Linear):
        def logits(self, x, y=None):
            logits = super().logits(x, y)
            return (logits.softmax(1) if twice else logits.log_softmax(1)).float()

    frozen, x = frozen_of(ORDER.numpy(), SHAPE, 3), noise(SHAPE, 3, 64)
    mask = past(RANK)
    mask[2, 0] = mask[8, :4] = False  # as if their effect were lost
    said = diagnose(
        local(Twice(mask)), "made", frozen, scored(), x, generator=np.random.default_rng(0), base=x[:2]
    )
    assert any("probabilities where logits are expected" in words for words in said.words) == twice
    assert any("earlier inputs are not used" in words for words in said.words) == (not twice)


def test_who_sees_the_answer_is_not_told_that_labels_are_ignored():
    score = scored(label_gap=0.0)
    (only,) = explain(score, frozen=raster(SHAPE, 3), matrix=np.ones((9, 9), bool), labels_worth=0.0)
    assert only.startswith("a leak: ")


@pytest.mark.parametrize("pairs", [20, 21])
def test_a_few_inputs_that_are_not_seen_are_no_blind_spot(pairs):
    """Of the 2016 earlier inputs in an 8×8 image; all lie above and to the right, as a mask would have it."""
    shape = (1, 8, 8)
    row, column = np.divmod(np.arange(64), 8)
    mask = past(torch.arange(64))
    hidden = (row[None, :] < row[:, None]) & (column[None, :] > column[:, None])
    mask[tuple(np.argwhere(hidden)[:pairs].T)] = False
    words = explain(scored(), frozen=raster(shape, 3), matrix=mask)
    assert len(words) == (pairs == 21)
    assert all("21 of 2016" in word and "lie above and to the right" in word for word in words)


def test_what_a_model_says_of_itself(made):
    party = local(made.model, claim=1.25)
    assert said(party, "made") == 1.25
    assert said(local(made.model), "made") is None
    nats = made.model.log_prob(torch.from_numpy(made.images[:32])).mean().item()
    assert own_bits_per_dim(party, "made", made.images[:32]) == pytest.approx(-nats / 64 / math.log(2))
