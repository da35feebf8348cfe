"""Homework 3: 100 points, 90 of them measured."""

from pathlib import Path

import numpy as np
import torch

from autograder.rubric import Model, Probe, Problem, Rubric, Threshold, Tier, Written, calibrated_full
from dulcourse import likelihood
from dulcourse.latent import estimators
from dulcourse.latent.distributions import DiagonalGaussian, gaussian_kl, gaussian_log_prob

FOLDER = Path(__file__).parent
GRACE = 0.01  # bits/dim: nobody loses points to the luck of a seed
LATENTS = 8
Draw = dict[str, np.ndarray]


# What functions are asked: arguments by name, drawn outside the wall. Scalars arrive as Python numbers.


def _log_probabilities(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """log p, normalised over the first axis; some entries much less likely than others."""
    logits = generator.normal(size=shape, scale=2.0)
    return logits - np.log(np.exp(logits).sum(axis=0))


def _log_likelihood(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """log p(x | z) of images of many pixels: about −1000 and less, where exp gives zero, or of few."""
    scale = generator.choice([1.0, 30.0])
    column = np.array([-1000.0, -2.0, *generator.choice([-2000.0, -50.0], size=shape[1] - 2)])
    return column - np.abs(generator.normal(size=shape, scale=scale))


def draw_exact(generator: np.random.Generator) -> Draw:
    """Clusters of different weights, images of which some have a likelihood that is zero as a number."""
    clusters, batch = generator.integers(2, 8), generator.integers(2, 5)
    return {
        "log_prior": _log_probabilities(generator, clusters),
        "log_likelihood": _log_likelihood(generator, clusters, batch),
    }


def draw_prior_sampling(generator: np.random.Generator) -> Draw:
    """Draws of clusters for each image, some of them more than once."""
    clusters, batch = generator.integers(2, 8), generator.integers(2, 5)
    return {
        "log_likelihood": _log_likelihood(generator, clusters, batch),
        "z": generator.integers(0, clusters, size=(generator.choice([2, 3, 10]), batch)),
    }


def draw_importance_sampling(generator: np.random.Generator) -> Draw:
    """A prior and a proposal that are both far from uniform, so that leaving one out is seen."""
    drawn = draw_prior_sampling(generator)
    clusters, batch = drawn["log_likelihood"].shape
    return {
        "log_prior": _log_probabilities(generator, clusters),
        "log_likelihood": drawn["log_likelihood"],
        "log_proposal": _log_probabilities(generator, clusters, batch),
        "z": drawn["z"],
    }


def draw_log_w(generator: np.random.Generator) -> Draw:
    """Log-weights of several draws: nearly equal, or one far above the others; some all below e^−1000."""
    samples, batch = generator.choice([2, 3, 5, 12]), generator.integers(2, 5)
    return {"log_w": _log_likelihood(generator, samples, batch)}


def draw_score_gradient(generator: np.random.Generator) -> Draw:
    """Values far from zero, and standard deviations far from one."""
    samples, latents = generator.integers(2, 7), generator.integers(1, 5)
    return {
        "log_std": generator.uniform(-3.0, 2.0, size=latents),
        "noise": generator.normal(size=(samples, latents)),
        "values": generator.normal(size=samples, scale=3.0) - 40.0,
        "baseline": generator.normal(size=samples) - 40.0,
    }


def draw_values(generator: np.random.Generator) -> Draw:
    """Few values, so that one of them weighs in the mean."""
    return {"values": generator.normal(size=generator.integers(2, 7), scale=3.0) - 40.0}


def draw_pathwise_gradient(generator: np.random.Generator) -> Draw:
    """Slopes that differ from draw to draw and from latent to latent."""
    samples, latents = generator.integers(2, 7), generator.integers(1, 5)
    return {
        "log_std": generator.uniform(-3.0, 2.0, size=latents),
        "noise": generator.normal(size=(samples, latents)),
        "slopes": generator.normal(size=(samples, latents), scale=2.0),
    }


def draw_posterior(generator: np.random.Generator) -> Draw:
    """Any mean; log σ from much below the prior's to above it, where log σ and log σ² differ most."""
    shape = generator.integers(2, 5), generator.integers(1, 7)
    return {
        "mean": generator.normal(size=shape, scale=1.5),
        "log_std": generator.uniform(-4.0, 1.5, size=shape),
    }


def draw_reparameterise(generator: np.random.Generator) -> Draw:
    """Mean, log σ and noise of one shape."""
    drawn = draw_posterior(generator)
    return {**drawn, "noise": generator.normal(size=drawn["mean"].shape)}


def _decoded(generator: np.random.Generator, batch: int) -> Draw:
    """Logits that are not normalised, and images; shapes vary, so that D cannot be a constant."""
    levels, shape = generator.integers(2, 6), ((1, 3, 4), (3, 2, 2), (1, 1, 2))[generator.integers(3)]
    return {
        "logits": generator.normal(size=(batch, levels, *shape), scale=2.0) + 3.0,
        "x": generator.integers(0, levels, size=(batch, *shape)),
    }


def draw_elbo(generator: np.random.Generator) -> Draw:
    """Often another number of latents than of pixels, and a β that is not one."""
    posterior = draw_posterior(generator)
    decoded = _decoded(generator, len(posterior["mean"]))
    return {**decoded, **posterior, "beta": np.asarray(generator.choice([1.0, 0.25, 4.0]))}


def draw_log_weight(generator: np.random.Generator) -> Draw:
    """z that q finds likely: noise of order one away from the mean."""
    drawn = draw_reparameterise(generator)
    z = drawn["mean"] + np.exp(drawn["log_std"]) * drawn.pop("noise")
    return {**_decoded(generator, len(z)), "z": z, **drawn}


# What they should answer.


def exact_log_prob(log_prior: np.ndarray, log_likelihood: np.ndarray) -> np.ndarray:
    """log Σ_z p(z) p(x | z)."""
    return np.logaddexp.reduce(log_prior[:, None] + log_likelihood, axis=0)


def prior_sampling(log_likelihood: np.ndarray, z: np.ndarray) -> np.ndarray:
    """log (1/K) Σ_k p(x | z_k)."""
    return iwae_bound(np.take_along_axis(log_likelihood, z, axis=0))


def importance_sampling(log_prior, log_likelihood, log_proposal, z) -> np.ndarray:
    """log (1/K) Σ_k p(z_k) p(x | z_k) / q(z_k | x)."""
    return prior_sampling(log_prior[:, None] + log_likelihood - log_proposal, z)


def effective_samples(log_w: np.ndarray) -> np.ndarray:
    """(Σ w)² / Σ w² of dulcourse."""
    return estimators.summarise(torch.from_numpy(log_w)).effective.numpy()


def score_gradient(log_std, noise, values, baseline) -> tuple[np.ndarray, np.ndarray]:
    """(f − b) ∇ log q, for μ and for log σ."""
    centred = (values - baseline)[:, None]
    return centred * noise / np.exp(log_std), centred * (noise**2 - 1)


def leave_one_out(values: np.ndarray) -> np.ndarray:
    """The mean of the others."""
    return np.array([np.delete(values, k).mean() for k in range(len(values))])


def pathwise_gradient(log_std, noise, slopes) -> tuple[np.ndarray, np.ndarray]:
    """∂f/∂z times ∂z/∂μ and ∂z/∂log σ."""
    return slopes, slopes * np.exp(log_std) * noise


def kl(mean: np.ndarray, log_std: np.ndarray) -> np.ndarray:
    """The closed form of dulcourse, in float64."""
    return gaussian_kl(torch.from_numpy(mean), torch.from_numpy(log_std)).numpy()


def reparameterise(mean: np.ndarray, log_std: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """μ + σε."""
    return mean + np.exp(log_std) * noise


def elbo(logits, x, mean, log_std, beta) -> np.ndarray:
    """log p(x | z) − β KL."""
    return _log_likelihood_of(logits, x) - beta * kl(mean, log_std)


def log_weight(logits, x, z, mean, log_std) -> np.ndarray:
    """log p(z) + log p(x | z) − log q(z | x)."""
    q = DiagonalGaussian(torch.from_numpy(mean), torch.from_numpy(log_std))
    z = torch.from_numpy(z)
    return _log_likelihood_of(logits, x) + (gaussian_log_prob(z) - q.log_prob(z)).numpy()


def _log_likelihood_of(logits: np.ndarray, x: np.ndarray) -> np.ndarray:
    return likelihood.log_prob(torch.from_numpy(logits), torch.from_numpy(x)).numpy()


def iwae_bound(log_w: np.ndarray) -> np.ndarray:
    """log (1/K) Σ w of dulcourse."""
    return estimators.log_mean_exp(torch.from_numpy(log_w)).numpy()


def iwae_weights(log_w: np.ndarray) -> np.ndarray:
    """w / Σ w."""
    return np.exp(log_w - np.logaddexp.reduce(log_w, axis=0))


ESTIMATORS = Problem(
    name="estimators",
    title="1. A sum over what was not seen",
    withheld=("dulcourse.latent.estimators", "dulcourse.latent.linear_gaussian", "dulcourse.latent.mixture"),
    items=(
        Probe(
            function="exact_log_prob",
            draw=draw_exact,
            reference=exact_log_prob,
            points=5,
            hint="log Σ_z exp(log p(z) + log p(x | z)) by logsumexp over the clusters (axis 0): as a number "
            "exp(−1000) is 0, and the logarithm of 0 is −∞.",
        ),
        Probe(
            function="prior_sampling",
            draw=draw_prior_sampling,
            reference=prior_sampling,
            points=5,
            hint="The mean of probabilities, not of their logarithms, without leaving log space: logsumexp "
            "over the draws (axis 0) less log K. The prior is not in it: z was drawn from it.",
        ),
        Probe(
            function="importance_sampling",
            draw=draw_importance_sampling,
            reference=importance_sampling,
            points=6,
            hint="log w = log p(z) + log p(x | z) − log q(z | x), each looked up at the clusters z that were "
            "drawn; then logsumexp over the draws (axis 0) less log K.",
        ),
        Probe(
            function="effective_samples",
            draw=draw_log_w,
            reference=effective_samples,
            points=4,
            hint="From 1 to K. Weights may be multiplied by anything: divide by their sum first (softmax "
            "over the draws), then one over the sum of squares is left.",
        ),
    ),
)

GRADIENTS = Problem(
    name="gradients",
    title="2. The gradient of an expectation",
    withheld=("dulcourse.latent.gradients",),
    items=(
        Probe(
            function="score_gradient",
            draw=draw_score_gradient,
            reference=score_gradient,
            points=6,
            hint="A pair, each [samples, latents]: (f − b)·ε/σ for μ, (f − b)·(ε² − 1) for log σ, with f − b "
            "the same for all latents of a draw, and no mean over the draws.",
        ),
        Probe(
            function="leave_one_out",
            draw=draw_values,
            reference=leave_one_out,
            points=3,
            hint="The mean of the other K − 1 values: with its own value in it, a baseline depends on the "
            "draw and biases the gradient.",
        ),
        Probe(
            function="pathwise_gradient",
            draw=draw_pathwise_gradient,
            reference=pathwise_gradient,
            points=6,
            hint="By the chain rule through z = μ + σε: ∂z/∂μ = 1, and ∂z/∂log σ = σε (not ε, and not σ).",
        ),
    ),
)


def _model(name: str, points: float) -> Model:
    return Model(
        name=name,
        family="latent",
        data="glyphs",
        options={"size": 8, "levels": 4},
        shape=(1, 8, 8),
        levels=4,
        latents=LATENTS,
        reference=name,
        points=points,
    )


AUTOENCODER = Problem(
    name="vae",
    title="3. Variational autoencoder",
    # The notebook brings a base class of its own, made of the student's functions.
    withheld=tuple(f"dulcourse.latent.{module}" for module in ("base", "distributions", "inference", "vae")),
    items=(
        Probe(
            function="gaussian_kl",
            draw=draw_posterior,
            reference=kl,
            points=5,
            hint="½(μ² + σ² − 1) − log σ, summed over the latents (no mean), with σ² = exp(2·log_std); it is "
            "0 at μ = 0, log σ = 0, and positive everywhere else.",
        ),
        Probe(
            function="reparameterise",
            draw=draw_reparameterise,
            reference=reparameterise,
            points=2,
            hint="μ + σε with σ = exp(log_std): log_std is log σ, not log σ² (no ½).",
        ),
        Probe(
            function="elbo",
            draw=draw_elbo,
            reference=elbo,
            points=4,
            hint="log p(x | z) − β KL in nats: minus the cross-entropy summed over channels and pixels, and "
            "minus (not plus) β times the KL summed over the latents.",
        ),
        Probe(
            function="log_weight",
            draw=draw_log_weight,
            reference=log_weight,
            points=4,
            hint="log p(z) + log p(x | z) − log q(z | x): both normals with their −½ log 2π a latent, and q "
            "with −log σ; log p(x | z) is summed over channels and pixels.",
        ),
        _model("vae", points=20),
    ),
)

IWAE = Problem(
    name="iwae",
    title="4. Many samples, a tighter bound",
    withheld=("dulcourse.latent.bounds",),
    items=(
        Probe(
            function="iwae_bound",
            draw=draw_log_w,
            reference=iwae_bound,
            points=5,
            hint="The log of a mean of weights, not the mean of their logs (that is the ELBO): logsumexp "
            "over the draws (axis 0) less log K.",
        ),
        Probe(
            function="iwae_weights",
            draw=draw_log_w,
            reference=iwae_weights,
            points=5,
            hint="softmax of +log w over the draws (axis 0): the draw with the largest w gets the most. A "
            "softmax of losses, −log w, follows the worst.",
        ),
        _model("iwae", points=10),
    ),
)

WRITTEN = Problem(name="written", title="In words", items=(Written(cell="written", points=10),))


def thresholds(tier: str) -> dict[str, Threshold]:
    """Full points at the reference's own spread over seeds; none where z says next to nothing.

    Pixels taken for independent cost about 0.2 more than the reference in the smoke tier, 0.24 in the others.
    """
    none = 0.16 if tier == "smoke" else 0.2
    return {
        model: Threshold(
            full=calibrated_full(FOLDER, model, tier, otherwise=0.02) + GRACE,
            none=none,
            images=2048 if tier == "smoke" else 4096,
        )
        for model in ("vae", "iwae")
    }


rubric = Rubric(
    name="hw3_latent",
    title="Homework 3. Latent-variable models",
    folder=FOLDER,
    problems=(ESTIMATORS, GRADIENTS, AUTOENCODER, IWAE, WRITTEN),
    tiers={
        "smoke": Tier(seconds=60, memory_gib=2.0, thresholds=thresholds("smoke")),
        "cpu": Tier(seconds=600, thresholds=thresholds("cpu")),
        "gpu": Tier(seconds=600, memory_gib=16.0, thresholds=thresholds("gpu")),
    },
)
