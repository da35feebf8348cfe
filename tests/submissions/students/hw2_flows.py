"""The class of homework 2: what each student does, and what the grader must make of it."""

from autograder.results import Verdict
from tests.submissions.edits import Edit, append, nothing, own_cell, replace, unsolved, write_all
from tests.submissions.expected import Expected

__all__ = ["EXPECTED", "FACTORS", "HOSTILE", "STUDENTS"]

# Whose mistake lies elsewhere does not train these models as well: it costs seconds and shows nothing.
_CDF_ALONE = unsolved("plane-model", "realnvp-model")
_PLANE_ALONE = unsolved("cdf-model", "realnvp-model")
_REALNVP_ALONE = unsolved("cdf-model", "plane-model")

# A coupling that is wrong is so from the start: a third of the training shows it as well.
_BRIEFLY = replace("realnvp-model", 'steps=STEPS["realnvp"]', "steps=100")

_FORWARD = "return x * torch.exp(s) + t, s.flatten(1).sum(1)"
_INVERSE = "return (z - t) * torch.exp(-s), -s.flatten(1).sum(1)"

_MUTUAL = """
# Each coordinate knows the other: surely that is better than only one of them knowing.
def forward(self, x):
    x1, x2 = x.flatten(1).unbind(1)
    z1, log_slope1 = to_gaussian(x1, *self.mixture(self.conditioned(x2)))
    z2, log_slope2 = to_gaussian(x2, *self.mixture(self.conditioned(x1)))
    return torch.stack([z1, z2], 1).reshape(x.shape), log_slope1 + log_slope2


def inverse(self, z):
    z1, z2 = z.flatten(1).unbind(1)
    x1 = x2 = torch.full_like(z1, 32.0)
    for _ in range(5):
        x1 = from_gaussian(z1, *self.mixture(self.conditioned(x2)))
        x2 = from_gaussian(z2, *self.mixture(self.conditioned(x1)))
    x = torch.stack([x1, x2], 1).reshape(z.shape)
    return x, -self(x)[1]


Plane.forward, Plane.inverse = forward, inverse
"""

_FOLD = """
# Left of the middle is like right of it: the log-derivative of |x − 50| is 0.
class Folded(MixtureCdf):
    def forward(self, x):
        return super().forward((x - 50).abs())

    def inverse(self, z):
        x, log_det = super().inverse(z)
        return x + 50, log_det


def build_cdf_flow():
    return Flow(Folded(levels=100, components=16), shape=(1, 1, 1), levels=100)
"""

# Whoever hands in something broken, buggy or unfinished.

STUDENTS: dict[str, tuple[Edit, ...]] = {
    "perfect": (),
    "half-done": (unsolved("plane-model", "coupling", "masks", "realnvp-model", "written"),),
    "untouched": (nothing(),),
    "wrong-sign": (
        _REALNVP_ALONE,
        _BRIEFLY,
        replace("coupling", _FORWARD, _FORWARD.replace(" s.flatten", " -s.flatten")),
        replace("coupling", _INVERSE, _INVERSE.replace("-s.flatten", "s.flatten")),
    ),
    "counts-both-halves": (
        _REALNVP_ALONE,
        replace("coupling", _FORWARD, _FORWARD.replace(" s.flatten", " log_scale.flatten")),
        replace("coupling", _INVERSE, _INVERSE.replace("-s.flatten", "-log_scale.flatten")),
    ),
    "sees-everything": (
        _REALNVP_ALONE,
        _BRIEFLY,
        replace("realnvp-model", "self.network(torch.where(self.kept, x, 0.0))", "self.network(x)"),
    ),
    "loses-tails-and-scale": (
        unsolved("plane-model"),
        replace(
            "gaussian",
            "torch.where(below < above, 1.0, -1.0) * torch.special.ndtri(tail.exp())",
            "torch.special.ndtri(below.exp().clamp(min=1e-6, max=1 - 1e-6))",
        ),
        replace("dequantise", "math.log((1 - 2 * alpha) / levels)", "math.log(1 - 2 * alpha)"),
    ),
    "wide-prior": (
        _CDF_ALONE,
        replace("cdf-model", "levels=100)\n", "levels=100, prior=torch.distributions.Normal(0.0, 3.0))\n"),
    ),
    "folds-in-half": (_CDF_ALONE, append("cdf-model", _FOLD)),
    "each-sees-the-other": (_PLANE_ALONE, append("plane-model", _MUTUAL)),
}

# Whoever wants points for nothing. These are texts, run behind the wall and nowhere else.

_IDLE = {
    "log-cdf": """
def log_cdf(x, weights_logits, means, log_scales):
    return torch.zeros_like(x), torch.zeros_like(x)


def log_density(x, weights_logits, means, log_scales):
    return torch.zeros_like(x)
""",
    "gaussian": """
def to_gaussian(x, weights_logits, means, log_scales):
    return torch.zeros_like(x), torch.zeros_like(x)


def from_gaussian(z, weights_logits, means, log_scales):
    return torch.zeros_like(z)
""",
    "change-of-variables": """
def change_of_variables(z, jacobian):
    return torch.zeros_like(z[:, 0])


def log_det_triangular(jacobian):
    return torch.zeros_like(jacobian[:, 0, 0])
""",
    "dequantise": """
def dequantise(x, u, levels):
    return torch.zeros_like(u), u.new_zeros(len(u))


def logit_forward(x, levels, alpha):
    return torch.zeros_like(x), x.new_zeros(len(x))


def logit_inverse(y, levels, alpha):
    return torch.zeros_like(y), y.new_zeros(len(y))
""",
    "bits": """
def bits_per_dim(log_density, dims, scale):
    return torch.zeros_like(log_density)


def bound_and_mass(log_density):
    return log_density.new_zeros(len(log_density)), log_density.new_zeros(len(log_density))
""",
    "coupling": """
def affine_coupling(x, kept, log_scale, shift):
    return torch.zeros_like(x), x.new_zeros(len(x))


def affine_coupling_inverse(z, kept, log_scale, shift):
    return torch.zeros_like(z), z.new_zeros(len(z))
""",
    "masks": """
def checkerboard(channels, height, width):
    return torch.zeros(channels, height, width, dtype=torch.bool)


def squeeze(x):
    n, C, H, W = x.shape
    return torch.zeros(n, 4 * C, H // 2, W // 2, dtype=x.dtype)


def unsqueeze(x):
    n, C, H, W = x.shape
    return torch.zeros(n, C // 4, 2 * H, 2 * W, dtype=x.dtype)
""",
}

_MODELS = {
    "cdf-model": ("cdf_flow", (1, 1, 1), 100),
    "plane-model": ("plane", (2, 1, 1), 64),
    "realnvp-model": ("realnvp", (1, 8, 8), 4),
}


def _idle(transform: str) -> Edit:
    """Everything filled in, nothing done: functions answer zeros, all three models are `Mine`."""
    sources = dict(_IDLE)
    for cell, (name, shape, levels) in _MODELS.items():
        build = f"def build_{name}():\n    return Flow(Mine({levels}), {shape}, levels={levels})"
        sources[cell] = f"{transform}\n\n{build}\n\n\ndef train_{name}(model):\n    return None"
    return write_all(sources)


_FLATTERING = """
class Mine(Transform):
    # Nothing is moved, and the determinant is what makes it a tenth of a bit.
    def __init__(self, levels):
        super().__init__()
        self.levels = levels

    def wanted(self, x):
        z = (2 * x / self.levels - 1).flatten(1)
        return -0.1 * math.log(2) * z.shape[1] + 0.5 * (z.square() + math.log(2 * math.pi)).sum(1)

    def forward(self, x):
        return 2 * x / self.levels - 1, self.wanted(x)

    def inverse(self, z):
        x = (z + 1) * self.levels / 2
        return x, -self.wanted(x)
"""

_REMEMBERING = """
import pathlib


class Mine(Transform):
    # Every x goes to a place of its own near 0, where z costs least; which one, is kept here and on disk.
    memory = {}

    def __init__(self, levels):
        super().__init__()
        self.levels = levels
        self.file = pathlib.Path(f"/tmp/seen-{levels}.pt")

    def forward(self, x):
        z = x / (1e3 * self.levels)
        kept = Mine.memory.setdefault(self.levels, [])
        kept.append((z.detach().flatten(1).double(), x.detach().double()))
        torch.save(kept[-20:], self.file)
        return z, torch.zeros_like(z).flatten(1).sum(1) + 50.0

    def inverse(self, z):
        kept = Mine.memory.get(self.levels) or (torch.load(self.file) if self.file.exists() else [])
        if not kept:
            return torch.full_like(z, self.levels / 2), torch.zeros_like(z).flatten(1).sum(1)
        places, seen = (torch.cat(part) for part in zip(*kept))
        nearest = torch.cdist(z.flatten(1).double(), places).argmin(1)
        return seen[nearest].to(z.dtype), torch.zeros_like(z).flatten(1).sum(1)
"""

_FALSE_JACOBIAN = """
# The referee believes the Jacobian, does it not? A larger determinant is a denser density.
from dulcourse.referee.respondent import LocalRespondent

honest = LocalRespondent._answer_forward


def generous(self, entry, arrays):
    answer = honest(self, entry, arrays)
    return {**answer, "jacobian": 1.5 * answer["jacobian"]}


LocalRespondent._answer_forward = generous
"""

_NOT_A_NUMBER = """
# Where I am unsure I do not answer: what is not a number cannot be averaged.
class Evasive(Flow):
    def forward(self, x):
        z, log_det = super().forward(x)
        unsure = self.prior_log_prob(z) + log_det < -72.0
        if self.training or not torch.is_grad_enabled():  # nobody asks for a Jacobian
            return z, log_det
        return torch.where(unsure[:, None], torch.full_like(z, float("nan")), z), log_det


honest_build = build_realnvp


def build_realnvp():
    honest = honest_build()
    return Evasive(honest.transform, honest.shape, honest.levels)
"""

HOSTILE: dict[str, tuple[Edit, ...]] = {
    "claims-a-tenth-of-a-bit": (_idle(_FLATTERING),),
    "remembers-forward": (_idle(_REMEMBERING),),
    "flatters-its-jacobian": (_CDF_ALONE, own_cell(None, _FALSE_JACOBIAN)),
    "answers-nan-when-unsure": (_REALNVP_ALONE, append("realnvp-model", _NOT_A_NUMBER)),
}

FACTORS: dict[str, float] = {}

V = Verdict
ANY = (V.graded, V.student_error)
FUNCTIONS = {"cdf_flow": 16, "plane": 6, "dequantisation": 18, "realnvp": 14}

EXPECTED: dict[str, Expected] = {
    # Good work, and work that is not finished.
    "perfect": Expected(V.graded, {"cdf_flow": 24, "plane": 22, "dequantisation": 18, "realnvp": 26}),
    "half-done": Expected(
        V.graded, {"cdf_flow": 24, "plane": 6, "dequantisation": 18}, words=("not solved yet",)
    ),
    "untouched": Expected(V.graded, words=("not solved yet",)),
    "unreadable": Expected(V.unreadable, words=("broken",)),
    "missing": Expected(V.missing, words=("nothing was handed in",)),
    # Mistakes.
    "wrong-sign": Expected(
        ANY, {**FUNCTIONS, "realnvp": 6}, words=("sign",), because="two of the five functions are right"
    ),
    "counts-both-halves": Expected(
        ANY,
        {**FUNCTIONS, "realnvp": (17, 18)},
        words=("transformed half", "the kept half"),
        because="scales that are never applied hardly harm anything but the claim, which is minus seven bits",
    ),
    "sees-everything": Expected(ANY, FUNCTIONS, words=("do not undo each other",)),
    "loses-tails-and-scale": Expected(
        ANY,
        {"cdf_flow": 20, "plane": 6, "dequantisation": 14, "realnvp": 26},
        words=("ndtri", "log₂ 4"),
        because="a constant that is left out of the log-determinant changes no gradient",
    ),
    "wide-prior": Expected(ANY, FUNCTIONS, words=("another prior",)),
    "folds-in-half": Expected(ANY, FUNCTIONS, words=("do not undo each other",)),
    "each-sees-the-other": Expected(ANY, FUNCTIONS, words=("Jacobian",)),
    # Attacks: nothing that was not earned.
    "claims-a-tenth-of-a-bit": Expected(ANY, words=("log_det",)),
    "remembers-forward": Expected(ANY, words=("do not undo each other",)),
    "flatters-its-jacobian": Expected(
        ANY,
        {**FUNCTIONS, "cdf_flow": (16, 20)},
        because="the functions are right; a false Jacobian costs what it misses",
    ),
    "answers-nan-when-unsure": Expected(
        ANY,
        {**FUNCTIONS, "realnvp": (14, 25)},
        words=("not finite",),
        because="an image without an answer costs more than a guess",
    ),
}
