# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] nbgrader={"grade": false, "grade_id": "title", "locked": true, "schema_version": 3, "solution": false, "task": false}
# # Homework 3. Latent-variable models
#
# You will estimate a likelihood that nobody can add up, differentiate through a random draw, and train two models
# that paint a whole glyph at once from eight random numbers. All of it is judged by the same unit as before:
# **bits**.
#
# | problem | you write | points |
# |---|---|---|
# | 1. A sum over what was not seen | exact, prior and importance sampling, in log space | 20 |
# | 2. The gradient of an expectation | two estimators of one gradient, and a baseline | 15 |
# | 3. Variational autoencoder | the bound and its KL term, a model with eight latents | 35 |
# | 4. Many samples, a tighter bound | the importance-weighted bound, a model trained with it | 20 |
# | In words | what the bounds bound, and a mistake worth recognising (graded by hand) | 10 |
#
# **How to work.** Fill in every `# YOUR CODE HERE`. Keep the names of functions and classes, and do not edit or
# delete the other cells (the grader restores them); new cells of your own are welcome. `handin.check("…")` at the end
# of each problem runs the grader's own checks on public examples and says in words what is wrong; call it in a cell
# of your own as often as you like. A problem that is not solved yet says so and stops nobody, and an error in one
# problem costs that problem only. (The library's own latent-variable models are put away while your homework is
# graded: what they do is what you are asked to write.)
#
# **How it is scored.** Functions are called on inputs that you have not seen, and their answers compared with ours. A
# model is scored in bits per dimension on fresh images that nobody has seen, drawn when your homework is graded: full
# points at the level of our own model of the same size and training, falling in a straight line to none. The referee
# reads neither what your notebook prints nor the bound that it computes. It plays a message through your model, in
# two halves that cannot talk to each other:
#
# 1. your **encoder** gets the images and answers with the mean $\mu$ and $\log\sigma$ of each $q(z \mid x)$; then it
#    is shut down;
# 2. the referee draws $z = \mu + \sigma\varepsilon$ itself, and your **decoder**, started anew from your saved
#    weights, gets $z$ and nothing else.
#
# An image is charged $\log_2 q(z \mid x) - \log_2 p(z) - \log_2 p(x \mid z)$ bits, which is what your own bound
# should say on average. So whatever your encoder tells your decoder it must say in $z$, and every bit of it is paid
# for.
#
# **Shapes and units.** Images `x` are int64 `[batch, 1, 8, 8]` with levels 0 to 3. Where there are several draws for
# each image they come first: `[samples, batch]`. Every probability is a natural logarithm, in nats, until the last
# line.
#
# **Time.** The whole notebook has ten minutes on one CPU core; our solution takes about two. What was handed in
# before the time is up is scored.

# %% nbgrader={"grade": false, "grade_id": "parameters", "locked": true, "schema_version": 3, "solution": false, "task": false} tags=["parameters"]
# The grader sets these itself: write nothing here. A good model does not depend on its seed.
seed = 0
device = "cpu"
tier = "cpu"  # "smoke": seconds, to see that everything runs; "cpu": minutes; "gpu": with a GPU

# %% nbgrader={"grade": false, "grade_id": "setup", "locked": true, "schema_version": 3, "solution": false, "task": false}
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

from dulcourse import data, handin, likelihood, plotting, training

handin.begin("hw3_latent")

# Sizes that suffice for full points in each tier. You may choose your own; the time limit stays.
STEPS = {
    "smoke": {"warm_up": 100, "vae": 400, "iwae": 200},
    "cpu": {"warm_up": 500, "vae": 2500, "iwae": 2000},
    "gpu": {"warm_up": 500, "vae": 2500, "iwae": 2000},
}[tier]
LEARNING_RATE = 1e-2 if tier == "smoke" else 4e-3
HIDDEN, BATCH = 128, 128
IMAGES = {"train": 2048 if tier == "smoke" else 8192, "validation": 1024}

# Part of the homework: not yours to choose.
LATENTS = 8

# The grader runs the notebook twice, and the second time only loads what was trained: no pictures then.
pictures = handin.session.mode == "train"


def fresh_generator() -> torch.Generator:
    """A generator that starts from `seed`: draw from your own, and a cell gives the same result when it is run again."""
    return torch.Generator().manual_seed(seed)


glyphs = {split: data.load("glyphs", split, size=8, levels=4, n=n) for split, n in IMAGES.items()}
print({split: tuple(part.x.shape) for split, part in glyphs.items()})
if pictures:
    display(plotting.show_images(glyphs["train"].x[:16], levels=4))

# %% [markdown] nbgrader={"grade": false, "grade_id": "estimators-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "estimators"}
# ## Problem 1. A sum over what was not seen
#
# A latent-variable model says how an image comes about: first something that nobody sees is drawn, $z \sim p(z)$,
# then the image, $x \sim p(x \mid z)$, whose pixels may all be drawn at once because $z$ has settled what they have
# in common. What we want to know, and what a code pays for, is the probability of the image alone:
#
# $$ p(x) = \sum_z p(z)\, p(x \mid z). $$
#
# ### Exactly, where $z$ has few values
#
# Take a $z$ with $C$ values, "clusters". Then the sum can simply be done. But not with numbers: an image has many
# pixels, so $p(x \mid z)$ is a product of many factors below one, easily $e^{-1000}$, and the smallest positive
# number of a computer is about $e^{-745}$. Everything stays a logarithm, and sums are taken by
# $\operatorname{logsumexp}_z a_z = \log \sum_z e^{a_z}$, which `torch.logsumexp` computes without ever leaving log
# space.
#
# **Write `exact_log_prob(log_prior, log_likelihood)`** for `log_prior` $= \log p(z)$, `[clusters]`, and
# `log_likelihood` $= \log p(x \mid z)$, `[clusters, batch]`: the table has a column for each image. Result:
# $\log p(x)$, `[batch]`.


# %% nbgrader={"grade": false, "grade_id": "exact-log-prob", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "estimators"}
def exact_log_prob(log_prior: torch.Tensor, log_likelihood: torch.Tensor) -> torch.Tensor:
    """log Σ_z p(z) p(x | z), float [batch], for log p(z) [clusters] and log p(x | z) [clusters, batch]."""
    ### BEGIN SOLUTION
    return torch.logsumexp(log_prior[:, None] + log_likelihood, dim=0)
    ### END SOLUTION


# %% [markdown] nbgrader={"grade": false, "grade_id": "sampling-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "estimators"}
# ### By drawing from the prior
#
# Where $z$ has too many values to list, the sum is an expectation, $p(x) = \mathbb{E}_{z \sim p(z)}[p(x \mid z)]$,
# and an expectation is estimated by a mean over draws $z_1, \dots, z_K \sim p(z)$:
#
# $$ p(x) \approx \frac{1}{K} \sum_{k=1}^{K} p(x \mid z_k). $$
#
# **Write `prior_sampling(log_likelihood, z)`**: the logarithm of this mean, `[batch]`, for `z` int64
# `[samples, batch]` that has already been drawn from the prior, $K$ = `samples` for each image. `table.gather(0, z)`
# looks up, in column $n$ of `table`, the rows `z[:, n]`. Mind what you average: the mean of $p$, not of $\log p$.
#
# ### By drawing where it matters
#
# Most draws from the prior explain some other image and contribute next to nothing. So draw from a **proposal**
# $q(z \mid x)$ that knows the image, and correct for having done so:
#
# $$ p(x) = \mathbb{E}_{z \sim q(z \mid x)}\!\left[ \frac{p(z)\, p(x \mid z)}{q(z \mid x)} \right]
#         \approx \frac{1}{K} \sum_{k=1}^{K} w_k, \qquad w_k = \frac{p(z_k)\, p(x \mid z_k)}{q(z_k \mid x)}. $$
#
# The best proposal is the posterior $p(z \mid x)$: then every $w_k$ is exactly $p(x)$, and one draw would do. How far
# we are from that is seen in the weights themselves. If all are equal, $K$ draws are worth $K$; if one is far above
# all others, they are worth one. In between counts the **effective sample size**
# $\left(\sum_k w_k\right)^2 / \sum_k w_k^2$.
#
# **Write `importance_sampling(log_prior, log_likelihood, log_proposal, z)`** for `log_proposal` $= \log q(z \mid x)$,
# `[clusters, batch]`, and `z` drawn from it, `[samples, batch]`; and **write `effective_samples(log_w)`** for
# $\log w$ `[samples, batch]`. Both return `[batch]`, and both must survive weights that are zero as numbers.
# (Multiplying all $w_k$ by the same number does not change the effective sample size.)


# %% nbgrader={"grade": false, "grade_id": "sampling", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "estimators"}
def prior_sampling(log_likelihood: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """log (1/K) Σ_k p(x | z_k), [batch], for log p(x | z) [clusters, batch] and z [K, batch] drawn from p(z)."""
    ### BEGIN SOLUTION
    return torch.logsumexp(log_likelihood.gather(0, z), dim=0) - math.log(len(z))
    ### END SOLUTION


def importance_sampling(
    log_prior: torch.Tensor, log_likelihood: torch.Tensor, log_proposal: torch.Tensor, z: torch.Tensor
) -> torch.Tensor:
    """log (1/K) Σ_k p(z_k) p(x | z_k) / q(z_k | x), [batch], for z [K, batch] drawn from q = exp(log_proposal)."""
    ### BEGIN SOLUTION
    log_w = log_prior[z] + log_likelihood.gather(0, z) - log_proposal.gather(0, z)
    return torch.logsumexp(log_w, dim=0) - math.log(len(z))
    ### END SOLUTION


def effective_samples(log_w: torch.Tensor) -> torch.Tensor:
    """(Σ_k w_k)² / Σ_k w_k², from 1 to K, [batch], for log w [K, batch]."""
    ### BEGIN SOLUTION
    w = torch.softmax(log_w, dim=0)  # the weights over their sum
    return 1 / w.square().sum(0)
    ### END SOLUTION


# %% [markdown] nbgrader={"grade": false, "grade_id": "estimators-look-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "estimators"}
# ### Look at it
#
# A model whose likelihood we can check: a cluster for each of 512 training glyphs, $p(z) = 1/512$, and pixels that
# are likely to have the level of their cluster's glyph or one close to it. The proposal looks at the upper half of an
# image only, and sometimes (one draw in ten) not at all, so that no cluster is impossible.


# %% nbgrader={"grade": false, "grade_id": "estimators-figure", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "estimators"}
def cluster_log_likelihood(x: torch.Tensor, glyph: torch.Tensor) -> torch.Tensor:
    """log p(x_i | z) of every pixel, [clusters, batch, H, W]: p falls by e for each level of difference."""
    levels = torch.arange(4, dtype=torch.float64)
    table = F.log_softmax(-(levels[:, None] - levels).abs(), dim=1)  # log p(level | level of the glyph)
    return table[glyph[:, None, 0], x[None, :, 0]]


def draw(log_p: torch.Tensor, samples: int, generator: torch.Generator) -> torch.Tensor:
    """z [samples, batch] with probabilities exp(log_p), [clusters, batch]."""
    return torch.multinomial(log_p.T.exp(), samples, replacement=True, generator=generator).T


def estimates(samples: int, repeats: int = 50) -> dict[str, torch.Tensor]:
    """What each method makes of log p(x), less its exact value: nats, one number for each image and repeat."""
    generator = fresh_generator()
    table, proposal = log_likelihood.repeat(1, repeats), log_proposal.repeat(1, repeats)
    exact = exact_log_prob(log_prior, table)
    z = {
        "prior": draw(log_prior[:, None].expand_as(table), samples, generator),
        "proposal": draw(proposal, samples, generator),
    }
    return {
        "draws from the prior": prior_sampling(table, z["prior"]) - exact,
        "draws from the proposal": importance_sampling(log_prior, table, proposal, z["proposal"]) - exact,
    }


if pictures:
    pixels = cluster_log_likelihood(glyphs["validation"].x[:16], glyphs["train"].x[:512])
    log_likelihood = pixels.sum((2, 3))
    log_prior = torch.full((512,), -math.log(512), dtype=torch.float64)
    informed = F.log_softmax(pixels[:, :, :4].sum((2, 3)), dim=0)
    log_proposal = torch.logaddexp(informed + math.log(0.9), log_prior[:, None] + math.log(0.1))
    try:
        bits = likelihood.bits_per_dim(exact_log_prob(log_prior, log_likelihood), 64).mean()
        print(f"exactly: {bits:.3f} bits/dim; a uniform guess costs 2")
        numbers = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
        errors = [estimates(samples) for samples in numbers]
        with plotting.style():
            figure, axes = plt.subplots()
            for method, colour in zip(errors[0], ("orange", "blue"), strict=True):
                low, middle, high = ([float(e[method].quantile(q)) for e in errors] for q in (0.1, 0.5, 0.9))
                colour = plotting.COLOURS[colour]
                axes.fill_between(numbers, low, high, color=colour, alpha=0.2, linewidth=0)
                axes.plot(numbers, middle, color=colour, label=f"{method} (80 % lie in the band)")
            axes.axhline(0, color=plotting.COLOURS["black"], linewidth=1, label="the exact value")
            axes.set(xscale="log", xlabel="number of draws K", ylabel="error of log p(x) in nats")
            axes.legend(loc="lower right")
        plt.show()
    except NotImplementedError:
        print("the estimators are not written yet.")

# %% [markdown] nbgrader={"grade": false, "grade_id": "estimators-graded-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "estimators"}
# Both methods are right *on average*, as long as one averages probabilities. Their logarithms are too low on average,
# because the logarithm is concave: a few lucky draws cannot make up for many unlucky ones. Remember this band that
# reaches up to the exact value from below. In problems 3 and 4 it becomes something to maximise.

# %% nbgrader={"grade": true, "grade_id": "estimators-graded", "locked": true, "points": 20, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "estimators"}
handin.check("estimators")

# %% [markdown] nbgrader={"grade": false, "grade_id": "gradients-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "gradients"}
# ## Problem 2. The gradient of an expectation
#
# To make a proposal good we will have to move it, so we need derivatives of
# $J(\mu, \log\sigma) = \mathbb{E}_{z \sim q}[f(z)]$ with respect to the parameters of the distribution that $z$ is
# drawn from. Let $q = \mathcal{N}(\mu, \operatorname{diag}\sigma^2)$ over $d$ latents, and let draws be made as
# $z_k = \mu + \sigma \varepsilon_k$ with $\varepsilon_k \sim \mathcal{N}(0, I)$. There are two ways.
#
# **The score function** (also: likelihood ratio, REINFORCE) differentiates the density and leaves $f$ alone:
#
# $$ \nabla J = \int f(z)\, \nabla q(z)\, dz = \mathbb{E}_{z \sim q}\big[ (f(z) - b)\, \nabla \log q(z) \big]. $$
#
# The baseline $b$ changes nothing on average, because $\mathbb{E}[\nabla \log q] = \nabla \int q = 0$, as long as it
# does not depend on this draw. For our $q$, elementwise over the latents, and with $z - \mu = \sigma\varepsilon$,
#
# $$ \nabla_{\mu} \log q(z) = \frac{z - \mu}{\sigma^2} = \frac{\varepsilon}{\sigma}, \qquad \nabla_{\log\sigma} \log q(z) = \varepsilon^2 - 1. $$
#
# **Write `score_gradient(log_std, noise, values, baseline)`** for `log_std` $= \log\sigma$ `[latents]`, `noise`
# $= \varepsilon_k$ `[samples, latents]`, `values` $= f(z_k)$ and `baseline` $= b_k$, both `[samples]`. It returns a
# pair, each part `[samples, latents]`: *every draw's own* estimate of $\nabla_\mu J$ and of $\nabla_{\log \sigma} J$.
# (Their mean over the draws is what one would step along; we want to see how they spread.)
#
# **Write `leave_one_out(values)`**, a baseline that is free: $b_k$ is the mean of the *other* $K-1$ values,
# `[samples]`, for $K \ge 2$. (With its own value in it, it would depend on the draw, and pull every estimate towards
# zero.)
#
# **Reparameterisation** differentiates $f$ and leaves the density alone: $\varepsilon$ has a distribution without
# parameters, so
# $\nabla \mathbb{E}_\varepsilon[f(\mu + \sigma\varepsilon)] = \mathbb{E}_\varepsilon[\nabla f(\mu + \sigma\varepsilon)]$,
# and by the chain rule
#
# $$ \nabla_{\mu} = \frac{\partial f}{\partial z}, \qquad \nabla_{\log\sigma} = \frac{\partial f}{\partial z}\, \sigma\, \varepsilon. $$
#
# **Write `pathwise_gradient(log_std, noise, slopes)`** for `slopes` $= \partial f/\partial z$ at each $z_k$,
# `[samples, latents]`; the same pair.


# %% nbgrader={"grade": false, "grade_id": "gradients", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "gradients"}
def score_gradient(
    log_std: torch.Tensor, noise: torch.Tensor, values: torch.Tensor, baseline: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(f(z_k) − b_k) ∇ log q(z_k) for μ and for log σ, each [samples, latents]."""
    ### BEGIN SOLUTION
    centred = (values - baseline)[:, None]
    return centred * noise * torch.exp(-log_std), centred * (noise.square() - 1)
    ### END SOLUTION


def leave_one_out(values: torch.Tensor) -> torch.Tensor:
    """The mean of the other values, for each: [samples] for f(z_k) [samples]."""
    ### BEGIN SOLUTION
    return (values.sum() - values) / (len(values) - 1)
    ### END SOLUTION


def pathwise_gradient(
    log_std: torch.Tensor, noise: torch.Tensor, slopes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """∂f/∂z · ∂z/∂μ and ∂f/∂z · ∂z/∂log σ at each draw, each [samples, latents], for ∂f/∂z [samples, latents]."""
    ### BEGIN SOLUTION
    return slopes, slopes * torch.exp(log_std) * noise
    ### END SOLUTION


# %% [markdown] nbgrader={"grade": false, "grade_id": "gradients-look-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "gradients"}
# ### Look at it
#
# How much a single draw's estimate of $\partial J / \partial \mu_1$ is off, for two functions. Left:
# $f(z) = -\tfrac12 \sum_j (z_j - 1)^2$, with ever more latents. The score function hears of all latents at once and
# cannot tell whose fault $f$ is; the baseline takes away a constant, and reparameterisation asks each latent
# separately. Right: $f(z) = \cos(\omega z)$, one latent, ever faster waves. Here a derivative says little about what
# happens a step further on, and the order is the other way round. A trained network is smooth at the scale of
# $\sigma$, which is why the next problem can rely on reparameterisation.


# %% nbgrader={"grade": false, "grade_id": "gradients-figure", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "gradients"}
def spreads(f, latents: int, samples: int = 4096) -> dict[str, float]:
    """Standard deviation over draws of each estimate of ∂J/∂μ₁ at μ = 0, σ = 1."""
    noise = torch.randn(samples, latents, generator=fresh_generator(), dtype=torch.float64)
    z = noise.clone().requires_grad_()
    values = f(z)
    slopes = torch.autograd.grad(values.sum(), z)[0]
    values, log_std = values.detach(), torch.zeros(latents, dtype=torch.float64)
    found = {
        "score function": score_gradient(log_std, noise, values, torch.zeros_like(values)),
        "with a baseline": score_gradient(log_std, noise, values, leave_one_out(values)),
        "reparameterised": pathwise_gradient(log_std, noise, slopes),
    }
    return {name: float(gradient[0][:, 0].std()) for name, gradient in found.items()}


if pictures:
    try:
        sizes, waves = [1, 2, 4, 8, 16, 32, 64], [0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8]
        bowl = [spreads(lambda z: -0.5 * (z - 1).square().sum(1), d) for d in sizes]
        wave = [spreads(lambda z, w=w: torch.cos(w * z[:, 0]), 1) for w in waves]
        with plotting.style():
            figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
            for name in bowl[0]:
                panels[0].plot(sizes, [found[name] for found in bowl], "o-", label=name)
                panels[1].plot(waves, [found[name] for found in wave], "o-", label=name)
            panels[0].set(xscale="log", yscale="log", xlabel="number of latents", ylabel="standard deviation")
            panels[1].set(yscale="log", xlabel="frequency ω of the wave")
            panels[0].legend()
        plt.show()
    except NotImplementedError:
        print("the gradients are not written yet.")

# %% nbgrader={"grade": true, "grade_id": "gradients-graded", "locked": true, "points": 15, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "gradients"}
handin.check("gradients")

# %% [markdown] nbgrader={"grade": false, "grade_id": "vae-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "vae"}
# ## Problem 3. Variational autoencoder
#
# Now the latents are eight real numbers with $p(z) = \mathcal{N}(0, I)$, and a network, the **decoder**, turns them
# into the probabilities of all pixels, $p(x \mid z) = \prod_i p(x_i \mid z)$. The integral
# $p(x) = \int p(z)\, p(x \mid z)\, dz$ cannot be done. So we take what problem 1 taught: draw from a proposal that
# knows the image. A second network, the **encoder**, gives one for every image,
# $q(z \mid x) = \mathcal{N}(\mu(x), \operatorname{diag} \sigma(x)^2)$.
#
# ### One bound, two ways to see it
#
# With $w = p(z)\, p(x \mid z) / q(z \mid x)$ and the concave logarithm (Jensen),
#
# $$ \log p(x) = \log \mathbb{E}_{z \sim q}[w] \;\ge\; \mathbb{E}_{z \sim q}[\log w] =: \mathrm{ELBO}(x). $$
#
# What is lost is exactly how wrong the proposal is: put $p(z)\, p(x \mid z) = p(x)\, p(z \mid x)$ into $w$ to find
# $\mathrm{ELBO}(x) = \log p(x) - \mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x))$. So maximising it over the decoder
# makes data likely, and over the encoder makes the proposal right. Sorted the other way,
#
# $$ \mathrm{ELBO}(x) = \underbrace{\mathbb{E}_{z \sim q}[\log p(x \mid z)]}_{\text{reconstruction}} - \underbrace{\mathrm{KL}\big(q(z \mid x) \,\|\, p(z)\big)}_{\text{what } z \text{ costs}}, \qquad
#    \mathrm{KL} = \sum_{j} \tfrac12 \left( \mu_j^2 + \sigma_j^2 - 1 \right) - \log \sigma_j . $$
#
# The KL between two Gaussians needs no draws, so this form has less noise. As a message: $\mathrm{KL}$ is what it
# takes to send $z$ just precisely enough, and the reconstruction term is what it takes to correct the picture that
# $z$ makes. **Both are sums**: over the 64 pixels, and over the 8 latents. (Whoever takes the mean of one and the sum
# of the other trains a different model, and finds out from the referee.)
#
# **Write four functions**, `[batch]` or as said, in nats:
#
# - `gaussian_kl(mean, log_std)` for `mean` and `log_std` $= \log\sigma$, each `[batch, latents]`. Not $\log\sigma^2$,
#   as in some papers.
# - `reparameterise(mean, log_std, noise)`: $z = \mu + \sigma\varepsilon$, for noise of the shape of the mean.
# - `elbo(logits, x, mean, log_std, beta)`: $\log p(x \mid z) - \beta\, \mathrm{KL}$, for `logits`
#   `[batch, levels, C, H, W]` of one $z$ for each image and `x` int64 `[batch, C, H, W]`. At $\beta = 1$ it is the
#   bound; what another $\beta$ is good for comes below.
# - `log_weight(logits, x, z, mean, log_std)`: $\log w = \log p(z) + \log p(x \mid z) - \log q(z \mid x)$ at this very
#   $z$ `[batch, latents]`, with both densities in full, constants included. This is, up to its sign and unit, what
#   the referee charges, and on average the same as the ELBO.


# %% nbgrader={"grade": false, "grade_id": "bound", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "vae"}
def gaussian_kl(mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """KL(N(μ, diag σ²) ‖ N(0, I)) in nats, [batch], for μ and log σ [batch, latents]."""
    ### BEGIN SOLUTION
    return (0.5 * (mean.square() + torch.exp(2 * log_std) - 1) - log_std).sum(1)
    ### END SOLUTION


def reparameterise(mean: torch.Tensor, log_std: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """z = μ + σε, [batch, latents]."""
    ### BEGIN SOLUTION
    return mean + torch.exp(log_std) * noise
    ### END SOLUTION


def elbo(
    logits: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, log_std: torch.Tensor, beta: float
) -> torch.Tensor:
    """log p(x | z) − β KL(q(z | x) ‖ N(0, I)) in nats, [batch], for logits [batch, levels, C, H, W] of one z an image."""
    ### BEGIN SOLUTION
    log_likelihood = -F.cross_entropy(logits, x, reduction="none").sum((1, 2, 3))
    return log_likelihood - beta * gaussian_kl(mean, log_std)
    ### END SOLUTION


def log_weight(
    logits: torch.Tensor, x: torch.Tensor, z: torch.Tensor, mean: torch.Tensor, log_std: torch.Tensor
) -> torch.Tensor:
    """log p(z) + log p(x | z) − log q(z | x) in nats, [batch], at this z [batch, latents]."""
    ### BEGIN SOLUTION
    log_likelihood = -F.cross_entropy(logits, x, reduction="none").sum((1, 2, 3))
    log_prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
    noise = (z - mean) * torch.exp(-log_std)
    log_q = -(0.5 * (noise.square() + math.log(2 * math.pi)) + log_std).sum(1)
    return log_prior + log_likelihood - log_q
    ### END SOLUTION


# %% [markdown] nbgrader={"grade": false, "grade_id": "vae-model-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "vae"}
# ### The model
#
# The class below knows what to do with an encoder and a decoder; it calls your functions. The grader asks for
# `shape`, `levels`, `latents`, `encode` and `decode`.


# %% nbgrader={"grade": false, "grade_id": "latent-model", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "vae"}
class LatentModel(nn.Module):
    """p(x) = ∫ N(z; 0, I) p(x | z) dz and q(z | x) = N(mean, diag exp(log_std)²), once there are `encode` and `decode`."""

    def __init__(self, shape: tuple[int, int, int], levels: int, latents: int):
        super().__init__()
        self.shape, self.levels, self.latents = shape, levels, latents

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log standard deviation of q(z | x), each [batch, latents]."""
        raise NotImplementedError

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Logits of every pixel given z, [batch, levels, C, H, W]."""
        raise NotImplementedError

    def noise(self, *sizes: int, generator: torch.Generator) -> torch.Tensor:
        """ε ~ N(0, I), [*sizes, latents]."""
        return torch.randn(*sizes, self.latents, generator=generator, device=generator.device)

    def elbo(self, x: torch.Tensor, noise: torch.Tensor, beta: float = 1.0) -> torch.Tensor:
        """The bound at one z for each image, [batch], for noise [batch, latents]."""
        mean, log_std = self.encode(x)
        return elbo(self.decode(reparameterise(mean, log_std, noise)), x, mean, log_std, beta)

    def log_weight(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """log w at one z for each image, [batch], for noise [batch, latents]."""
        return self.log_weights(x, noise[None])[0]

    def log_weights(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """log w at several z for each image, [samples, batch], for noise [samples, batch, latents]."""
        samples = len(noise)
        mean, log_std = (part.repeat(samples, 1) for part in self.encode(x))
        z = reparameterise(mean, log_std, noise.flatten(0, 1))
        found = log_weight(self.decode(z), x.repeat(samples, 1, 1, 1), z, mean, log_std)
        return found.unflatten(0, (samples, -1))

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator) -> torch.Tensor:
        """n images, int64 [n, C, H, W]: z from the prior, then every pixel from its own distribution."""
        p = self.decode(self.noise(n, generator=generator)).softmax(1).movedim(1, -1)
        drawn = torch.multinomial(p.reshape(-1, self.levels), 1, generator=generator)
        return drawn.reshape(n, *self.shape)


# %% [markdown] nbgrader={"grade": false, "grade_id": "vae-train-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "vae"}
# **Write `VAE`**: a constructor, `encode` and `decode`. Two hidden layers on each side, of `hidden` units with
# `nn.SiLU()` between them, are enough.
#
# - *Encoder:* the pixels `x.flatten(1)`, scaled from $0 \dots L-1$ to $-1 \dots 1$, go in; $2 \cdot$ `latents`
#   numbers come out. `chunk(2, dim=1)` makes two halves of them: the mean, and $\log\sigma$, which may be any number,
#   so nothing needs to be squashed.
# - *Decoder:* `latents` numbers go in, $L \cdot 64$ logits come out; `unflatten(1, (levels, *shape))` brings them to
#   `[batch, levels, C, H, W]`.
#
# Everything the network needs to be the same after it is saved and loaded must be a parameter or a buffer. The
# decoder must know nothing but $z$.
#
# ### Training, and what goes wrong
#
# **Write `build_vae` and `train_vae`.**
# `training.fit(model, train, validation, generator=…, steps=…, batch_size=BATCH, lr=LEARNING_RATE, loss=loss, device=device)`
# minimises the mean of `loss(model, x, y, generator)`, in nats, `[batch]`: draw the noise by
# `model.noise(len(x), generator=generator)` from the generator that is handed to your loss, and return *minus* the
# bound. (`y` is the digit, and not needed.) Return what `fit` returns.
#
# Trained like that you will meet **posterior collapse**. In the beginning the decoder makes nothing of $z$, so every nat spent
# on $z$ is wasted; the encoder learns to say nothing, $\mu = 0$ and $\sigma = 1$, before the decoder has learned to
# listen, and latents that have fallen silent hardly ever speak again. The cure is a **warm-up**: `STEPS["warm_up"]`
# steps in which $z$ is cheap, $\beta = 0.2$, and then `STEPS["vae"]` steps of the bound itself, with
# `schedule=training.cosine`, which takes the learning rate down to zero. Call `training.fit` twice on the same model.


# %% nbgrader={"grade": false, "grade_id": "vae-model", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "vae"}
class VAE(LatentModel):
    """Encoder and decoder of two hidden layers each."""

    def __init__(self, shape: tuple[int, int, int], levels: int, latents: int, hidden: int):
        super().__init__(shape, levels, latents)
        ### BEGIN SOLUTION
        pixels = math.prod(shape)

        def network(inputs: int, outputs: int) -> nn.Sequential:
            layers = [nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()]
            return nn.Sequential(*layers, nn.Linear(hidden, outputs))

        self.encoder = network(pixels, 2 * latents)
        self.decoder = network(latents, levels * pixels)
        ### END SOLUTION

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log standard deviation of q(z | x), each [batch, latents], for int64 x [batch, C, H, W]."""
        ### BEGIN SOLUTION
        scaled = 2 * x.flatten(1) / (self.levels - 1) - 1
        mean, log_std = self.encoder(scaled).chunk(2, dim=1)
        return mean, log_std
        ### END SOLUTION

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Logits of every pixel given z, [batch, levels, C, H, W]."""
        ### BEGIN SOLUTION
        return self.decoder(z).unflatten(1, (self.levels, *self.shape))
        ### END SOLUTION


# %% nbgrader={"grade": false, "grade_id": "vae-train", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "vae"}
def build_vae() -> VAE:
    """An untrained VAE for 8×8 glyphs with 4 levels."""
    ### BEGIN SOLUTION
    return VAE((1, 8, 8), levels=4, latents=LATENTS, hidden=HIDDEN)
    ### END SOLUTION


def train_vae(model: VAE) -> "training.History":
    """Warm up with cheap latents, then maximise the bound, keeping the best weights on the validation set."""

    ### BEGIN SOLUTION
    def negative_elbo(beta):
        return lambda model, x, y, generator: -model.elbo(x, model.noise(len(x), generator=generator), beta)

    splits = glyphs["train"], glyphs["validation"]
    settings = {"generator": fresh_generator(), "batch_size": BATCH, "lr": LEARNING_RATE, "device": device}
    training.fit(model, *splits, steps=STEPS["warm_up"], loss=negative_elbo(0.2), **settings)
    return training.fit(
        model, *splits, steps=STEPS["vae"], loss=negative_elbo(1.0), schedule=training.cosine, **settings
    )
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "vae-graded", "locked": true, "points": 35, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "vae"}
def claim(name: str, model: nn.Module, images: data.Dataset) -> None:
    """Tell the grader what this notebook measures of its own model; the referee's number is set beside it."""
    try:
        with torch.no_grad():
            nats = model.elbo(images.x, model.noise(len(images), generator=fresh_generator()))
        bits = float(likelihood.bits_per_dim(nats, images.dims).mean())
    except Exception as error:
        print(f"{name}: no claim, because its bound raised {type(error).__name__}: {error}")
        return
    uniform = math.log2(images.levels)
    print(f"{name}: {bits:.4f} bits/dim on the validation set; a uniform guess costs {uniform:.4f}")
    handin.claim(name, bits)


vae = None  # in case the next line fails
vae = handin.trained("vae", build_vae, train_vae, example=glyphs["validation"].x[:8])
if vae is not None:
    claim("vae", vae, glyphs["validation"])

# %% [markdown] nbgrader={"grade": false, "grade_id": "vae-check-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "vae"}
# The check plays the referee's two halves with your model, and compares what it finds with what you claim. If the two
# differ, it says which mistake would explain it.

# %% nbgrader={"grade": false, "grade_id": "vae-check", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "vae"}
handin.check("vae")

# %% [markdown] nbgrader={"grade": false, "grade_id": "vae-look-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "vae"}
# ### Look at it
#
# **Samples**, drawn at once and not pixel by pixel, and below each the training glyph nearest to it. Pixels are drawn
# independently given $z$, so each has its own grain.

# %% nbgrader={"grade": false, "grade_id": "vae-samples", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "vae"}
if pictures and vae is not None:
    samples = vae.sample(8, generator=fresh_generator())
    distance = torch.cdist(samples.flatten(1).float(), glyphs["train"].x.flatten(1).float(), p=1)
    nearest = glyphs["train"].x[distance.argmin(1)]
    display(plotting.show_images(torch.cat([samples, nearest]), levels=4))

# %% [markdown] nbgrader={"grade": false, "grade_id": "vae-reconstruction-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "vae"}
# **Reconstructions.** Above, glyphs that the model has not seen; below, what the decoder expects of each pixel given
# nothing but the eight numbers of the mean. Noise is not reproduced: it would cost more in $z$ than it saves in the
# picture. And **how many bits each latent carries** on average: one at zero has collapsed.


# %% nbgrader={"grade": false, "grade_id": "vae-reconstructions", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "vae"}
def expected_image(model: nn.Module, z: torch.Tensor) -> torch.Tensor:
    """Σ_l l p(l | z) of every pixel, scaled to [0, 1]: [batch, C, H, W]."""
    p = model.decode(z).softmax(1)
    levels = torch.arange(model.levels).reshape(1, -1, 1, 1, 1)
    return ((p * levels).sum(1) / (model.levels - 1)).clamp(0, 1)


if pictures and vae is not None:
    with torch.no_grad():
        mean, log_std = vae.encode(glyphs["validation"].x)
        seen = glyphs["validation"].x[:8] / (vae.levels - 1)
        display(plotting.show_images(torch.cat([seen, expected_image(vae, mean[:8])])))
        try:
            carried = [
                float(gaussian_kl(mean[:, [j]], log_std[:, [j]]).mean()) / math.log(2)
                for j in range(vae.latents)
            ]
            print("bits carried by each latent:", ", ".join(f"{bits:.2f}" for bits in carried))
        except NotImplementedError:
            print("gaussian_kl is not written yet.")

# %% [markdown] nbgrader={"grade": false, "grade_id": "vae-traversal-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "vae"}
# **A walk along each latent.** Every row starts from the same glyph (in the middle its own reconstruction) and moves
# one latent from $-2.5$ to $2.5$ while the others stay: what has the model found worth a number of its own?

# %% nbgrader={"grade": false, "grade_id": "vae-traversal", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "vae"}
if pictures and vae is not None:
    with torch.no_grad():
        # [latent that moves, step, latent]
        walk = vae.encode(glyphs["validation"].x[:1])[0].repeat(vae.latents, 9, 1)
        for j in range(vae.latents):
            walk[j, :4, j], walk[j, 5:, j] = torch.linspace(-2.5, -0.6, 4), torch.linspace(0.6, 2.5, 4)
        display(plotting.show_images(expected_image(vae, walk.flatten(0, 1)), columns=9))

# %% [markdown] nbgrader={"grade": false, "grade_id": "vae-curves-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "vae"}
# How training went after the warm-up. Where the two lines part, the model begins to learn its training images by
# heart; `training.fit` has kept the weights of the best validation.

# %% nbgrader={"grade": false, "grade_id": "vae-curves", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "vae"}
if pictures and vae is not None and handin.registry["vae"].history is not None:
    display(plotting.curves(handin.registry["vae"].history))

# %% [markdown] nbgrader={"grade": false, "grade_id": "iwae-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "iwae"}
# ## Problem 4. Many samples, a tighter bound
#
# Problem 1 showed that the logarithm of a mean of $K$ weights creeps up to $\log p(x)$ as $K$ grows. Nothing keeps us
# from training on that:
#
# $$ \mathcal{L}_K(x) = \mathbb{E}_{z_1, \dots, z_K \sim q(z \mid x)} \left[ \log \frac1K \sum_{k=1}^{K} w_k \right], \qquad
#    \mathrm{ELBO} = \mathcal{L}_1 \le \mathcal{L}_2 \le \dots \le \log p(x). $$
#
# This is the **importance-weighted** bound. There is no KL term beside it: $\log q(z_k \mid x)$ is inside each
# weight. Why it never falls: leave one of the $K$ draws out, each in turn; the mean of all $K$ weights is the mean of
# these $K$ smaller means, and the logarithm is concave.
#
# Its gradient says what it does. With $\nabla w_k = w_k \nabla \log w_k$,
#
# $$ \nabla \log \frac1K \sum_k w_k = \sum_k \tilde w_k\, \nabla \log w_k, \qquad \tilde w_k = \frac{w_k}{\sum_{k'} w_{k'}}, $$
#
# the ELBO's gradient, but with the draws weighted by how well each explains the image instead of equally. The good
# draws count; bad ones are forgiven. (A loss is *minus* $\log w$. Whoever puts losses into a softmax follows the
# worst draws, a mistake that has been published as code more than once.)
#
# **Write `iwae_bound(log_w)`**, $\log \frac1K \sum_k w_k$, `[batch]`, and **`iwae_weights(log_w)`**, $\tilde w$,
# `[samples, batch]`, for $\log w$ `[samples, batch]`.


# %% nbgrader={"grade": false, "grade_id": "iwae-functions", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "iwae"}
def iwae_bound(log_w: torch.Tensor) -> torch.Tensor:
    """log (1/K) Σ_k w_k in nats, [batch], for log w [K, batch]."""
    ### BEGIN SOLUTION
    return torch.logsumexp(log_w, dim=0) - math.log(len(log_w))
    ### END SOLUTION


def iwae_weights(log_w: torch.Tensor) -> torch.Tensor:
    """w_k / Σ w, [K, batch], for log w [K, batch]: they sum to one over the draws."""
    ### BEGIN SOLUTION
    return torch.softmax(log_w, dim=0)
    ### END SOLUTION


# %% [markdown] nbgrader={"grade": false, "grade_id": "iwae-train-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "iwae"}
# ### A model trained with it
#
# **Write `build_iwae` and `train_iwae`**: the same network, trained with $K = 5$ draws for each image: a warm-up of
# `STEPS["warm_up"]` steps as before, then `STEPS["iwae"]` steps of minus `iwae_bound(model.log_weights(x, noise))`,
# for noise `[5, batch, latents]` by `model.noise(5, len(x), generator=generator)`.
#
# **What is scored, honestly.** The referee sends one $z$ for each image, for this model too: with several at once, a
# decoder could add up what each of them tells. So `iwae` is charged its $\mathcal{L}_1$, which is *not* what it was
# trained for, and it will need a little more than your `vae`: with bad draws forgiven the encoder dares to spread
# out, and a single draw pays for that. Our own model has the same handicap, and the points are set by it. (Handing in
# your VAE a second time would earn these ten points and teach nothing; you would miss the picture below.) What the
# training was for is seen there.


# %% nbgrader={"grade": false, "grade_id": "iwae-train", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "iwae"}
def build_iwae() -> VAE:
    """An untrained VAE, the same as in problem 3."""
    ### BEGIN SOLUTION
    return build_vae()
    ### END SOLUTION


def train_iwae(model: VAE) -> "training.History":
    """Warm up with cheap latents, then maximise the bound of K = 5 draws."""

    ### BEGIN SOLUTION
    def warm_up(model, x, y, generator):
        return -model.elbo(x, model.noise(len(x), generator=generator), 0.2)

    def negative_iwae(model, x, y, generator):
        return -iwae_bound(model.log_weights(x, model.noise(5, len(x), generator=generator)))

    splits = glyphs["train"], glyphs["validation"]
    settings = {"generator": fresh_generator(), "batch_size": BATCH, "lr": LEARNING_RATE, "device": device}
    training.fit(model, *splits, steps=STEPS["warm_up"], loss=warm_up, **settings)
    return training.fit(
        model, *splits, steps=STEPS["iwae"], loss=negative_iwae, schedule=training.cosine, **settings
    )
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "iwae-graded", "locked": true, "points": 20, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "iwae"}
iwae = None  # in case the next line fails
iwae = handin.trained("iwae", build_iwae, train_iwae, example=glyphs["validation"].x[:8])
if iwae is not None:
    claim("iwae", iwae, glyphs["validation"])

# %% nbgrader={"grade": false, "grade_id": "iwae-check", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "iwae"}
handin.check("iwae")

# %% [markdown] nbgrader={"grade": false, "grade_id": "iwae-look-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "iwae"}
# ### Look at it
#
# The bound of both models as it is *evaluated* with ever more draws, on validation glyphs. Each line can only fall
# (in bits, lower is better), and each stays above what its model really needs, $-\log_2 p(x)/D$. At $K = 1$ the VAE
# is ahead, as it was trained to be. Where the lines end, near the true likelihoods, the order may well be the other
# way round: the proposal of the IWAE is worse for one draw, and its decoder the better model of the data. Beside it,
# how many of the draws count.


# %% nbgrader={"grade": false, "grade_id": "iwae-figure", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "iwae"}
def bounds(model: nn.Module, numbers: list[int]) -> tuple[list[float], float]:
    """The bound in bits/dim for each number of draws, and the effective share of the largest number in percent."""
    x = glyphs["validation"].x[:128]
    with torch.no_grad():
        log_w = model.log_weights(x, model.noise(max(numbers), len(x), generator=fresh_generator()))
    rows = [iwae_bound(log_w.unflatten(0, (-1, k)).transpose(0, 1).flatten(1)) for k in numbers]
    share = 100 * float(effective_samples(log_w).mean()) / len(log_w)
    return [float(likelihood.bits_per_dim(row, 64).mean()) for row in rows], share


if pictures and vae is not None and iwae is not None:
    try:
        numbers = [1, 2, 4, 8, 16, 32, 64, 128]
        with plotting.style():
            figure, axes = plt.subplots()
            for name, model in {"trained with 1 draw": vae, "trained with 5 draws": iwae}.items():
                line, share = bounds(model, numbers)
                axes.plot(numbers, line, "o-", label=f"{name} (of 128 draws {share:.0f} % count)")
            axes.set(
                xscale="log", xlabel="number of draws K in evaluation", ylabel="bound in bits per dimension"
            )
            axes.legend()
        plt.show()
    except NotImplementedError:
        print("iwae_bound, log_weight or effective_samples is not written yet.")

# %% [markdown] nbgrader={"grade": false, "grade_id": "written-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## In words
#
# (a) The ELBO is a lower bound of $\log p(x)$. By how much is it too low, when is nothing lost, and why does
# $\mathcal{L}_K$ lose less and less as $K$ grows? Could a bound evaluated with finitely many *drawn* $z$ come out
# above $\log p(x)$ for one image?
#
# (b) A friend's VAE averages the KL over its eight latents and sums the reconstruction over the pixels, and claims
# far fewer bits than you. Which $\beta$ has it been trained with, what have its latents become, and what does the
# referee charge it for them? Why can it not be fixed by correcting the claim alone?

# %% [markdown] nbgrader={"grade": true, "grade_id": "written", "locked": false, "points": 10, "schema_version": 3, "solution": true, "task": false}
# (a) By exactly $\mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x))$: nothing is lost if the proposal is the posterior, for
# then every weight is $p(x)$ and the logarithm of a constant has no concavity to pay for. $\mathcal{L}_K$ is the
# expected logarithm of a mean of $K$ weights with expectation $p(x)$; the mean fluctuates less and less, so Jensen's
# inequality costs less, and by the law of large numbers nothing in the limit. The inequality is about expectations: a
# single lucky draw can put the estimate above $\log p(x)$.
#
# (b) The KL divided by eight is $\beta = 1/8$. Latents are cheap in training, so the encoder makes $\sigma$ small and
# writes much more into $z$ than it saves, with means far from those that the prior expects. The referee charges
# $\log q(z \mid x) - \log p(z)$ in full, eight times what the friend counted, and the total is worse than that of an
# honest VAE. Computing the claim with the whole KL makes the number honest, but the model is still the one that was
# trained for cheap latents: it must be trained with $\beta = 1$.

# %% [markdown] nbgrader={"grade": false, "grade_id": "pack-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Hand in
#
# Run the whole notebook from the top once more (Kernel → Restart & Run All), then `handin.pack()`. It checks that the
# notebook can be read and zips what is to be uploaded.
