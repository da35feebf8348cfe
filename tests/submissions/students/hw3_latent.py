"""The class of homework 3: what each student does, and what the grader must make of it."""

from autograder.results import Verdict
from tests.submissions.edits import Edit, append, nothing, own_cell, replace, unsolved, write
from tests.submissions.expected import Expected

__all__ = ["EXPECTED", "FACTORS", "HOSTILE", "STUDENTS"]

# Whose mistake lies elsewhere does not train the last model as well: it costs seconds and shows nothing. The
# figures of the first two problems cost seconds too.
_LAST = unsolved("iwae-functions", "iwae-train")
_VAE_ALONE = unsolved("exact-log-prob", "sampling", "gradients", "iwae-functions", "iwae-train")
_MODELS = unsolved("vae-model", "vae-train", "iwae-functions", "iwae-train")
_BOUND = "return log_likelihood - beta * gaussian_kl(mean, log_std)"
_KL = "return (0.5 * (mean.square() + torch.exp(2 * log_std) - 1) - log_std).sum(1)"


def _log_variance(notebook: dict, given: dict) -> None:
    """What encode returns is taken for log σ² throughout, as in many published VAEs."""
    for old, new in {
        _KL: "return 0.5 * (mean.square() + torch.exp(log_std) - 1 - log_std).sum(1)",
        "return mean + torch.exp(log_std) * noise": "return mean + torch.exp(0.5 * log_std) * noise",
        "noise = (z - mean) * torch.exp(-log_std)": "noise = (z - mean) * torch.exp(-0.5 * log_std)",
        "math.log(2 * math.pi)) + log_std)": "math.log(2 * math.pi)) + 0.5 * log_std)",
    }.items():
        replace("bound", old, new)(notebook, given)


# For problem 4, whose model is the same, without the training of problem 3.
_TRAINS_LATER = """
def build_vae():
    return VAE((1, 8, 8), 4, LATENTS, HIDDEN)


def train_vae(model):
    raise NotImplementedError
"""

# Whoever hands in something broken, buggy or unfinished.

STUDENTS: dict[str, tuple[Edit, ...]] = {
    "perfect": (),
    "half-done": (_MODELS, unsolved("written")),
    "untouched": (nothing(),),
    "underflows": (
        _MODELS,
        replace(
            "exact-log-prob",
            "torch.logsumexp(log_prior[:, None] + log_likelihood, dim=0)",
            "(log_prior.exp()[:, None] * log_likelihood.exp()).sum(0).log()",
        ),
        replace(
            "sampling",
            "torch.logsumexp(log_likelihood.gather(0, z), dim=0) - math.log(len(z))",
            "log_likelihood.gather(0, z).exp().mean(0).log()",
        ),
        replace(
            "gradients", "(values.sum() - values) / (len(values) - 1)", "values.mean().expand_as(values)"
        ),
    ),
    "drops-kl": (_VAE_ALONE, replace("bound", _BOUND, "return log_likelihood")),
    "averages-kl": (_VAE_ALONE, replace("bound", _KL, _KL.replace(".sum(1)", ".mean(1)"))),
    "adds-kl": (_VAE_ALONE, replace("bound", _BOUND, _BOUND.replace("-", "+"))),
    "log-variance": (_VAE_ALONE, _log_variance),
    "claims-reconstruction-in-nats": (
        _LAST,
        own_cell(
            "vae-graded",
            """
# The loss that my training prints.
with torch.no_grad():
    x = glyphs["validation"].x
    mean, log_std = vae.encode(x)
    z = reparameterise(mean, log_std, torch.randn(mean.shape, generator=fresh_generator()))
    handin.claim("vae", F.cross_entropy(vae.decode(z), x))
""",
        ),
    ),
    "weights-upside-down": (
        write("vae-train", _TRAINS_LATER),
        replace(
            "iwae-functions", "torch.softmax(log_w, dim=0)", "torch.softmax(-log_w, dim=0)  # of the loss"
        ),
        replace("iwae-functions", "torch.logsumexp(log_w, dim=0) - math.log(len(log_w))", "log_w.mean(0)"),
    ),
    "uses-the-library": (
        _LAST,
        write(
            "vae-model",
            """
from dulcourse.latent.vae import VAE as Theirs


class VAE(Theirs):
    pass
""",
        ),
    ),
}

# Whoever wants points for nothing. These are texts, run behind the wall and nowhere else.

_REMEMBERING_DECODER = """
# The encoder keeps every image, in this process and on disk; the decoder looks up whose mean is nearest.
import pathlib

DISK = pathlib.Path("/tmp/seen.pt")
MEMORY = []


def encode(self, x):
    mean = x.double().reshape(len(x), self.latents, -1).mean(2) - 1.5
    MEMORY.append((mean, x))
    torch.save(MEMORY[-3:], DISK)
    return mean, torch.full_like(mean, -5.0)


def decode(self, z):
    kept = MEMORY or (torch.load(DISK) if DISK.exists() else [])
    if not kept:
        return torch.zeros(len(z), self.levels, *self.shape)
    means, images = (torch.cat(parts) for parts in zip(*kept))
    nearest = torch.cdist(z.double(), means).argmin(1)
    return 9.0 * F.one_hot(images[nearest], self.levels).movedim(-1, 1)


VAE.encode, VAE.decode = encode, decode
"""

_SPIKES = """
# Sixteen bits in each mean, and a posterior so narrow that none of them is lost.
def encode(self, x):
    digits = x.reshape(len(x), self.latents, -1).double()
    code = (digits * 4.0 ** torch.arange(digits.shape[2])).sum(2)
    mean = (code + 0.5) / 4.0 ** digits.shape[2] * 4 - 2
    return mean, torch.full_like(mean, -40.0)


def decode(self, z):
    pixels = 64 // self.latents
    code = ((z.double() + 2) / 4 * 4.0**pixels).floor().clamp(0, 4.0**pixels - 1).long()
    x = (code[:, :, None] // 4 ** torch.arange(pixels) % 4).reshape(-1, *self.shape)
    return 30.0 * F.one_hot(x, self.levels).movedim(-1, 1)


VAE.encode, VAE.decode = encode, decode
"""

_UNTRAINED = """
def build_vae():
    return VAE((1, 8, 8), 4, LATENTS, HIDDEN)


def train_vae(model):
    return None
"""

_NOT_A_MEAN = """
# Where I am unsure I do not answer: what is not a number cannot be averaged.
honest = VAE.encode


def evasive(self, x):
    mean, log_std = honest(self, x)
    if self.training or len(x) in (1, 8, 128, 512, 1024):  # this notebook's own questions
        return mean, log_std
    hard = (x > 0).float().mean((1, 2, 3))[:, None] > 0.55
    return torch.where(hard, torch.full_like(mean, float("nan")), mean), log_std


VAE.encode = evasive
"""

HOSTILE: dict[str, tuple[Edit, ...]] = {
    "remembers-images": (
        _VAE_ALONE,
        unsolved("bound"),  # nothing but the attack
        append("vae-model", _REMEMBERING_DECODER),
        write("vae-train", _UNTRAINED),
    ),
    "hides-bits-in-the-mean": (
        _VAE_ALONE,
        append("vae-model", _SPIKES),
        write("vae-train", _UNTRAINED),
        own_cell("vae-graded", 'handin.claim("vae", 1e-6)  # it reconstructs every pixel'),
    ),
    "no-answer-when-hard": (_VAE_ALONE, append("vae-model", _NOT_A_MEAN)),
}

FACTORS: dict[str, float] = {}

V = Verdict
FIRST = {"estimators": 20, "gradients": 15}
VAE = {**FIRST, "vae": 35}
ANY = (V.graded, V.student_error)

EXPECTED: dict[str, Expected] = {
    # Good work, and work that is not finished.
    "perfect": Expected(V.graded, {**VAE, "iwae": 20}),
    "half-done": Expected(V.graded, {**FIRST, "vae": 15}, words=("not solved yet",)),
    "untouched": Expected(V.graded, words=("not solved yet",)),
    "unreadable": Expected(V.unreadable, words=("broken",)),
    "missing": Expected(V.missing, words=("nothing was handed in",)),
    # Mistakes.
    "underflows": Expected(
        V.graded,
        {"estimators": 10, "gradients": 12, "vae": 15},
        words=("not finite", "logsumexp", "its own value"),
    ),
    "drops-kl": Expected(V.graded, {"vae": 11}, words=("the KL term was left out", "minus (not plus)")),
    "averages-kl": Expected(
        V.graded,
        {"vae": (6, 13.5)},
        words=("averaged over the 8 latents", "weighted by β = 0."),
        because="trained so, a model says too much in z; how much too much depends on training and machine",
    ),
    "adds-kl": Expected(
        ANY, {"vae": 11}, words=("minus (not plus)", "z alone costs", "should be subtracted")
    ),
    "log-variance": Expected(
        V.graded,
        {"vae": (5, 17)},
        words=("log σ² where log σ is expected", "log_std is log σ"),
        because="twice as much noise as it was trained with",
    ),
    "claims-reconstruction-in-nats": Expected(
        V.graded, VAE, words=("the KL term was left out", "and it is in nats")
    ),
    "weights-upside-down": Expected(
        V.graded,
        {**FIRST, "vae": 15, "iwae": 10},
        words=("follows the worst", "mean of their logs"),
        because="the mean of the logarithms is the ELBO, which trains a good model",
    ),
    "uses-the-library": Expected(ANY, FIRST, words=("dulcourse.latent.vae",)),
    # Attacks: nothing that was not earned. The functions are right.
    "remembers-images": Expected(ANY, because="who sees z alone has nothing to remember"),
    "hides-bits-in-the-mean": Expected(ANY, {"vae": 15}),
    "no-answer-when-hard": Expected(
        ANY,
        {"vae": (15, 34)},
        words=("could not be used",),
        because="an image without an answer costs more than a guess",
    ),
}
