"""Two parties: Σ_x E 2^−S ≤ 1, summed over all images of one pixel and averaged over u and ε."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from dulcourse.referee import flow, latent
from tests.referee.pairs import Party

BOUND = 1 + 2.0**-10 + 0.03  # the cap's trifle, and the noise of the average
COPIES = 20_000  # of each image, every one with its own u and ε
LEVELS, PIXEL = 3, (1, 1, 1)
KEYS = {flow: ("forward", "inverse", "x"), latent: ("encode", "decode", "logits")}


class Stratified(np.random.Generator):
    """Normal numbers that fill their distribution evenly, for accurate averages; nothing is shuffled."""

    def standard_normal(self, size):
        n, k = size
        strata = [(super(Stratified, self).permutation(n) + self.random(n)) / n for _ in range(k)]
        return torch.special.ndtri(torch.from_numpy(np.stack(strata, axis=1))).numpy()

    def permutation(self, n):
        return np.arange(n)


def kraft(family, declare, give_back) -> float:
    """Σ_x E 2^−S(x) for one pixel, which no pair may bring above 1."""
    images = np.repeat(np.arange(LEVELS), COPIES).reshape(-1, *PIXEL)
    checkpoint = save({"w": np.zeros(1)})
    frozen = family.freeze(checkpoint, PIXEL, LEVELS, *([1] if family is latent else []))
    asking, answering, key = KEYS[family]
    first, second = Party(**{asking: declare}), Party(**{answering: lambda z: {key: give_back(z)}})
    asked = family.ask_first(first, "m", frozen, images, generator=Stratified(np.random.PCG64(0)))
    found = family.score(second, "m", frozen, asked, images, generator=Stratified(np.random.PCG64(1)))
    return float((2.0**-found.bits).mean() * LEVELS)


def posterior(mean, log_std):
    return lambda x: {
        "mean": mean(x.reshape(-1, 1)),
        "log_std": np.full((len(x), 1), 0.0) + log_std(x.reshape(-1, 1)),
    }


def bets(strength, image_of):
    """Logits that bet on the image that z is taken for."""
    return lambda z: strength * np.eye(LEVELS)[image_of(z[:, 0])].reshape(-1, LEVELS, *PIXEL)


def thirds(z):
    return np.clip(np.round(z + 1), 0, 2).astype(int)


FLAT = {latent: posterior(lambda x: 0.0 * x, lambda x: 0.0 * x)}  # q is the prior: z says nothing

LATENT_PAIRS = {
    "the prior": (FLAT[latent], bets(0.0, thirds)),
    "honest": (posterior(lambda x: x - 1.0, lambda x: -1.0 + 0.0 * x), bets(3.0, thirds)),
    "narrow": (posterior(lambda x: x - 1.0, lambda x: -8.0 + 0.0 * x), bets(40.0, thirds)),
    "a spike": (posterior(lambda x: x - 1.0, lambda x: -np.inf + 0.0 * x), bets(40.0, thirds)),
    "wide": (posterior(lambda x: x - 1.0, lambda x: 1.5 + 0.0 * x), bets(5.0, thirds)),
    "lying": (posterior(lambda x: 1.0 - x, lambda x: -3.0 + 0.0 * x), bets(40.0, thirds)),
    "NaN for one image": (
        posterior(lambda x: np.where(x == 2, np.nan, x - 1.0), lambda x: -2.0 + 0.0 * x),
        bets(9, thirds),
    ),
    "low bits": (
        posterior(lambda x: x * 2.0**-40, lambda x: 0.0 * x),
        bets(40.0, lambda z: (np.mod(z, 2.0**-38) / 2.0**-40).astype(int) % 3),
    ),
    "grid bits": (
        posterior(lambda x: x * 2.0**-30, lambda x: 0.0 * x),
        bets(40.0, lambda z: np.mod(np.round(z * 2.0**30), 3).astype(int)),
    ),
}


@pytest.mark.parametrize("pair", LATENT_PAIRS.values(), ids=LATENT_PAIRS)
def test_no_pair_of_parties_beats_bits_back(pair):
    assert kraft(latent, *pair) <= BOUND


def test_bits_back_can_be_honest_and_lose_nothing():
    """Where q is the true posterior nothing is lost: the bound is met."""
    assert kraft(latent, *LATENT_PAIRS["the prior"]) == pytest.approx(1.0, abs=1e-3)


def local_map(f, slope):
    return lambda x: {
        "z": f(x.reshape(-1, 1)),
        "jacobian": slope(x.reshape(-1, 1)).reshape(-1, 1, 1),
        "log_det": np.zeros(len(x)),
    }


def back(g):
    return lambda z: g(z).reshape(-1, *PIXEL)


FLAT[flow] = local_map(lambda y: 0.0 * y, lambda y: 1e4 + 0.0 * y)

FLOW_PAIRS = {
    "honest": (local_map(lambda y: y - 1.5, np.ones_like), back(lambda z: z + 1.5)),
    "shrinking": (local_map(lambda y: (y - 1.5) / 50, np.ones_like), back(lambda z: 50 * z + 1.5)),
    "a slope too large": (local_map(lambda y: y - 1.5, lambda y: 9.0 + 0 * y), back(lambda z: z + 1.5)),
    "a slope too small": (local_map(lambda y: y - 1.5, lambda y: 0.2 + 0 * y), back(lambda z: z + 1.5)),
    "no slope": (local_map(lambda y: y - 1.5, np.zeros_like), back(lambda z: z + 1.5)),
    "a fold": (local_map(lambda y: np.abs(y - 1.5), np.ones_like), back(lambda z: np.abs(z) + 1.5)),
    "a jump": (
        local_map(lambda y: np.floor(y) - 1, lambda y: 1e3 + 0 * y),
        back(lambda z: np.round(z) + 1.5),
    ),
    "NaN for some": (
        local_map(lambda y: np.where(y > 2, np.nan, y - 1), np.ones_like),
        back(lambda z: z + 1),
    ),
    "NaN for all z": (FLAT[flow], back(lambda z: np.nan * z)),
    "low bits": (
        local_map(lambda y: y * 2.0**-40, lambda y: 1e4 + 0 * y),
        back(lambda z: np.mod(z, 2.0**-38) * 2.0**40),
    ),
}


@pytest.mark.parametrize("pair", FLOW_PAIRS.values(), ids=FLOW_PAIRS)
def test_no_pair_of_parties_beats_local_bits_back(pair):
    assert kraft(flow, *pair) <= BOUND


@pytest.mark.parametrize("family", [flow, latent], ids=["flow", "latent"])
def test_a_second_party_that_saw_the_images_would_break_the_bound(family):
    """The test's own teeth: one process, which knows the image when it is asked about z."""
    seen = []

    def declare(x):
        seen.append(x)
        return FLAT[family](x)

    def give_back(z):
        return bets(40.0, lambda _: seen[0].reshape(-1))(z) if family is latent else seen[0]

    assert kraft(family, declare, give_back) > 2
