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
# # Homework 1. Likelihood and autoregressive models
#
# You will write four models, each able to do what the one before it cannot, and judge all of them by one number: how
# many **bits** they need to say what happened.
#
# | problem | you write | points |
# |---|---|---|
# | 1. Counting | the unit of the course, a histogram by maximum likelihood | 20 |
# | 2. A few parameters instead of a table | a mixture of discretised logistics | 25 |
# | 3. MADE | masks, an autoregressive network in an unusual ordering, its sampler | 45 |
# | 4. Masked convolutions | masks for any channels, what a stack of them sees | 20 |
# | 5. A Gated PixelCNN | two stacks without a blind spot, told which digit to draw | 30 |
# | In words | why it sums to one, and what goes wrong when it does not (graded by hand) | 10 |
#
# **How to work.** Fill in every `# YOUR CODE HERE`. Keep the names of functions and classes, and do not edit or delete
# the other cells (the grader restores them); new cells of your own are welcome. `handin.check("…")` at the end of each
# problem runs the grader's own checks on public examples and says in words what is wrong; call it in a cell of your own
# as often as you like. A problem that is not solved yet says so and stops nobody, and an error in one problem costs
# that problem only.
#
# **How it is scored.** Functions are called on inputs that you have not seen, and their answers compared with ours. A
# model is scored in bits per dimension on fresh images that nobody has seen, drawn when your homework is graded: full
# points at the level of our own model of the same size and training, falling in a straight line to none. The referee
# does not read what your notebook prints, nor your `log_prob`. It sends your model the pixels that come *before* a
# position, fills all the others with pixels of an unrelated image, receives your probabilities for that position, and only
# then looks the true pixel up. So a model that peeks at the pixel it should predict bets on the wrong one, and pays.
#
# **Time.** The whole notebook has ten minutes on one CPU core; our solution takes about three. What was handed in
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
from torch import nn

from dulcourse import data, handin, plotting, training
from dulcourse.autoregressive import orders
from dulcourse.autoregressive.base import AutoregressiveModel

handin.begin("hw1_autoregressive")

# Sizes that suffice for full points in each tier. You may choose your own; the time limit stays.
STEPS = {
    "smoke": {"mixture": 200, "made": 300, "gated": 100},
    "cpu": {"mixture": 2000, "made": 3000, "gated": 600},
    "gpu": {"mixture": 2000, "made": 3000, "gated": 600},
}[tier]
HIDDEN = {"smoke": (64,), "cpu": (128,), "gpu": (128,)}[tier]
CHANNELS = {"smoke": 16, "cpu": 24, "gpu": 24}[tier]  # of the Gated PixelCNN
IMAGES = {"train": 2048, "validation": 256} if tier == "smoke" else {"train": 8192, "validation": 1024}

# The grader runs the notebook twice, and the second time only loads what was trained: no pictures then.
pictures = handin.session.mode == "train"


def fresh_generator() -> torch.Generator:
    """A generator that starts from `seed`: draw from your own, and a cell gives the same result when it is run again."""
    return torch.Generator().manual_seed(seed)


# %% [markdown] nbgrader={"grade": false, "grade_id": "histogram-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "histogram"}
# ## Problem 1. Counting
#
# ### One unit for every model
#
# A model $p_\theta$ of images $x = (x_1, \dots, x_D)$ with levels $x_i \in \{0, \dots, L-1\}$ can be used as a code: a
# symbol of probability $p$ gets a code word of about $-\log_2 p$ bits. We therefore measure a model by the length of the
# message it would write, divided by the number of pixels:
#
# $$ \text{bits per dimension of } x \;=\; -\frac{1}{D} \log_2 p_\theta(x) \;=\; -\frac{1}{D \ln 2} \sum_{i=1}^{D} \log p_\theta(x_i \mid \cdot). $$
#
# Here $\log$ is the natural logarithm, whose unit is the nat, as in torch; one nat is $1/\ln 2 \approx 1.44$ bits. The sum
# on the right is over pixels, whatever each pixel is conditioned on. A model that knows nothing (uniform) needs exactly
# $\log_2 L$ bits per dimension, whatever the image.
#
# In this course every discrete model returns unnormalised log-probabilities, **logits**, of shape
# `[batch, levels, *shape]` for images `x` (int64) of shape `[batch, *shape]`: entry `logits[n, l, ...]` belongs to the event
# "this pixel of image n has level l". A softmax over axis 1 makes them probabilities.
#
# **Write `mean_bits_per_dim(logits, x)`**: the mean over the batch of the bits per dimension, a scalar tensor.


# %% nbgrader={"grade": false, "grade_id": "mean-bits-per-dim", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "histogram"}
def mean_bits_per_dim(logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of −log₂ p(x)/D, for logits [batch, levels, *shape] and int64 x [batch, *shape]."""
    ### BEGIN SOLUTION
    # The mean over batch and pixels at once: every image has the same number of pixels.
    return F.cross_entropy(logits, x) / math.log(2)
    ### END SOLUTION


# %% [markdown] nbgrader={"grade": false, "grade_id": "histogram-mle-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "histogram"}
# ### Maximum likelihood is counting
#
# Take the simplest data: one number with $L = 100$ levels, seen $n$ times. Let $c_l$ be how often level $l$ was seen and
# $\hat p(l) = c_l / n$ the empirical distribution. The average code length under a model $p_\theta$ splits in two:
#
# $$ -\frac{1}{n}\sum_{k=1}^{n} \log p_\theta(x^{(k)}) \;=\; -\sum_l \hat p(l) \log p_\theta(l) \;=\; H(\hat p) + \mathrm{KL}(\hat p \,\|\, p_\theta). $$
#
# The entropy $H(\hat p)$ does not depend on $\theta$, and the divergence is at least zero, and zero only for
# $p_\theta = \hat p$. So if every distribution over the levels is allowed, **the maximum-likelihood model is the
# empirical distribution**: no gradient descent, just counting.
#
# It is also a dangerous code. A level that was never seen gets probability 0, and the first time it comes up it costs
# $-\log_2 0 = \infty$ bits. The cure is to pretend that every level was seen $\alpha > 0$ times more:
#
# $$ p(l) = \frac{c_l + \alpha}{n + \alpha L}. $$
#
# **Write `fit_histogram(x, levels, smoothing)`**, returning $\log p(l)$ for all levels (a float64 tensor of shape `[levels]`),
# with $\alpha$ = `smoothing`; **write `Histogram.logits`**, which says the same thing about every image; and hand the
# model in.


# %% nbgrader={"grade": false, "grade_id": "fit-histogram", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "histogram"}
def fit_histogram(x: torch.Tensor, levels: int, smoothing: float) -> torch.Tensor:
    """log p(l) = log((c_l + α)/(n + αL)), float64 [levels], for int64 x [n] and α = smoothing."""
    ### BEGIN SOLUTION
    counts = torch.bincount(x, minlength=levels).double()
    return torch.log(counts + smoothing) - math.log(len(x) + smoothing * levels)
    ### END SOLUTION


# %% nbgrader={"grade": false, "grade_id": "histogram-model", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "histogram"}
class Histogram(AutoregressiveModel):
    """One table of log-probabilities for every pixel: p(x) = Π_i exp(log_p[x_i])."""

    def __init__(self, shape: tuple[int, int, int], levels: int):
        super().__init__(shape, levels)
        # A buffer is saved with the model, and is not trained by gradients.
        self.register_buffer("log_p", torch.full((levels,), -math.log(levels)))

    def logits(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        """The same table for every image and pixel: [batch, levels, C, H, W] for x [batch, C, H, W]."""
        ### BEGIN SOLUTION
        batch, *shape = x.shape
        return self.log_p.reshape(1, -1, 1, 1, 1).expand(batch, -1, *shape)
        ### END SOLUTION


def build_histogram() -> Histogram:
    """A histogram of one pixel with 100 levels, before it has seen any data."""
    return Histogram(shape=(1, 1, 1), levels=100)


def train_histogram(model: Histogram) -> None:
    """Fill the table from the training set."""
    model.log_p.copy_(fit_histogram(numbers["train"].x.flatten(), levels=100, smoothing=1.0))


# %% nbgrader={"grade": false, "grade_id": "histogram-data", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "histogram"}
numbers = {split: data.load("toy1d", split) for split in ("train", "validation")}
print({split: tuple(part.x.shape) for split, part in numbers.items()})


# %% nbgrader={"grade": true, "grade_id": "histogram-graded", "locked": true, "points": 20, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "histogram"}
def claim(name: str, model: nn.Module, images: data.Dataset) -> None:
    """Tell the grader what this notebook measures of its own model; the referee's number is set beside it."""
    classes = getattr(model, "classes", None)
    with torch.no_grad():
        logits = model.logits(images.x, images.y if classes else None)
    price = math.log2(classes) / images.dims if classes else 0.0  # of the labels that the model is given
    try:
        bits = float(mean_bits_per_dim(logits, images.x)) + price
    except Exception as error:
        print(f"{name}: no claim, because mean_bits_per_dim raised {type(error).__name__}: {error}")
        return
    uniform = math.log2(images.levels)
    print(f"{name}: {bits:.4f} bits/dim on the validation set; a uniform guess costs {uniform:.4f}")
    handin.claim(name, bits)


histogram = None  # in case the next line fails
histogram = handin.trained("histogram", build_histogram, train_histogram, example=numbers["validation"].x[:8])
if histogram is not None:
    claim("histogram", histogram, numbers["validation"])

# %% nbgrader={"grade": false, "grade_id": "histogram-check", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "histogram"}
handin.check("histogram")

# %% [markdown] nbgrader={"grade": false, "grade_id": "mixture-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "mixture"}
# ## Problem 2. A few parameters instead of a table
#
# With a hundred training numbers a table of a hundred probabilities mostly memorises which levels happened to come up.
# And tables do not grow: an $8 \times 8$ image with 4 levels would need $4^{64} \approx 10^{38}$ entries. Both troubles have one
# cure, to describe many probabilities by few parameters, so that neighbouring levels share what was learned.
#
# ### The discretised logistic
#
# The logistic distribution with mean $\mu$ and scale $s > 0$ has the cumulative distribution function
# $F(v) = \sigma\big((v - \mu)/s\big)$, where $\sigma(a) = 1/(1 + e^{-a})$. Level $l$ receives the mass of the interval of
# width one around it, and the two outermost levels the whole of their tails:
#
# $$ P(l) = \begin{cases}
#   \sigma\!\left(\frac{\frac12 - \mu}{s}\right) & l = 0 \\[4pt]
#   \sigma\!\left(\frac{l + \frac12 - \mu}{s}\right) - \sigma\!\left(\frac{l - \frac12 - \mu}{s}\right) & 0 < l < L-1 \\[4pt]
#   1 - \sigma\!\left(\frac{L - \frac32 - \mu}{s}\right) & l = L-1.
# \end{cases} $$
#
# Added up, everything but $1$ cancels, so $\sum_l P(l) = 1$ for *every* $\mu$ and $s$. Without the open tails some mass
# would fall outside, and every image would cost more than it should.
#
# **Do not compute this difference as it stands.** When $s$ is small and $l$ far from $\mu$, both terms round to 1 (or to 0)
# and their difference to $0$, whose logarithm is $-\infty$ with a gradient of NaN. Write $a = (l + \frac12 - \mu)/s$ and
# $b = (l - \frac12 - \mu)/s$, so that $a - b = 1/s$. Put over one denominator,
#
# $$ \sigma(a) - \sigma(b) = \frac{e^{-b} - e^{-a}}{(1 + e^{-a})(1 + e^{-b})} = \sigma(a)\,\sigma(-b)\,\big(1 - e^{-1/s}\big), $$
#
# and the logarithm of the right-hand side is a sum of three terms that never overflow or cancel. Useful:
# `F.logsigmoid`, `torch.expm1`, and $1 - \sigma(b) = \sigma(-b)$ for the upper tail.
#
# **Write `discretised_logistic_log_prob(x, means, log_scales, levels)`**: $\log P(x)$ elementwise, for `x`, `means` and
# `log_scales` $= \log s$ of shapes that broadcast against each other.


# %% nbgrader={"grade": false, "grade_id": "discretised-logistic", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "mixture"}
def discretised_logistic_log_prob(
    x: torch.Tensor, means: torch.Tensor, log_scales: torch.Tensor, levels: int
) -> torch.Tensor:
    """log P(x) of a logistic(μ, s) rounded to 0…levels−1, with open tails; all arguments broadcast."""
    ### BEGIN SOLUTION
    inverse_scale = torch.exp(-log_scales)
    upper = (x + 0.5 - means) * inverse_scale
    lower = (x - 0.5 - means) * inverse_scale
    below = F.logsigmoid(upper)  # log P(not above x)
    above = F.logsigmoid(-lower)  # log P(not below x)
    inside = below + above + torch.log(-torch.expm1(-inverse_scale))
    return torch.where(x == 0, below, torch.where(x == levels - 1, above, inside))
    ### END SOLUTION


# %% [markdown] nbgrader={"grade": false, "grade_id": "mixture-mixture-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "mixture"}
# ### A mixture
#
# One bump is rarely enough. A mixture of $K$ of them, with weights $\pi = \mathrm{softmax}(w)$, is
#
# $$ P(x) = \sum_{k=1}^{K} \pi_k \, P_k(x), \qquad
#    \log P(x) = \operatorname{logsumexp}_k \big( \log \pi_k + \log P_k(x) \big). $$
#
# **Write `mixture_log_prob(x, weights_logits, means, log_scales, levels)`** for `x` of any shape `[*shape]` and the three
# parameters of shape `[K]` each (the same mixture for all entries), returning `[*shape]`.
#
# **Then write the model.** Its parameters are $w$, $\mu$ and $\log s$; its logits are $\log P(l)$ at all levels. Three
# pieces of advice:
#
# - Adam moves every parameter by about the learning rate per step, so let parameters be of order one: store
#   $\mu / L$, not $\mu$.
# - Start with means spread evenly over the range and scales of about a twentieth of it, so that every component has data of
#   its own to fit. (Components that start alike get the same gradient, and stay alike for ever.)
# - `training.fit(model, train, validation, generator=…, steps=…, lr=…)` minimises $-\log p$ and keeps the weights that are best
#   on the validation set; return what it returns. With `schedule=training.cosine` the learning rate falls to zero, so it may
#   start high.


# %% nbgrader={"grade": false, "grade_id": "mixture-model", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "mixture"}
def mixture_log_prob(
    x: torch.Tensor,
    weights_logits: torch.Tensor,
    means: torch.Tensor,
    log_scales: torch.Tensor,
    levels: int,
) -> torch.Tensor:
    """log Σ_k π_k P_k(x) with π = softmax(weights_logits); parameters [K], x and result [*shape]."""
    ### BEGIN SOLUTION
    each = discretised_logistic_log_prob(x[..., None], means, log_scales, levels)
    return torch.logsumexp(F.log_softmax(weights_logits, dim=-1) + each, dim=-1)
    ### END SOLUTION


class Mixture(AutoregressiveModel):
    """The same mixture of K discretised logistics for every pixel."""

    def __init__(self, shape: tuple[int, int, int], levels: int, components: int):
        super().__init__(shape, levels)
        ### BEGIN SOLUTION
        self.weights_logits = nn.Parameter(torch.zeros(components))
        self.relative_means = nn.Parameter((torch.arange(components) + 0.5) / components)
        self.log_scales = nn.Parameter(torch.full((components,), math.log(levels / 20)))
        ### END SOLUTION

    def logits(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        """log P(l) for every level, the same for every image and pixel: [batch, levels, C, H, W]."""
        ### BEGIN SOLUTION
        batch, *shape = x.shape
        every_level = torch.arange(self.levels, device=x.device)
        means = self.levels * self.relative_means
        log_p = mixture_log_prob(every_level, self.weights_logits, means, self.log_scales, self.levels)
        return log_p.reshape(1, -1, 1, 1, 1).expand(batch, -1, *shape)
        ### END SOLUTION


def build_mixture() -> Mixture:
    """An untrained mixture for one pixel with 100 levels."""
    ### BEGIN SOLUTION
    return Mixture(shape=(1, 1, 1), levels=100, components=6)
    ### END SOLUTION


def train_mixture(model: Mixture, examples: data.Dataset) -> "training.History":
    """Fit by gradient descent on `examples`; problem 1's validation numbers say when it is best."""
    ### BEGIN SOLUTION
    return training.fit(
        model,
        examples,
        numbers["validation"],
        generator=fresh_generator(),
        steps=STEPS["mixture"],
        batch_size=256,
        lr=5e-2,
        schedule=training.cosine,
        device=device,
    )
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "mixture-graded", "locked": true, "points": 25, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "mixture"}
mixture = None  # in case the next line fails
mixture = handin.trained(
    "mixture",
    build_mixture,
    lambda model: train_mixture(model, numbers["train"]),
    example=numbers["validation"].x[:8],
)
if mixture is not None:
    claim("mixture", mixture, numbers["validation"])

# %% nbgrader={"grade": false, "grade_id": "mixture-check", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "mixture"}
handin.check("mixture")

# %% [markdown] nbgrader={"grade": false, "grade_id": "overfit-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "mixture"}
# With 4096 numbers the two are about equally good. Now give both only the first hundred: the table is the better code
# for what it has seen, the curve with few parameters for what comes next.

# %% nbgrader={"grade": false, "grade_id": "overfit-figure", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "mixture"}
if pictures and histogram is not None and mixture is not None:
    few = data.Dataset("the first hundred", "train", numbers["train"].x[:100], levels=100)
    table, curve = build_histogram(), build_mixture()
    table.log_p.copy_(fit_histogram(few.x.flatten(), levels=100, smoothing=0.1))
    train_mixture(curve, few)
    for name, model in {"histogram": table, "mixture": curve}.items():
        seen, unseen = (training.evaluate(model, part) for part in (few, numbers["validation"]))
        print(f"{name}: {seen:.2f} bits/dim on the hundred, {unseen:.2f} on other numbers")
    with torch.no_grad():
        log_p = {
            name: m.logits(few.x[:1]).flatten() for name, m in {"histogram": table, "mixture": curve}.items()
        }
    display(plotting.distribution(log_p, torch.bincount(numbers["train"].x.flatten(), minlength=100)))

# %% [markdown] nbgrader={"grade": false, "grade_id": "made-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "made"}
# ## Problem 3. MADE
#
# Now whole images: glyphs of $8 \times 8$ pixels with 4 levels. By the chain rule *every* distribution is a product of
# conditionals, in any ordering of the pixels we like. Let `order[t]` be the index of the pixel that is generated $t$-th; then
#
# $$ p(x) = \prod_{t=0}^{D-1} p\big(x_{\mathrm{order}[t]} \,\big|\, x_{\mathrm{order}[0]}, \dots, x_{\mathrm{order}[t-1]}\big). $$
#
# Its inverse `rank` answers the other question: pixel $i$ is generated at time `rank[i]`, so `rank[order[t]] == t`. Pixel $i$
# may depend on pixel $j$ exactly if `rank[j] < rank[i]`. Keep the two apart: this homework generates from the centre
# outwards in a **spiral**, whose `order` and `rank` differ. (The raster scan is its own inverse, and hides the mistake.)
# Pixels are counted as in `x.flatten(1)`.
#
# A network that maps an image to all its conditionals in *one* pass must not let pixel $i$'s output see pixel $i$ or
# anything generated later. MADE does it by masks on the weights of an ordinary fully connected network.
#
# ### Masks
#
# Give every unit a **degree**, a number from $0$ to $D - 1$, whose meaning is "depends on no pixel of rank above this":
#
# - the input for pixel $i$ has degree `rank[i]`;
# - a hidden unit has any degree $m \in \{0, \dots, D-2\}$, and keeps a connection from a unit of degree $d$ if $m \ge d$;
# - the outputs for pixel $i$ have degree `rank[i]` and keep a connection from a unit of degree $m$ if `rank[i]` $> m$: **strictly**.
#
# Along a path from input $j$ to output $i$ degrees never fall and the last step rises, so `rank[j] < rank[i]`. One strict
# comparison on every path is needed, and more than one would lose connections. With a hidden layer the strict one is the
# last; a *direct* connection from inputs to outputs, which is worth having, is itself a first and last step, and so strict too.
#
# **Write `mask(in_degrees, out_degrees, strict)`**: a bool tensor `[out, in]` (as `nn.Linear` keeps its weight) that is true where
# the connection is kept: `out_degree > in_degree` if `strict`, else `out_degree >= in_degree`.


# %% nbgrader={"grade": false, "grade_id": "mask", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "made"}
def mask(in_degrees: torch.Tensor, out_degrees: torch.Tensor, strict: bool) -> torch.Tensor:
    """bool [out, in]: which connections stay, for integer degrees [in] and [out]."""
    ### BEGIN SOLUTION
    if strict:
        return out_degrees[:, None] > in_degrees[None, :]
    return out_degrees[:, None] >= in_degrees[None, :]
    ### END SOLUTION


# %% [markdown] nbgrader={"grade": false, "grade_id": "made-model-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "made"}
# ### The network
#
# `MaskedLinear` below multiplies its weight by its mask at every use. (Writing zeros into the weight once does not help: the
# next gradient step fills them.)
#
# **Write `MADE`**: the constructor and `logits`. The base class holds `self.order` and `self.rank`, int64 tensors of shape `[D]`.
#
# - *In:* `x.flatten(1)`, scaled from $0 \dots L-1$ to $-1 \dots 1$: one float a pixel, of degree `rank[i]`. (Levels of grey are
#   ordered, so one number says it all. For levels that are mere names one would use one-hot vectors.)
# - *Out:* $L$ logits for each of the $D$ pixels. If those of one pixel stand side by side, output number $i L + l$ is level $l$ of pixel
#   $i$ and has degree `rank[i]`; `repeat_interleave` builds such degrees. At the end bring them to `[batch, levels, C, H, W]`:
#   `unflatten` and `transpose` do it. (A `reshape` alone would mix up levels and pixels.)
#
# - Spread hidden degrees evenly over $0 \dots D-2$ and have at least as many hidden units as there are values: a degree that
#   no unit has is a pixel that the next output hears nothing of (but over a direct connection).
# - Everything the network needs to be the same after it is saved and loaded must be a parameter or a buffer.
#   `handin.trained` rebuilds your model from its saved state and compares.
#
# ### Sampling
#
# **Write `sample`**: `n` images, one pixel after another *in the model's ordering*: at time $t$ compute the conditional of pixel
# `order[t]` from what was drawn so far, draw it, write it down. `torch.multinomial(p, 1, generator=generator)` draws from rows of probabilities.
# What the pixels that are not drawn yet contain cannot matter, if your masks are right. (The base class has a slow
# `sample` too. Calling it earns the points and teaches nothing; compare yours with it.)


# %% nbgrader={"grade": false, "grade_id": "made-model", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "made"}
class MaskedLinear(nn.Linear):
    """y = (W ⊙ M) x + b."""

    def __init__(self, in_degrees: torch.Tensor, out_degrees: torch.Tensor, strict: bool, bias: bool = True):
        super().__init__(len(in_degrees), len(out_degrees), bias=bias)
        # Follows from the degrees, so it need not be saved.
        self.register_buffer("mask", mask(in_degrees, out_degrees, strict), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class MADE(AutoregressiveModel):
    """All conditionals p(x_i | pixels of lower rank) in one pass through a masked network."""

    def __init__(
        self, shape: tuple[int, int, int], levels: int, order: torch.Tensor, hidden: tuple[int, ...]
    ):
        super().__init__(shape, levels, order)
        ### BEGIN SOLUTION
        pixels = len(self.order)
        inputs, outputs = self.rank, self.rank.repeat_interleave(levels)  # degrees
        layers, before = [], inputs
        for width in hidden:
            after = torch.arange(width) % (pixels - 1)
            layers += [MaskedLinear(before, after, strict=False), nn.ReLU()]
            before = after
        self.network = nn.Sequential(*layers, MaskedLinear(before, outputs, strict=True))
        self.direct = MaskedLinear(inputs, outputs, strict=True, bias=False)
        ### END SOLUTION

    def logits(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of every conditional: [batch, levels, C, H, W] for int64 x [batch, C, H, W]."""
        ### BEGIN SOLUTION
        scaled = 2 * x.flatten(1) / (self.levels - 1) - 1
        outputs = self.network(scaled) + self.direct(scaled)  # [batch, D·L]
        return outputs.unflatten(1, (-1, self.levels)).transpose(1, 2).unflatten(2, self.shape)
        ### END SOLUTION

    @torch.no_grad()
    def sample(self, n: int, y: torch.Tensor | None = None, *, generator: torch.Generator) -> torch.Tensor:
        """n images, int64 [n, C, H, W], drawn pixel by pixel in the model's ordering."""
        ### BEGIN SOLUTION
        x = torch.zeros(n, *self.shape, dtype=torch.int64, device=self.order.device)
        for pixel in self.order.tolist():
            p = self.logits(x).flatten(2)[:, :, pixel].softmax(1)
            x.flatten(1)[:, pixel] = torch.multinomial(p, 1, generator=generator)[:, 0]
        return x
        ### END SOLUTION


# %% nbgrader={"grade": false, "grade_id": "made-train", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "made"}
def build_made() -> MADE:
    """An untrained MADE for 8×8 glyphs with 4 levels, in the spiral ordering."""
    ### BEGIN SOLUTION
    return MADE((1, 8, 8), levels=4, order=orders.spiral((1, 8, 8)), hidden=HIDDEN)
    ### END SOLUTION


def train_made(model: MADE) -> "training.History":
    """Maximise the likelihood of the training glyphs, keeping the best weights on the validation set."""
    ### BEGIN SOLUTION
    return training.fit(
        model,
        glyphs["train"],
        glyphs["validation"],
        generator=fresh_generator(),
        steps=STEPS["made"],
        batch_size=64,
        lr=1e-2,
        schedule=training.cosine,
        device=device,
    )
    ### END SOLUTION


# %% nbgrader={"grade": false, "grade_id": "made-data", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "made"}
glyphs = {split: data.load("glyphs", split, size=8, levels=4, n=n) for split, n in IMAGES.items()}
print({split: tuple(part.x.shape) for split, part in glyphs.items()})
if pictures:
    display(plotting.show_images(glyphs["train"].x[:16], levels=4))

# %% nbgrader={"grade": true, "grade_id": "made-graded", "locked": true, "points": 45, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "made"}
made = None  # in case the next line fails
made = handin.trained("made", build_made, train_made, example=glyphs["validation"].x[:8])
if made is not None:
    claim("made", made, glyphs["validation"])

# %% [markdown] nbgrader={"grade": false, "grade_id": "made-check-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "made"}
# The check looks at your model as the referee will. Where something is wrong it also draws which output depends on which
# input: all $64 \times 64$ pairs in the order of generation, found by changing one input at a time. Nothing may lie on or above
# the diagonal; the first pair that does is named.

# %% nbgrader={"grade": false, "grade_id": "made-check", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "made"}
handin.check("made")

# %% [markdown] nbgrader={"grade": false, "grade_id": "made-look-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "made"}
# ### Look at it
#
# Eight samples, and below each the training glyph nearest to it. If they were the same, the model would be memorising.

# %% nbgrader={"grade": false, "grade_id": "made-samples", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "made"}
if pictures and made is not None:
    try:
        samples = made.sample(8, generator=fresh_generator())
        distance = torch.cdist(samples.flatten(1).float(), glyphs["train"].x.flatten(1).float(), p=1)
        nearest = glyphs["train"].x[distance.argmin(1)]
        display(plotting.show_images(torch.cat([samples, nearest]), levels=4))
    except NotImplementedError:
        print("sample is not written yet.")

# %% [markdown] nbgrader={"grade": false, "grade_id": "made-curves-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "made"}
# How training went. Where the two lines part, the model begins to learn its training images by heart, and more steps
# no longer help; `training.fit` has kept the weights of the best validation.

# %% nbgrader={"grade": false, "grade_id": "made-curves", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "made"}
if pictures and made is not None and handin.registry["made"].history is not None:
    display(plotting.curves(handin.registry["made"].history))

# %% [markdown] nbgrader={"grade": false, "grade_id": "pixelcnn-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "pixelcnn"}
# ## Problem 4. Masked convolutions
#
# MADE gives every pixel weights of its own: $64$ pixels by $128$ hidden units, and a $28 \times 28$ image would need twelve times as
# many. What an edge looks like does not depend on where it is, so share the weights: a **convolution**. Its conditionals
# are causal in the raster order if its kernel is multiplied by a mask that keeps
#
# - every row above the centre, whole;
# - of the centre's row, what is left of the centre;
# - at the centre itself, what has been generated before: that depends on the channels.
#
# Pixels of a colour image are generated red, then green, then blue. Give every input and every output channel of a layer a
# **group**, a number that says which of them it belongs to (features too: they are shared out among the colours). At the centre, a layer
# that is *strict* keeps a connection if the output's group is greater than the input's, and one that is not, also if they are equal.
# That is MADE's comparison again, with groups for degrees. For grey images there is one group, and the centre is kept or not.
# In the literature a strict mask is called *type A* and one that is not *type B*. The first layer must be strict, the others not.
#
# **Write `conv_mask(in_groups, out_groups, kernel_size, strict)`**: a bool tensor `[out, in, k, k]` (as `nn.Conv2d` keeps its weight), for
# odd $k$ and integer groups `[in]` and `[out]`.


# %% nbgrader={"grade": false, "grade_id": "conv-mask", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "pixelcnn"}
def conv_mask(
    in_groups: torch.Tensor, out_groups: torch.Tensor, kernel_size: int, strict: bool
) -> torch.Tensor:
    """bool [out, in, k, k]: which weights of a convolution stay, for integer groups [in] and [out] and odd k."""
    ### BEGIN SOLUTION
    centre = kernel_size // 2
    kept = torch.zeros(len(out_groups), len(in_groups), kernel_size, kernel_size, dtype=torch.bool)
    kept[:, :, :centre, :] = True
    kept[:, :, centre, :centre] = True
    kept[:, :, centre, centre] = mask(in_groups, out_groups, strict)
    return kept
    ### END SOLUTION


# %% [markdown] nbgrader={"grade": false, "grade_id": "seen-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "pixelcnn"}
# ### What a stack of them sees
#
# A pixel's output sees what its layers let through, hop by hop. With a kernel of size $k$ a hop of the first layer goes up by $1 \dots \lfloor k/2 \rfloor$ rows and at most
# $\lfloor k/2 \rfloor$ columns to either side, or to the left in the same row; a hop of a later layer may also stay where it is. No hop goes to the
# right in its own row. So whatever lies to the right and above can only be reached if enough rows lie between: part of the past
# is *never* seen, however many layers there are. It is the **blind spot** of the PixelCNN.
#
# **Write `seen(height, width, row, column, kernel_size, layers)`**: a bool tensor of shape `[height, width]`, true where a pixel of a grey image is
# among those that the output at (`row`, `column`) depends on, after `layers` layers of which only the first is strict. (Follow the hops from
# the output back to the image, one layer at a time; pixels outside the image are zero and lead nowhere.)


# %% nbgrader={"grade": false, "grade_id": "seen", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "pixelcnn"}
def seen(height: int, width: int, row: int, column: int, kernel_size: int, layers: int) -> torch.Tensor:
    """bool [height, width]: the pixels that the output at (row, column) depends on."""
    ### BEGIN SOLUTION
    grey, reach = torch.zeros(1, dtype=torch.int64), kernel_size // 2
    reached = torch.zeros(height, width)
    reached[row, column] = 1
    for strict in [False] * (layers - 1) + [True]:  # from the last layer to the first
        kernel = conv_mask(grey, grey, kernel_size, strict).float()
        # The transposed convolution sends what is reached to where it came from.
        reached = F.conv_transpose2d(reached[None, None], kernel, padding=reach)[0, 0].clamp(max=1)
    return reached > 0
    ### END SOLUTION


# %% nbgrader={"grade": false, "grade_id": "pixelcnn-check", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "pixelcnn"}
handin.check("pixelcnn")

# %% [markdown] nbgrader={"grade": false, "grade_id": "blind-spot-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "pixelcnn"}
# Two layers or thirty: beyond some depth nothing changes any more. The pixel marked is the one that is predicted; dark pixels of the past are those
# it will never know.

# %% nbgrader={"grade": true, "grade_id": "blind-spot-figure", "locked": true, "points": 20, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "pixelcnn"}
if pictures:
    try:
        fields = torch.stack(
            [seen(8, 8, 5, 3, kernel_size=3, layers=layers) for layers in (1, 2, 4, 8, 16)]
        ).long()
        fields[:, 5, 3] = 2  # the pixel that is predicted
        display(plotting.show_images(fields[:, None], levels=3))
    except Exception as error:
        print(f"no picture: seen raised {type(error).__name__}: {error}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "gated-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "gated"}
# ## Problem 5. A Gated PixelCNN, told which digit to draw
#
# The cure for the blind spot is to give up on one stack of convolutions and to use **two**:
#
# - the **vertical** stack knows all rows above, whole: at row $r$ it may depend on every pixel of the rows $0 \dots r - 1$;
# - the **horizontal** stack knows the row so far, and in every layer listens to the vertical one.
#
# Neither needs a mask. *Shift the image once*, and everything after may look at its own place. If the vertical stack starts from the image shifted
# down by one row, then a convolution over its own row and the rows above it never meets row $r$ of the image: the strictness is in the shift. If the
# horizontal stack starts from the image shifted right by one column, a convolution over its own column and those to the left
# never meets the pixel itself. Shift once and no more: a network that shifts in every layer has a blind spot again.
#
# **Write `shift_down(x)` and `shift_right(x)`** for `[batch, channels, height, width]`: zeros come in at the top (left), what leaves at the bottom
# (right) is dropped.
#
# ### Gates and labels
#
# A **gate** multiplies what a layer found by how much it matters, each computed from its own half of the channels. A label $y$ (which digit it is) enters
# every gate as a vector $c$ of numbers that depends on $y$ and not on the place:
#
# $$ \text{gate}(a, c) = \tanh(a_1 + c_1) \odot \sigma(a_2 + c_2), \qquad a = (a_1, a_2),\; c = (c_1, c_2). $$
#
# **Write `gated_activation(a, c)`** for $a$ `[batch, 2n, height, width]` and $c$ `[batch, 2n]`: the result has $n$ channels, the first half of
# $a$ and $c$ goes through the $\tanh$.


# %% nbgrader={"grade": false, "grade_id": "gated-functions", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "gated"}
def shift_down(x: torch.Tensor) -> torch.Tensor:
    """x one row further down, for x [batch, channels, height, width]."""
    ### BEGIN SOLUTION
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]
    ### END SOLUTION


def shift_right(x: torch.Tensor) -> torch.Tensor:
    """x one column further right, for x [batch, channels, height, width]."""
    ### BEGIN SOLUTION
    return F.pad(x, (1, 0))[:, :, :, :-1]
    ### END SOLUTION


def gated_activation(a: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """tanh(a₁ + c₁)·σ(a₂ + c₂), for a [batch, 2n, height, width] and c [batch, 2n]."""
    ### BEGIN SOLUTION
    signal, gate = (a + c[:, :, None, None]).chunk(2, dim=1)
    return torch.tanh(signal) * torch.sigmoid(gate)
    ### END SOLUTION


# %% [markdown] nbgrader={"grade": false, "grade_id": "gated-model-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "gated"}
# ### The network
#
# **Write `Block` and `GatedPixelCNN`.** A good block, with $n$ channels in each stack: a $3 \times 5$ convolution of the vertical stack (padded above and on both
# sides), a $1 \times 3$ convolution of the horizontal one (padded on the left), each from $n$ to $2n$ channels; a $1 \times 1$ convolution that brings the vertical result
# over to the horizontal one before its gate; a gate for each stack, with its own vector of the label (`nn.Embedding`); and around the horizontal
# stack a residual connection, added once. At the end, two $1 \times 1$ convolutions from the horizontal stack to the logits.
#
# *In:* the levels of a pixel as a one-hot vector (`F.one_hot`), so $L$ channels. *Out:* `[batch, levels, C, H, W]`. The labels `y` are int64 `[batch]`, from 0 to
# `classes` − 1. You need not write `sample`: the base class draws pixel by pixel from your `logits`.


# %% nbgrader={"grade": false, "grade_id": "gated-model", "locked": false, "schema_version": 3, "solution": true, "task": false} dulcourse={"problem": "gated"}
class Block(nn.Module):
    """One layer of both stacks: (v, h, y) to (v, h)."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        ### BEGIN SOLUTION
        self.vertical = nn.Conv2d(channels, 2 * channels, (3, 5))
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, 3))
        self.across = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        self.label = nn.Embedding(classes, 4 * channels)
        ### END SOLUTION

    def forward(self, v: torch.Tensor, h: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The two stacks after this layer, each [batch, channels, height, width]."""
        ### BEGIN SOLUTION
        label_v, label_h = self.label(y).chunk(2, dim=1)
        above = self.vertical(F.pad(v, (2, 2, 2, 0)))
        left = self.horizontal(F.pad(h, (2, 0))) + self.across(above)
        return gated_activation(above, label_v), h + self.out(gated_activation(left, label_h))
        ### END SOLUTION


class GatedPixelCNN(AutoregressiveModel):
    """p(x | y) = Π_t p(x_t | the pixels before it in raster order, y)."""

    def __init__(self, shape: tuple[int, int, int], levels: int, classes: int, channels: int, blocks: int):
        super().__init__(shape, levels)
        self.classes = classes
        ### BEGIN SOLUTION
        self.into_vertical = nn.Conv2d(levels, channels, 1)
        self.into_horizontal = nn.Conv2d(levels, channels, 1)
        self.blocks = nn.ModuleList(Block(channels, classes) for _ in range(blocks))
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, 2 * channels, 1), nn.ReLU(), nn.Conv2d(2 * channels, levels, 1)
        )
        ### END SOLUTION

    def logits(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of every conditional: [batch, levels, 1, H, W] for int64 x [batch, 1, H, W] and labels y [batch]."""
        ### BEGIN SOLUTION
        pixels = F.one_hot(x[:, 0], self.levels).movedim(-1, 1).to(self.head[1].weight.dtype)
        v, h = self.into_vertical(shift_down(pixels)), self.into_horizontal(shift_right(pixels))
        for block in self.blocks:
            v, h = block(v, h, y)
        return self.head(h).unsqueeze(2)
        ### END SOLUTION


def build_gated() -> GatedPixelCNN:
    """An untrained Gated PixelCNN for 8×8 glyphs with 4 levels in 10 classes."""
    ### BEGIN SOLUTION
    return GatedPixelCNN((1, 8, 8), levels=4, classes=10, channels=CHANNELS, blocks=4)
    ### END SOLUTION


def train_gated(model: GatedPixelCNN) -> "training.History":
    """Maximise log p(x | y) of the training glyphs, given their labels."""
    ### BEGIN SOLUTION
    return training.fit(
        model,
        glyphs["train"],
        glyphs["validation"],
        generator=fresh_generator(),
        steps=STEPS["gated"],
        batch_size=64,
        lr=2e-2 if tier == "smoke" else 1e-2,
        schedule=training.cosine,
        loss=lambda model, x, y, generator: -model.log_prob(x, y),
        device=device,
    )
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "gated-graded", "locked": true, "points": 30, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "gated"}
gated = None  # in case the next line fails
gated = handin.trained(
    "gated",
    build_gated,
    train_gated,
    example=glyphs["validation"].x[:8],
    labels=glyphs["validation"].y[:8],
)
if gated is not None:
    claim("gated", gated, glyphs["validation"])

# %% [markdown] nbgrader={"grade": false, "grade_id": "gated-price-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "gated"}
# A label is information, and information has a price: one of ten classes costs $\log_2 10 \approx 3.32$ bits, which is $0.052$ bits for each of the $64$ pixels. Without it a model could be told the
# whole image in its label. The claim above and the referee's number both include it, and the referee also tries wrong labels: if they cost nothing more, the model
# does not listen.

# %% nbgrader={"grade": false, "grade_id": "gated-check", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "gated"}
handin.check("gated")

# %% [markdown] nbgrader={"grade": false, "grade_id": "gated-look-text", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "gated"}
# ### Look at it
#
# One row for each digit.

# %% nbgrader={"grade": false, "grade_id": "gated-samples", "locked": true, "schema_version": 3, "solution": false, "task": false} dulcourse={"problem": "gated"}
if pictures and gated is not None:
    labels = torch.arange(10).repeat_interleave(8)
    display(plotting.show_images(gated.sample(80, labels, generator=fresh_generator()), levels=4))

# %% [markdown] nbgrader={"grade": false, "grade_id": "written-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## In words
#
# (a) Why do the probabilities of your MADE add up to one over all $4^{64}$ images, whatever its weights? Two or three
# sentences; say which axis the softmax is over, and in which order you add up.
#
# (b) Suppose the output mask used $\ge$ instead of $>$. What would happen to the training loss, to the samples, and to the bits
# that the referee charges? Is the product of the outputs still a probability distribution? Say what its sum over all images
# could reach.

# %% [markdown] nbgrader={"grade": true, "grade_id": "written", "locked": false, "points": 10, "schema_version": 3, "solution": true, "task": false}
# (a) Each output is a softmax over the levels of its own pixel, so it adds up to one over that pixel's levels, whatever the
# earlier pixels are. Add up in reverse order of generation: the pixel generated last occurs in no other factor, so its sum is one and
# its factor disappears; then the one before it is the last; and so on until nothing but 1 is left. Weights never matter.
#
# (b) Output $i$ sees $x_i$ itself and can copy it, so the training loss falls towards zero: it looks like a triumph. When sampling,
# $x_i$ is not there yet, so the output copies whatever placeholder is, and samples are meaningless. The referee puts
# another image's pixel in its place, the model bets on that one, and is charged more than a uniform guess would cost.
# The product is not a distribution: the factor for $x_i$ depends on $x_i$, so its sum over $x_i$ need not be one. If every output copies its
# input, each image is given "probability" 1, and the sum is $4^{64}$.

# %% [markdown] nbgrader={"grade": false, "grade_id": "pack-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Hand in
#
# Run the whole notebook from the top once more (Kernel → Restart & Run All), then `handin.pack()`. It checks that the notebook can be
# read and zips what is to be uploaded.
