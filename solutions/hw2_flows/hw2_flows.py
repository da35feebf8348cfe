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
# # Homework 2. Flows
#
# A flow is a smooth one-to-one map $f$ from data to Gaussian noise. Run forwards it gives the density of any $x$; run
# backwards it turns noise into data. You will write three, in one dimension, in two and in 64, and between them find
# out what a *density* has to do with *integers*.
#
# | problem | you write | points |
# |---|---|---|
# | 1. One dimension: bend a distribution function | a mixture of logistics as a flow, and its inverse | 24 |
# | 2. The plane | change of variables, a flow $z_1 = f(x_1)$, $z_2 = f(x_2; x_1)$ | 22 |
# | 3. Integers | noise, a change of range, bits per dimension, a bound and what it bounds | 18 |
# | 4. RealNVP | affine coupling under checkerboard and channel masks, squeeze | 26 |
# | In words | what the determinant is for, and how to cheat without it (graded by hand) | 10 |
#
# **How to work.** Fill in every `# YOUR CODE HERE`. Keep the names of functions and classes, and do not edit or delete
# the other cells (the grader restores them); new cells of your own are welcome. `handin.check("…")` at the end of each
# problem runs the grader's own checks on public examples and says in words what is wrong; call it in a cell of your own
# as often as you like. A problem that is not solved yet says so and stops nobody, and an error in one problem costs
# that problem only. (Problem 2 builds on the functions of problem 1, problem 4 on those of problem 3.)
#
# **How it is scored.** Functions are called on inputs that you have not seen, and their answers compared with ours. A
# model is scored in bits per dimension on fresh images that nobody has seen: full points at the level of our own
# model of the same size and training, falling in a straight line to none. **The referee does not read your
# log-determinant.** It sends your model $x$ and receives $z = f(x)$ with the Jacobian that autograd finds; it moves
# $z$ by a very small random amount of its own; and then a second copy of your model, which has never seen $x$, is
# given nothing but this $z$ and must find $x$ again with its `inverse`. What that takes in bits is what a message
# that carries $x$ would really take, and for a correct flow it is $-\log_2 p(x)$. A determinant that flatters, a map
# that is not one-to-one, an inverse that does not invert: each makes the message longer.
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

import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from torch import nn

from dulcourse import data, handin, plotting, training
from dulcourse.data import toy1d
from dulcourse.flows import dequantisation
from dulcourse.flows.base import Compose, Flow, Transform

handin.begin("hw2_flows")

noisy_loss = dequantisation.negative_elbo  # −log p(x + u) in nats, with fresh noise u ~ U[0, 1) at every call

# Sizes that suffice for full points in each tier. You may choose your own; the time limit stays.
STEPS = {
    "smoke": {"cdf_flow": 200, "plane": 300, "realnvp": 300},
    "cpu": {"cdf_flow": 2000, "plane": 3000, "realnvp": 3000},
    "gpu": {"cdf_flow": 2000, "plane": 3000, "realnvp": 3000},
}[tier]
WIDTH = {"smoke": 64, "cpu": 128, "gpu": 128}[tier]
IMAGES = {"train": 2048, "validation": 256} if tier == "smoke" else {"train": 8192, "validation": 1024}

# The grader runs the notebook twice, and the second time only loads what was trained: no pictures then.
pictures = handin.session.mode == "train"


def fresh_generator() -> torch.Generator:
    """A generator that starts from `seed`: draw from your own, and a cell gives the same result when it is run again."""
    return torch.Generator().manual_seed(seed)


def claim(name: str, model: Flow, images: data.Dataset) -> None:
    """Tell the grader what this notebook measures of its own model; the referee's number is set beside it."""
    bits = training.evaluate(model, images, loss=noisy_loss)
    uniform = math.log2(images.levels)
    print(f"{name}: {bits:.4f} bits/dim on the validation set; a uniform guess costs {uniform:.4f}")
    handin.claim(name, bits)


# %% [markdown] nbgrader={"grade": false, "grade_id": "cdf-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "cdf_flow"}
# ## Problem 1. One dimension: bend a distribution function
#
# ### Change of variables
#
# Let $f$ be smooth and strictly increasing, $z = f(x)$, and $p_z$ the density of $z$. The probability between $x$ and
# $x + dx$ is that between $z$ and $z + dz$, and $dz = f'(x)\,dx$. Hence (for a decreasing $f$ too, thanks to the
# absolute value)
#
# $$ \log p(x) = \log p_z\big(f(x)\big) + \log |f'(x)|. $$
#
# The last term pays for stretching: where $f$ pulls points apart, it takes more of the line of $z$, and its
# probability, into a short piece of the line of $x$. Without it a flow would do best to send everything to $z = 0$.
#
# ### Which map?
#
# If $F$ is the distribution function of $x$, then $u = F(x)$ is uniform on $(0, 1)$, and if $\Phi$ is that of the
# standard normal, $z = \Phi^{-1}(u)$ is normal. So $f = \Phi^{-1} \circ F$ takes *any* density without gaps to $N(0,
# 1)$, and we only need an $F$ with parameters that bends far enough. A mixture of logistics will do: with $\pi =
# \mathrm{softmax}(w)$, $a_k = (x - \mu_k)/s_k$ and $\sigma(a) = 1/(1 + e^{-a})$,
#
# $$ F(x) = \sum_k \pi_k\, \sigma(a_k), \qquad 1 - F(x) = \sum_k \pi_k\, \sigma(-a_k), \qquad
#    F'(x) = \sum_k \frac{\pi_k}{s_k}\, \sigma(a_k)\, \sigma(-a_k). $$
#
# **Everything in logarithms.** Far out on the right $F(x)$ is 1 to all digits, and what distinguishes one point from
# another is $1 - F(x)$, say $10^{-30}$. Computed as a difference it would be $0$. Computed as the sum in the middle
# it is exact, and $\log \sigma$ (`F.logsigmoid`) with `torch.logsumexp` never overflows.
#
# **Write `log_cdf(x, weights_logits, means, log_scales)`**, returning the pair $\log F(x)$, $\log(1 - F(x))$, and
# **`log_density`**, returning $\log F'(x)$, for `x` of shape `[*shape]` and parameters whose last axis runs over the
# $K$ components: `[K]` (the same mixture for all), or `[*shape, K]` (one for each entry). Each result has the shape
# of `x`.


# %% nbgrader={"grade": false, "grade_id": "log-cdf", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "cdf_flow"}
def log_cdf(
    x: torch.Tensor, weights_logits: torch.Tensor, means: torch.Tensor, log_scales: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log F(x), log(1 − F(x))) of a mixture of logistics: two tensors [*shape], for x [*shape]."""
    ### BEGIN SOLUTION
    log_weights = F.log_softmax(weights_logits, dim=-1)
    a = (x[..., None] - means) * torch.exp(-log_scales)
    below = torch.logsumexp(log_weights + F.logsigmoid(a), dim=-1)
    above = torch.logsumexp(log_weights + F.logsigmoid(-a), dim=-1)
    return below, above
    ### END SOLUTION


def log_density(
    x: torch.Tensor, weights_logits: torch.Tensor, means: torch.Tensor, log_scales: torch.Tensor
) -> torch.Tensor:
    """log F'(x) of a mixture of logistics: [*shape], for x [*shape]."""
    ### BEGIN SOLUTION
    log_weights = F.log_softmax(weights_logits, dim=-1)
    a = (x[..., None] - means) * torch.exp(-log_scales)
    each = F.logsigmoid(a) + F.logsigmoid(-a) - log_scales
    return torch.logsumexp(log_weights + each, dim=-1)
    ### END SOLUTION


# %% [markdown] nbgrader={"grade": false, "grade_id": "gaussian-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "cdf_flow"}
# ### To noise
#
# $\Phi^{-1}$ is `torch.special.ndtri`. It is exact for *small* arguments: $\Phi^{-1}(10^{-30}) = -11.46$, while $1 -
# 10^{-30}$ is not a number that a computer has. By symmetry $\Phi^{-1}(F) = -\Phi^{-1}(1 - F)$, so **take the smaller
# of $F$ and $1 - F$**, and put the sign in afterwards. (For the gradient's sake choose with `torch.minimum` *before*
# `ndtri`, not with `torch.where` between two results of which one is infinite: $0 \cdot \infty$ is NaN on the way
# back. And keep the logarithm of the smaller one above `math.log(torch.finfo(x.dtype).tiny)`, with `clamp`, before
# you exponentiate.)
#
# The derivative follows from $\Phi' = \varphi$, the normal density $\varphi(z) = e^{-z^2/2}/\sqrt{2\pi}$:
#
# $$ f'(x) = \frac{F'(x)}{\varphi(z)}, \qquad \log f'(x) = \log F'(x) + \tfrac12 z^2 + \tfrac12 \log 2\pi. $$
#
# Put into the change of variables, $\log \varphi(z)$ cancels: $p(x) = F'(x)$. The density of this flow *is* the
# mixture.
#
# **Write `to_gaussian(x, weights_logits, means, log_scales)`**, returning the pair $z = f(x)$ and $\log f'(x)$, each
# `[*shape]`.
#
# ### And back
#
# There is no formula for $F^{-1}$, but $f$ increases, so **bisection** finds the solution of $f(x) = z$: one more
# binary digit a step. It needs an interval that surely holds the solution. Component $k$ alone reaches $\Phi(z)$ at
#
# $$ q_k = \mu_k + s_k \log \frac{\Phi(z)}{1 - \Phi(z)} = \mu_k + s_k \big( \log\Phi(z) - \log\Phi(-z) \big) $$
#
# (`torch.special.log_ndtr` is $\log\Phi$). At $\min_k q_k$ no component is above $\Phi(z)$ yet, so neither is their
# mixture, and at $\max_k q_k$ none is below: the solution lies between. No $\Phi^{-1}$ is needed on the way: $\log F(x)
# - \log(1 - F(x))$ grows with $x$ too, and is to become $\log\Phi(z) - \log\Phi(-z)$.
#
# **Write `from_gaussian(z, weights_logits, means, log_scales)`**: the $x$, `[*shape]`, with
# `to_gaussian(x, …)[0] == z` as nearly as the type of number allows. 64 halvings are enough for float64. (Nobody
# trains through the inverse, so `torch.no_grad()` is welcome.)


# %% nbgrader={"grade": false, "grade_id": "gaussian", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "cdf_flow"}
def to_gaussian(
    x: torch.Tensor, weights_logits: torch.Tensor, means: torch.Tensor, log_scales: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(z, log f'(x)) with z = f(x) = Φ⁻¹(F(x)): two tensors [*shape], for x [*shape]."""
    ### BEGIN SOLUTION
    below, above = log_cdf(x, weights_logits, means, log_scales)
    tail = torch.minimum(below, above).clamp(min=math.log(torch.finfo(x.dtype).tiny))
    z = torch.where(below < above, 1.0, -1.0) * torch.special.ndtri(tail.exp())
    log_prior = -0.5 * (z.square() + math.log(2 * math.pi))
    return z, log_density(x, weights_logits, means, log_scales) - log_prior
    ### END SOLUTION


@torch.no_grad()
def from_gaussian(
    z: torch.Tensor, weights_logits: torch.Tensor, means: torch.Tensor, log_scales: torch.Tensor
) -> torch.Tensor:
    """x = f⁻¹(z), [*shape], by bisection between the components' own quantiles."""
    ### BEGIN SOLUTION
    logit = torch.special.log_ndtr(z) - torch.special.log_ndtr(-z)
    quantiles = means + torch.exp(log_scales) * logit[..., None]
    low, high = quantiles.amin(-1), quantiles.amax(-1)
    for _ in range(64):
        middle = (low + high) / 2
        below, above = log_cdf(middle, weights_logits, means, log_scales)
        too_low = below - above < logit
        low, high = torch.where(too_low, middle, low), torch.where(too_low, high, middle)
    return (low + high) / 2
    ### END SOLUTION


# %% [markdown] nbgrader={"grade": false, "grade_id": "cdf-model-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "cdf_flow"}
# ### The model
#
# In this course a `Transform` is a module with two methods: `forward(x)` returns $z$ and `inverse(z)` returns $x$,
# **each together with the log-determinant of its own direction**, one number an event, `[batch]`. (So that of
# `inverse` is minus that of `forward` at the same point.) `Flow(transform, shape, levels)` adds the prior $N(0, I)$,
# `log_prob` and `sample`.
#
# The data are integers $0 \dots 99$ again, and a flow is a density of real numbers. So throughout this homework a
# flow is trained, and scored, on $x + u$ with fresh noise $u$, uniform on $[0, 1)$: real numbers in $[0, 100)$.
# `noisy_loss` does it. (Why this is honest is problem 3.)
#
# **Write `MixtureCdf`, `build_cdf_flow` and `train_cdf_flow`.** The transform acts on each entry alone, so
# $\log|\det|$ is a sum of $\log f'$ over all axes but the first.
#
# - Adam moves every parameter by about the learning rate a step, so let parameters be of order one: count the means
#   in units of $L/K$, the distance between neighbours.
# - Start with sixteen means spread evenly over the range and scales of about a fiftieth of it, so that each component
#   has data of its own to fit. (The numbers were cut off at 0, and what would have been below is 0 now: a step that
#   takes sharp components.)
# - `training.fit(model, train, validation, generator=…, steps=…, lr=…, loss=noisy_loss)` keeps the weights that are
#   best on the validation set; return what it returns. With `schedule=training.cosine` the learning rate falls to
#   zero, so it may start high.


# %% nbgrader={"grade": false, "grade_id": "cdf-model", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "cdf_flow"}
class MixtureCdf(Transform):
    """z_i = Φ⁻¹(F(x_i)) for every entry, with one mixture of K logistics on [0, levels) for all of them."""

    def __init__(self, levels: int, components: int):
        super().__init__()
        ### BEGIN SOLUTION
        self.levels = levels
        self.weights_logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.arange(components) + 0.5)  # in units of levels/components
        self.log_scales = nn.Parameter(torch.full((components,), math.log(levels / 50)))
        ### END SOLUTION

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """z, of the shape of x, and log|det ∂z/∂x| [batch]."""
        ### BEGIN SOLUTION
        z, log_slope = to_gaussian(x, *self.mixture())
        return z, log_slope.flatten(1).sum(1)
        ### END SOLUTION

    def inverse(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x, of the shape of z, and log|det ∂x/∂z| [batch]."""
        ### BEGIN SOLUTION
        x = from_gaussian(z, *self.mixture())
        return x, -self(x)[1]

    def mixture(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Weights, means and log-scales, in data units."""
        return self.weights_logits, self.means * self.levels / len(self.means), self.log_scales
        ### END SOLUTION


def build_cdf_flow() -> Flow:
    """An untrained flow of one number in [0, 100)."""
    ### BEGIN SOLUTION
    return Flow(MixtureCdf(levels=100, components=16), shape=(1, 1, 1), levels=100)
    ### END SOLUTION


def train_cdf_flow(model: Flow) -> "training.History":
    """Maximise the likelihood of the training numbers under noise."""
    ### BEGIN SOLUTION
    return training.fit(
        model,
        numbers["train"],
        numbers["validation"],
        generator=fresh_generator(),
        steps=STEPS["cdf_flow"],
        batch_size=256,
        lr=5e-2,
        schedule=training.cosine,
        loss=noisy_loss,
        device=device,
    )
    ### END SOLUTION


# %% nbgrader={"grade": false, "grade_id": "cdf-data", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "cdf_flow"}
numbers = {split: data.load("toy1d", split) for split in ("train", "validation")}
print({split: tuple(part.x.shape) for split, part in numbers.items()})

# %% nbgrader={"grade": true, "grade_id": "cdf-graded", "locked": true, "points": 24, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "cdf_flow"}
cdf_flow = None  # in case the next line fails
cdf_flow = handin.trained("cdf_flow", build_cdf_flow, train_cdf_flow, example=numbers["validation"].x[:8])
if cdf_flow is not None:
    claim("cdf_flow", cdf_flow, numbers["validation"])

# %% nbgrader={"grade": false, "grade_id": "cdf-check", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "cdf_flow"}
handin.check("cdf_flow")

# %% [markdown] nbgrader={"grade": false, "grade_id": "cdf-look-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "cdf_flow"}
# ### Look at it
#
# On the left the data and your density. In the middle the map itself: steep where data are dense, so that they are
# pulled apart, flat where there are none. On the right what becomes of the validation set: if the flow is good,
# nothing of four clumps can be seen any more.

# %% nbgrader={"grade": false, "grade_id": "cdf-look", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "cdf_flow"}
if pictures and cdf_flow is not None:
    line = torch.linspace(0.01, 99.99, 500).reshape(-1, 1, 1, 1)
    u = torch.rand(numbers["validation"].x.shape, generator=fresh_generator())
    with torch.no_grad():
        mapped, noise = cdf_flow(line)[0][:, 0], cdf_flow(numbers["validation"].x + u)[0][:, 0]
        density = cdf_flow.log_prob(line).exp()
    with plotting.style():
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
        left.hist(numbers["train"].x.flatten() + 0.5, bins=100, range=(0, 100), density=True, color="#C9C9C9")
        left.plot(line.flatten(), density)
        left.set(xlabel="x", ylabel="density", title="data and p(x)")
        middle.plot(line.flatten(), mapped)
        middle.set(xlabel="x", ylabel="z = f(x)", title="the map")
        normal = torch.linspace(-4, 4, 200)
        right.hist(noise, bins=40, range=(-4, 4), density=True, color="#C9C9C9")
        right.plot(normal, torch.exp(-normal.square() / 2) / math.sqrt(2 * math.pi))
        right.set(xlabel="z", title="f(data) and N(0, 1)")
        plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "plane-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "plane"}
# ## Problem 2. The plane
#
# ### Volumes
#
# For $x \in \mathbb{R}^D$ the derivative is a matrix, the Jacobian $J = \partial z / \partial x$ ($J_{ij} = \partial
# z_i / \partial x_j$). A small cube at $x$ becomes a small parallelepiped at $z$ whose volume is $|\det J|$ times as
# large. So
#
# $$ \log p(x) = \log p_z(z) + \log|\det J|, \qquad \log p_z(z) = -\tfrac12 \sum_{i=1}^{D} \big( z_i^2 + \log 2\pi \big) \text{ for } N(0, I). $$
#
# The determinant of a general matrix costs $O(D^3)$, and its sign does not matter; `torch.linalg.slogdet` gives both
# apart. That of a **triangular** matrix is the product of its diagonal, $O(D)$, so a flow is designed so that $J$ is
# triangular, and never computes $J$ at all.
#
# **Write `change_of_variables(z, jacobian)`**: $\log p(x)$ in nats, `[batch]`, for `z` `[batch, D]`, any invertible
# `jacobian` `[batch, D, D]` and the prior $N(0, I)$; and **`log_det_triangular(jacobian)`**: $\log|\det J|$,
# `[batch]`, from the diagonal of lower triangular matrices `[batch, D, D]`. (Diagonals may be negative: a map may
# also mirror.)


# %% nbgrader={"grade": false, "grade_id": "change-of-variables", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "plane"}
def change_of_variables(z: torch.Tensor, jacobian: torch.Tensor) -> torch.Tensor:
    """log p(x) = log N(z; 0, I) + log|det J|, [batch], for z [batch, D] and J [batch, D, D]."""
    ### BEGIN SOLUTION
    log_prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
    return log_prior + torch.linalg.slogdet(jacobian).logabsdet
    ### END SOLUTION


def log_det_triangular(jacobian: torch.Tensor) -> torch.Tensor:
    """log|det J| = Σ_i log|J_ii|, [batch], for lower triangular J [batch, D, D]."""
    ### BEGIN SOLUTION
    return jacobian.diagonal(dim1=1, dim2=2).abs().log().sum(1)
    ### END SOLUTION


# %% [markdown] nbgrader={"grade": false, "grade_id": "plane-model-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "plane"}
# ### An autoregressive flow
#
# Two moons, as pixels of a $64 \times 64$ screen: an event is a pair of integers $(x_1, x_2)$, kept like an image of
# shape `(2, 1, 1)`. The chain rule of homework 1, $p(x_1, x_2) = p(x_1)\, p(x_2 \mid x_1)$, becomes a flow if each
# factor is one:
#
# $$ z_1 = f(x_1; \theta_1), \qquad z_2 = f\big(x_2; \theta_2(x_1)\big), \qquad
#    J = \begin{pmatrix} \partial z_1 / \partial x_1 & 0 \\ \partial z_2 / \partial x_1 & \partial z_2 / \partial x_2 \end{pmatrix}. $$
#
# Whatever $\theta_2$ is, however wildly it depends on $x_1$, it stands below the diagonal, and the log-determinant is
# $\log|\partial z_1/\partial x_1| + \log|\partial z_2/\partial x_2|$. To go back, first $x_1 = f^{-1}(z_1;
# \theta_1)$, and only then is $\theta_2(x_1)$ known, and $x_2 = f^{-1}(z_2; \theta_2(x_1))$: one coordinate after
# another, like sampling from MADE.
#
# **Write `Plane`**, with problem 1's $f$ (`to_gaussian`, `from_gaussian`): $\theta_1$ are parameters, $\theta_2$ is
# what a small network makes of $x_1$. Some advice:
#
# - `x.flatten(1).unbind(1)` gives the two coordinates, each `[batch]`; `torch.stack(…, 1).reshape(x.shape)` puts two
#   back.
# - Scale the network's input to $-1 \dots 1$. Let its outputs be *corrections* to a good start (eight means spread
#   over the range, scales of a twentieth of it), the means again in units of $L/K$.
# - Two hidden layers are enough. `nn.SiLU` and `nn.Tanh` give smooth densities, `nn.ReLU` gives densities with kinks.


# %% nbgrader={"grade": false, "grade_id": "plane-model", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "plane"}
class Plane(Transform):
    """z₁ = f(x₁; θ₁), z₂ = f(x₂; θ₂(x₁)) on [0, levels)², f = Φ⁻¹ ∘ F with K logistics."""

    def __init__(self, levels: int, components: int, hidden: int):
        super().__init__()
        ### BEGIN SOLUTION
        self.levels = levels
        self.register_buffer("spread", torch.arange(components) + 0.5)  # in units of levels/components
        self.first = nn.Parameter(torch.zeros(3 * components))
        self.network = nn.Sequential(
            nn.Linear(1, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, 3 * components),
        )
        ### END SOLUTION

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """z [batch, 2, 1, 1] and log|det ∂z/∂x| [batch]."""
        ### BEGIN SOLUTION
        x1, x2 = x.flatten(1).unbind(1)
        z1, log_slope1 = to_gaussian(x1, *self.mixture(self.first))
        z2, log_slope2 = to_gaussian(x2, *self.mixture(self.conditioned(x1)))
        return torch.stack([z1, z2], 1).reshape(x.shape), log_slope1 + log_slope2
        ### END SOLUTION

    def inverse(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x [batch, 2, 1, 1] and log|det ∂x/∂z| [batch]."""
        ### BEGIN SOLUTION
        z1, z2 = z.flatten(1).unbind(1)
        x1 = from_gaussian(z1, *self.mixture(self.first))
        x2 = from_gaussian(z2, *self.mixture(self.conditioned(x1)))
        x = torch.stack([x1, x2], 1).reshape(z.shape)
        return x, -self(x)[1]

    def conditioned(self, x1: torch.Tensor) -> torch.Tensor:
        """What the network says of x₂'s mixture: [batch, 3K]."""
        return self.network(2 * x1[:, None] / self.levels - 1)

    def mixture(self, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Outputs [..., 3K] as corrections to K equal logistics side by side."""
        weights_logits, means, log_scales = outputs.chunk(3, dim=-1)
        means = (self.spread + means) * self.levels / len(self.spread)
        return weights_logits, means, math.log(self.levels / 20) + log_scales
        ### END SOLUTION


def build_plane() -> Flow:
    """An untrained flow of two numbers in [0, 64)."""
    ### BEGIN SOLUTION
    return Flow(Plane(levels=64, components=8, hidden=64), shape=(2, 1, 1), levels=64)
    ### END SOLUTION


def train_plane(model: Flow) -> "training.History":
    """Maximise the likelihood of the training points under noise."""
    ### BEGIN SOLUTION
    return training.fit(
        model,
        moons["train"],
        moons["validation"],
        generator=fresh_generator(),
        steps=STEPS["plane"],
        batch_size=256,
        lr=1e-2,
        schedule=training.cosine,
        loss=noisy_loss,
        device=device,
    )
    ### END SOLUTION


# %% nbgrader={"grade": false, "grade_id": "plane-data", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "plane"}
moons = {split: data.load("toy2d", split, kind="moons", levels=64) for split in ("train", "validation")}
print({split: tuple(part.x.shape) for split, part in moons.items()})

# %% nbgrader={"grade": true, "grade_id": "plane-graded", "locked": true, "points": 22, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "plane"}
plane = None  # in case the next line fails
plane = handin.trained("plane", build_plane, train_plane, example=moons["validation"].x[:8])
if plane is not None:
    claim("plane", plane, moons["validation"])

# %% nbgrader={"grade": false, "grade_id": "plane-check", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "plane"}
handin.check("plane")

# %% [markdown] nbgrader={"grade": false, "grade_id": "plane-look-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "plane"}
# ### Look at it
#
# On the left samples of your flow among the data. In the middle its density. On the right circles and rays of the
# plane of $z$, carried back to the plane of $x$ by `inverse`: how a round cloud of noise is bent into two moons. The
# lines never cross. Where they run close together there is much probability in little space; the thin threads across
# the gap are the price of a map that is continuous, while the data come in two pieces.

# %% nbgrader={"grade": false, "grade_id": "plane-look", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "plane"}
if pictures and plane is not None:
    angle, radius = torch.linspace(0, 2 * math.pi, 241), torch.linspace(0.01, 2.6, 61)
    circles = [torch.stack([r * angle.cos(), r * angle.sin()], 1) for r in (0.5, 1.0, 1.5, 2.0, 2.5)]
    rays = [torch.stack([radius * a.cos(), radius * a.sin()], 1) for a in angle[:240:15]]
    cells = torch.cartesian_prod(torch.arange(0.25, 64, 0.5), torch.arange(0.25, 64, 0.5))
    samples = plane.sample(1000, generator=fresh_generator()).flatten(1)
    with torch.no_grad():
        density = plane.log_prob(cells.reshape(-1, 2, 1, 1)).exp().reshape(128, 128)
        bent = {"circle": [plane.inverse(c)[0].flatten(1) for c in circles]}
        bent["ray"] = [plane.inverse(ray)[0].flatten(1) for ray in rays]
    with plotting.style():
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
        left.plot(*(moons["train"].x[:1000].flatten(1) + 0.5).T, ".", color="#C9C9C9", label="data")
        left.plot(*samples.T, ".", markersize=3, label="samples")
        left.set(title="data and samples", ylabel="$x_2$")
        left.legend(loc="upper right", fontsize=8)
        middle.grid(False)
        middle.imshow(density.T, origin="lower", extent=(0, 64, 0, 64), cmap="Blues")
        middle.set_title("p(x)")
        for kind, colour in (("circle", plotting.COLOURS["blue"]), ("ray", plotting.COLOURS["orange"])):
            for curve in bent[kind]:
                right.plot(*curve.T, color=colour, linewidth=0.8)
        right.set_title("circles and rays of z")
        for axes in (left, middle, right):
            axes.set(xlim=(0, 64), ylim=(0, 64), xlabel="$x_1$", aspect="equal")
        plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "dequantisation-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "dequantisation"}
# ## Problem 3. Integers
#
# ### Why noise
#
# A density can be as high as it likes on a single point. Fitted to bare integers, a flow puts a spike of width
# $\epsilon$ on each of them, gains $\log(1/\epsilon)$ at every one, and its "likelihood" is infinite while it has
# learned nothing. Uniform noise $u$ on $[0, 1)^D$ takes the points away: $x + u$ fills the unit cube above $x$, the
# cubes of different images do not overlap, and the density gives each image an honest probability, the integral over
# its cube:
#
# $$ P(x) = \int_{[0,1)^D} p(x + u)\, du, \qquad \sum_x P(x) \le 1. $$
#
# By Jensen's inequality ($\log$ is concave)
#
# $$ \log P(x) = \log \mathbb{E}_u\, p(x + u) \;\ge\; \mathbb{E}_u \log p(x + u), $$
#
# so what we train and score, the mean of $-\log p(x + u)$, is never shorter than the code length of the integers
# themselves. The gap closes when $p$ is flat within each cube.
#
# **Write `dequantise(x, u, levels)`**: for integers `x` `[batch, *shape]` and noise `u` of the same shape, the pair
# of $y = (x + u)/L \in [0, 1)$ and $\log|\det \partial y / \partial (x + u)|$, `[batch]`.
#
# ### An infinite range
#
# Images live in $[0, L)$, Gaussians in $(-\infty, \infty)$. A common first layer of a flow stretches the one to the
# other with a logit; a little margin $\alpha$ keeps the two ends finite:
#
# $$ q = \alpha + (1 - 2\alpha)\,\frac{x}{L}, \qquad y = \log q - \log(1 - q), \qquad \log\left|\frac{dy}{dx}\right| = \log\frac{1 - 2\alpha}{L} - \log q - \log(1 - q). $$
#
# **Write `logit_forward(x, levels, alpha)`**, returning $y$ (of `x`'s shape) and the log-determinant `[batch]`, and
# **`logit_inverse(y, levels, alpha)`**, returning $x$ and the log-determinant *of this direction*. ($q = \sigma(y)$,
# so $\log q$ is `F.logsigmoid(y)` and $\log(1 - q)$ is `F.logsigmoid(-y)`: no rounding to 0 for large $y$.)


# %% nbgrader={"grade": false, "grade_id": "dequantise", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "dequantisation"}
def dequantise(x: torch.Tensor, u: torch.Tensor, levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """y = (x + u)/L, of x's shape, and log|det ∂y/∂(x + u)|, [batch]."""
    ### BEGIN SOLUTION
    y = (x + u) / levels
    return y, torch.full_like(y, -math.log(levels)).flatten(1).sum(1)
    ### END SOLUTION


def logit_forward(x: torch.Tensor, levels: int, alpha: float) -> tuple[torch.Tensor, torch.Tensor]:
    """y = logit(α + (1 − 2α) x/L), of x's shape, and log|det ∂y/∂x|, [batch]."""
    ### BEGIN SOLUTION
    q = alpha + (1 - 2 * alpha) * x / levels
    log_q, log_rest = torch.log(q), torch.log1p(-q)
    log_slope = math.log((1 - 2 * alpha) / levels) - log_q - log_rest
    return log_q - log_rest, log_slope.flatten(1).sum(1)
    ### END SOLUTION


def logit_inverse(y: torch.Tensor, levels: int, alpha: float) -> tuple[torch.Tensor, torch.Tensor]:
    """x with logit(α + (1 − 2α) x/L) = y, of y's shape, and log|det ∂x/∂y|, [batch]."""
    ### BEGIN SOLUTION
    x = levels * (torch.sigmoid(y) - alpha) / (1 - 2 * alpha)
    log_slope = math.log(levels / (1 - 2 * alpha)) + F.logsigmoid(y) + F.logsigmoid(-y)
    return x, log_slope.flatten(1).sum(1)
    ### END SOLUTION


# %% [markdown] nbgrader={"grade": false, "grade_id": "bits-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "dequantisation"}
# ### Bits per dimension of a density
#
# Papers divide images by something, train a density $p_y$ of $y = (x + u)/c$ and report bits per dimension. These are
# bits of the *integers* only after the change of variables back to $x + u$:
#
# $$ \log p(x + u) = \log p_y(y) - D \log c, \qquad \text{bits/dim} = -\frac{\log_2 p(x + u)}{D} = -\frac{\log p_y(y)}{D \ln 2} + \log_2 c. $$
#
# With $c = 256$ forgetting the last term makes a model look exactly 8 bits per dimension better than it is, and it
# has been published so. (Whoever divides by 255 owes $\log_2 255$.)
#
# **Write `bits_per_dim(log_density, dims, scale)`**: for $\log p_y(y)$ in nats, `[batch]`, the bits per dimension of
# the integers, `[batch]`, with $D$ = `dims` and $c$ = `scale`.
#
# ### How loose is the bound?
#
# In one dimension the integral is easy: with the midpoints $u_k = (k + \frac12)/n$ of $n$ equal pieces of $[0, 1)$ it
# is the mean of $p(x + u_k)$.
#
# **Write `bound_and_mass(log_density)`**: given $\log p(x + u_k)$ as a tensor `[batch, n]`, the pair, each `[batch]`,
# of
#
# $$ \frac1n \sum_{k} \log p(x + u_k) \qquad\text{and}\qquad \log\Big( \frac1n \sum_{k} p(x + u_k) \Big). $$
#
# Mind that $p$ itself may be as small as $e^{-2000}$, which no computer tells from 0.


# %% nbgrader={"grade": false, "grade_id": "bits", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "dequantisation"}
def bits_per_dim(log_density: torch.Tensor, dims: int, scale: float) -> torch.Tensor:
    """Bits per dimension of integers x, [batch], from log p_y in nats, [batch], of y = (x + u)/scale."""
    ### BEGIN SOLUTION
    return -log_density / (dims * math.log(2)) + math.log2(scale)
    ### END SOLUTION


def bound_and_mass(log_density: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean of log p, log of the mean of p) over the last axis of log p(x + u_k), [batch, n]: each [batch]."""
    ### BEGIN SOLUTION
    n = log_density.shape[1]
    return log_density.mean(1), torch.logsumexp(log_density, 1) - math.log(n)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "dequantisation-graded", "locked": true, "points": 18, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "dequantisation"}
handin.check("dequantisation")

# %% [markdown] nbgrader={"grade": false, "grade_id": "dequantisation-look-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "dequantisation"}
# ### Look at it
#
# Your flow of problem 1, at all 100 levels: the probability $P(x)$ that it gives each integer, and the bound. Below
# in numbers, averaged over the law of the data, which for this toy is known: no model can go below its entropy.

# %% nbgrader={"grade": false, "grade_id": "dequantisation-look", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "dequantisation"}
if pictures and cdf_flow is not None:
    try:
        pieces = (torch.arange(64) + 0.5) / 64
        with torch.no_grad():
            every = (torch.arange(100)[:, None] + pieces).reshape(-1, 1, 1, 1)
            bound, mass = bound_and_mass(cdf_flow.log_prob(every).reshape(100, 64).double())
        law = torch.from_numpy(toy1d.probabilities().copy())
        for name, nats in {"with noise": bound, "exact": mass, "entropy of the law": law.log()}.items():
            print(f"{name}: {float(law @ bits_per_dim(nats, dims=1, scale=1)):.4f} bits/dim")
        with plotting.style():
            figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
            axes.bar(torch.arange(100), law, width=1, color="#C9C9C9", label="law of the data")
            axes.stairs(mass.exp(), torch.arange(101) - 0.5, label="P(x)")
            axes.stairs(bound.exp(), torch.arange(101) - 0.5, label="exp of the bound")
            axes.set(xlabel="x", ylabel="probability")
            axes.legend()
            plt.show()
    except NotImplementedError:
        print("There is something to draw once this problem is solved.")

# %% [markdown] nbgrader={"grade": false, "grade_id": "realnvp-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "realnvp"}
# ## Problem 4. RealNVP
#
# In 64 dimensions one coordinate after another is slow. RealNVP moves *half* of them at once, both ways.
#
# ### Affine coupling
#
# A mask splits $x$ in two: $x_a$, which is **kept**, and $x_b$, which is transformed by a scale and a shift that any
# network whatsoever computes from $x_a$:
#
# $$ z_a = x_a, \qquad z_b = x_b \odot e^{s(x_a)} + t(x_a), \qquad
#    J = \begin{pmatrix} I & 0 \\ \ast & \operatorname{diag} e^{s(x_a)} \end{pmatrix}, \qquad \log|\det J| = \sum_{\text{transformed half}} s(x_a)_i . $$
#
# The inverse is as cheap: $x_a = z_a$, so $s$ and $t$ can be computed again from the very same numbers, and $x_b =
# (z_b - t) \odot e^{-s}$. Two things must hold, and most broken flows break one of them: the network sees **nothing
# but the kept half**, or the inverse cannot repeat what it said; and the log-determinant sums over **nothing but the
# transformed half**, or it counts scales that were never applied.
#
# **Write `affine_coupling(x, kept, log_scale, shift)`** for `x`, `log_scale` $= s$ and `shift` $= t$ of shape
# `[batch, C, H, W]` and a bool mask `kept` `[C, H, W]`, returning $z$ and $\log|\det J|$ `[batch]`. A network
# computes $s$ and $t$ for all entries; those where `kept` is true must count for nothing. **And
# `affine_coupling_inverse(z, kept, log_scale, shift)`**, returning $x$ and the log-determinant of *this* direction.


# %% nbgrader={"grade": false, "grade_id": "coupling", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "realnvp"}
def affine_coupling(
    x: torch.Tensor, kept: torch.Tensor, log_scale: torch.Tensor, shift: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """z = x where kept, else x·exp(s) + t; and log|det ∂z/∂x|, [batch]."""
    ### BEGIN SOLUTION
    s, t = log_scale.masked_fill(kept, 0.0), shift.masked_fill(kept, 0.0)
    return x * torch.exp(s) + t, s.flatten(1).sum(1)
    ### END SOLUTION


def affine_coupling_inverse(
    z: torch.Tensor, kept: torch.Tensor, log_scale: torch.Tensor, shift: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """x = z where kept, else (z − t)·exp(−s); and log|det ∂x/∂z|, [batch]."""
    ### BEGIN SOLUTION
    s, t = log_scale.masked_fill(kept, 0.0), shift.masked_fill(kept, 0.0)
    return (z - t) * torch.exp(-s), -s.flatten(1).sum(1)
    ### END SOLUTION


# %% [markdown] nbgrader={"grade": false, "grade_id": "masks-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "realnvp"}
# ### Masks and squeeze
#
# One coupling leaves half of the entries as they were, so the next one keeps the other half (`~kept`). RealNVP uses
# two kinds of masks:
#
# - **Checkerboard:** pixel $(h, w)$ is kept if $h + w$ is even. Each transformed pixel has four kept neighbours to be
#   guessed from.
# - **Channels:** the first half of the channels is kept. There is one channel only; but a **squeeze** makes four of
#   it: each $2 \times 2$ block of pixels becomes one pixel with four channels. Nothing is computed, entries only
#   change places, so the log-determinant is 0.
#
# **Write `checkerboard(channels, height, width)`**: a bool tensor `[channels, height, width]`, the same for every
# channel; **`squeeze(x)`**: `[batch, C, H, W]` to `[batch, 4C, H/2, W/2]`, where entry $(4c + 2i + j,\, h,\, w)$ of
# the result is entry $(c,\, 2h + i,\, 2w + j)$ of `x`, for $i, j \in \{0, 1\}$; and its inverse **`unsqueeze(x)`**.


# %% nbgrader={"grade": false, "grade_id": "masks", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "realnvp"}
def checkerboard(channels: int, height: int, width: int) -> torch.Tensor:
    """bool [channels, height, width]: true where h + w is even."""
    ### BEGIN SOLUTION
    even = (torch.arange(height)[:, None] + torch.arange(width)) % 2 == 0
    return even.expand(channels, height, width)
    ### END SOLUTION


def squeeze(x: torch.Tensor) -> torch.Tensor:
    """[batch, C, H, W] to [batch, 4C, H/2, W/2]: blocks of 2×2 pixels become channels."""
    ### BEGIN SOLUTION
    return F.pixel_unshuffle(x, 2)
    ### END SOLUTION


def unsqueeze(x: torch.Tensor) -> torch.Tensor:
    """[batch, 4C, H, W] to [batch, C, 2H, 2W]: the inverse of squeeze."""
    ### BEGIN SOLUTION
    return F.pixel_shuffle(x, 2)
    ### END SOLUTION


# %% [markdown] nbgrader={"grade": false, "grade_id": "realnvp-model-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "realnvp"}
# ### The model
#
# Three pieces are given below: `Logit` and `Squeeze` make layers of your functions, and `network(shape, width)` is an
# ordinary fully connected network from an image to two images, of which you make $s$ and $t$. Its last layer starts
# at zero, so that a new coupling changes nothing: a deep flow that starts as the identity trains well.
#
# **Write `Coupling`**: $s$ and $t$ from a `network` that is given $x$ *with all but the kept half set to zero*. Take
# $s = g \tanh(\cdot)$, with a parameter $g$ for every entry that starts at one: bounded, so that no single step can
# blow the flow up, and yet as large as training wants.
#
# **Then `build_realnvp`**: a `Compose` of layers in the order in which they are applied to $x$. `Logit`, four
# couplings whose masks are checkerboard and its opposite by turns, `Squeeze`, four couplings with channel masks by
# turns, for glyphs of $8 \times 8$ pixels with 4 levels, is what ours has, with networks of width `WIDTH` and $\alpha
# = 0.05$.


# %% nbgrader={"grade": false, "grade_id": "realnvp-given", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "realnvp"}
class Logit(Transform):
    """Problem 3's logit as the first layer of a flow."""

    def __init__(self, levels: int, alpha: float):
        super().__init__()
        self.levels, self.alpha = levels, alpha

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return logit_forward(x, self.levels, self.alpha)

    def inverse(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return logit_inverse(z, self.levels, self.alpha)


class Squeeze(Transform):
    """Blocks of 2×2 pixels become channels; nothing else happens."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return squeeze(x), x.new_zeros(len(x))

    def inverse(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return unsqueeze(z), z.new_zeros(len(z))

    def out_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """What `Flow` must know of a layer whose result has another shape."""
        return 4 * shape[0], shape[1] // 2, shape[2] // 2


def network(shape: tuple[int, int, int], width: int) -> nn.Module:
    """[batch, C, H, W] to [batch, 2, C, H, W], zero everywhere before training."""
    dims, last = math.prod(shape), nn.Linear(width, 2 * math.prod(shape))
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    hidden = [nn.Linear(dims, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, last, nn.Unflatten(1, (2, *shape)))


# %% nbgrader={"grade": false, "grade_id": "realnvp-model", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "realnvp"}
class Coupling(Transform):
    """z_a = x_a, z_b = x_b·exp(s(x_a)) + t(x_a), where `kept`, bool [C, H, W], marks x_a."""

    def __init__(self, kept: torch.Tensor, width: int):
        super().__init__()
        ### BEGIN SOLUTION
        # Follows from what build says, so it need not be saved.
        self.register_buffer("kept", kept.clone(), persistent=False)
        self.network = network(tuple(kept.shape), width)
        self.largest = nn.Parameter(torch.ones(kept.shape))
        ### END SOLUTION

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """z, of the shape of x, and log|det ∂z/∂x| [batch]."""
        ### BEGIN SOLUTION
        return affine_coupling(x, self.kept, *self.scale_and_shift(x))
        ### END SOLUTION

    def inverse(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x, of the shape of z, and log|det ∂x/∂z| [batch]."""
        ### BEGIN SOLUTION
        return affine_coupling_inverse(z, self.kept, *self.scale_and_shift(z))

    def scale_and_shift(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """s and t, which see the kept half only: the same for x and for z."""
        raw, shift = self.network(torch.where(self.kept, x, 0.0)).unbind(1)
        return self.largest * torch.tanh(raw), shift
        ### END SOLUTION


def build_realnvp() -> Flow:
    """An untrained RealNVP for 8×8 glyphs with 4 levels."""
    ### BEGIN SOLUTION
    board = checkerboard(1, 8, 8)
    channels = (torch.arange(4) < 2)[:, None, None].expand(4, 4, 4)
    layers = [Logit(levels=4, alpha=0.05)]
    layers += [Coupling(kept, WIDTH) for kept in (board, ~board, board, ~board)]
    layers += [Squeeze()]
    layers += [Coupling(kept, WIDTH) for kept in (channels, ~channels, channels, ~channels)]
    return Flow(Compose(layers), shape=(1, 8, 8), levels=4)
    ### END SOLUTION


def train_realnvp(model: Flow) -> "training.History":
    """Maximise the likelihood of the training glyphs under noise."""
    ### BEGIN SOLUTION
    return training.fit(
        model,
        glyphs["train"],
        glyphs["validation"],
        generator=fresh_generator(),
        steps=STEPS["realnvp"],
        batch_size=64,
        lr=3e-3,
        schedule=training.cosine,
        loss=noisy_loss,
        device=device,
    )
    ### END SOLUTION


# %% nbgrader={"grade": false, "grade_id": "realnvp-data", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "realnvp"}
glyphs = {split: data.load("glyphs", split, size=8, levels=4, n=n) for split, n in IMAGES.items()}
print({split: tuple(part.x.shape) for split, part in glyphs.items()})
if pictures:
    display(plotting.show_images(glyphs["train"].x[:16], levels=4))

# %% nbgrader={"grade": true, "grade_id": "realnvp-graded", "locked": true, "points": 26, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "realnvp"}
realnvp = None  # in case the next line fails
realnvp = handin.trained("realnvp", build_realnvp, train_realnvp, example=glyphs["validation"].x[:8])
if realnvp is not None:
    claim("realnvp", realnvp, glyphs["validation"])

# %% nbgrader={"grade": false, "grade_id": "realnvp-check", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "realnvp"}
handin.check("realnvp")

# %% [markdown] nbgrader={"grade": false, "grade_id": "realnvp-look-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "realnvp"}
# ### Look at it
#
# Sixteen samples: noise, sent backwards, and rounded down to a level. Below them three journeys. The two ends are
# real glyphs; between them $z$ moves evenly from the one to the other, and every step is sent back to an image. A
# straight line between the *images* would show one fading into the other.

# %% nbgrader={"grade": false, "grade_id": "realnvp-samples", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "realnvp"}
if pictures and realnvp is not None:
    with torch.no_grad():
        samples = realnvp.sample(16, generator=fresh_generator())
        ends = realnvp(glyphs["validation"].x[:6] + 0.5)[0].reshape(3, 2, 1, 64)
        path = torch.lerp(ends[:, 0], ends[:, 1], torch.linspace(0, 1, 8)[:, None])  # [3, 8, 64]
        between = realnvp.inverse(path.reshape(24, 64))[0]
    display(plotting.show_images(torch.cat([samples, between]).floor().clamp(0, 3), levels=4))

# %% [markdown] nbgrader={"grade": false, "grade_id": "realnvp-curves-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "realnvp"}
# How training went. Where the two lines part, the model begins to learn its training images by heart; `training.fit`
# has kept the weights of the best validation.

# %% nbgrader={"grade": false, "grade_id": "realnvp-curves", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "realnvp"}
if pictures and realnvp is not None and handin.registry["realnvp"].history is not None:
    display(plotting.curves(handin.registry["realnvp"].history))

# %% [markdown] nbgrader={"grade": false, "grade_id": "written-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## In words
#
# (a) A friend trains a flow and forgets the log-determinant: the loss is $-\log p_z(f(x))$ alone. What does $f$
# become, and what do samples look like? Another one writes it with the wrong sign. What does training do now?
#
# (b) Somebody puts $|x|$ in front of a flow as a layer of its own, with $\log|f'(x)| = 0$. This log-determinant is
# right wherever it exists. Why does training find a "likelihood" that is too good to be true, and what can the
# integral of this "density" over all $x \in \mathbb{R}$ reach? Say how the referee notices, who does not look at
# log-determinants at all.

# %% [markdown] nbgrader={"grade": true, "grade_id": "written", "locked": false, "points": 10, "schema_version": 3, "solution": true, "task": false}
# (a) Without the log-determinant stretching costs nothing and shrinking brings nothing back, so the loss is least
# where every $x$ is sent to the mode $z = 0$: $f$ contracts as far as its layers can. Samples go the other way: noise
# of size one is blown up by the huge inverse, far beyond the data. With the wrong sign contraction is even rewarded:
# the loss $-\log p_z(f(x)) + \log|\det J|$ falls without limit as $\det J \to 0$, and training diverges or runs into
# whatever bounds the scales.
#
# (b) $|x|$ is not one-to-one: $x$ and $-x$ share a $z$, and both are given the whole of its density. If $q$ is the
# density of the flow behind, the integral of $q(|x|)$ is twice the mass of $q$ on the positive numbers, and training
# moves all of that mass there, so it reaches 2: one bit for every dimension that is folded, which no code can keep.
# The referee gives $z$ to a copy of the model that never saw $x$. It cannot know which of the two it was and answers
# the wrong one half of the time, and an answer that is wrong by much more than $10^{-4}$ costs as much as an image
# may cost at all.

# %% [markdown] nbgrader={"grade": false, "grade_id": "pack-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Hand in
#
# Run the whole notebook from the top once more (Kernel → Restart & Run All), then `handin.pack()`. It checks that the
# notebook can be read and zips what is to be uploaded.
