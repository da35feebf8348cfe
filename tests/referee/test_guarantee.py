"""E 2^(T−S) ≤ 1: nobody beats the entropy of a known source, shown by going through all of its images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dulcourse.referee.autoregressive import score
from tests.referee.parties import Answering, Law, Remembering, erratic, frozen_of, honest, noise

SHAPE, LEVELS = (1, 1, 3), 2
ORDER = np.array([2, 0, 1])  # not its own inverse
BOUND = (1 + 2.0**-10) ** 2  # what the cap of two images gives away


def expectation(law: Law, respondent, positions: str, seed: int) -> float:
    """E 2^(T−S) over all pairs of images, each pair examined by a new respondent."""
    frozen = frozen_of(ORDER, SHAPE, LEVELS)
    total, images = 0.0, law.images()
    for first in images:
        for second in images:
            pair = np.stack([first, second])
            result = score(
                respondent(),
                "model",
                frozen,
                pair,
                decoys=noise(SHAPE, LEVELS),
                generator=np.random.default_rng(seed),
                positions=positions,
            )
            T = true_bits(law, pair, positions, seed)
            total += law.p(first) * law.p(second) * 2.0 ** (T - result.bits.sum())
    return total


def true_bits(law: Law, pair: np.ndarray, positions: str, seed: int) -> float:
    """−log₂ of the law of the symbols that were charged."""
    if positions == "all":
        return sum(law.bits(x) for x in pair)
    generator = np.random.default_rng(seed)  # drawn as `score` draws: who comes first, then the positions
    shuffled = generator.permutation(2)
    position = generator.integers(3, size=2)
    conditionals = [
        law.conditional(pair[i], t, ORDER)[pair[i].reshape(-1)[t]]
        for i, t in zip(shuffled, position, strict=True)
    ]
    return -float(np.log2(conditionals).sum())


@pytest.mark.parametrize("positions", ["one", "all"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=6)
def test_no_erratic_adversary_beats_the_source(positions, seed):
    assert expectation(Law(SHAPE, LEVELS, seed % 5), lambda: erratic(LEVELS, seed), positions, seed) <= BOUND


@pytest.mark.parametrize("positions", ["one", "all"])
@pytest.mark.parametrize("seed", range(3))
def test_memory_does_not_help(positions, seed):
    law = Law(SHAPE, LEVELS, seed)
    assert expectation(law, lambda: Remembering(LEVELS), positions, seed) <= BOUND


@pytest.mark.parametrize("positions", ["one", "all"])
def test_who_knows_the_law_pays_its_entropy_and_a_trifle(positions):
    law = Law(SHAPE, LEVELS, 1)
    found = expectation(law, lambda: honest(law, ORDER), positions, 0)
    assert 1 - 1e-4 <= found <= BOUND


def test_refusing_the_images_that_would_be_dear_does_not_help():
    """Asked about the last symbol of an unlikely beginning, this one raises; the source is not beaten."""
    law = Law(SHAPE, LEVELS, 2)

    def answer(x, position):
        told = honest(law, ORDER).answer(x, position)
        if np.isfinite(told).all() and told.max(axis=1).min() < np.log(0.8):
            raise RuntimeError("too hard")
        return told

    assert expectation(law, lambda: Answering(answer), "all", 0) <= BOUND


@pytest.mark.parametrize("positions", ["one", "all"])
def test_knowing_every_decoy_does_not_help(positions):
    """It looks up which decoy it was sent and bets on, or against, what the decoy shows."""
    law, decoys = Law(SHAPE, LEVELS, 3), noise(SHAPE, LEVELS).reshape(-1, 3)

    for bet in (3.0, -3.0):

        def answer(x, position, bet=bet):
            flat = x.reshape(len(x), -1)
            matches = (flat[:, None] == decoys[None]).sum(axis=2).argmax(axis=1)
            shown = decoys[matches, position]
            return bet * np.eye(LEVELS)[shown] + 0.5 * np.eye(LEVELS)[flat[:, ORDER[0]]]

        assert expectation(law, lambda: Answering(answer), positions, 4) <= BOUND


def test_a_respondent_that_could_see_its_symbol_would_break_the_bound():
    """The test's own teeth: with the symbol in sight (decoys equal to the image) the expectation explodes."""
    law = Law(SHAPE, LEVELS, 1)
    frozen = frozen_of(ORDER, SHAPE, LEVELS)

    def answer(x, position):
        return 20.0 * np.eye(LEVELS)[x.reshape(len(x), -1)[np.arange(len(x)), position]]

    total = 0.0
    for x in law.images():
        pair = np.stack([x, x])
        result = score(
            Answering(answer),
            "model",
            frozen,
            pair,
            decoys=pair,
            generator=np.random.default_rng(0),
            positions="all",
        )
        total += law.p(x) * 2.0 ** (law.bits(x) - result.bits[0])
    assert total > 4
