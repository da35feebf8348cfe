"""The student's door: what is handed in answers as it was trained, and every refusal is a sentence."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dulcourse import data, handin
from dulcourse.autoregressive import orders
from dulcourse.autoregressive.base import AutoregressiveModel
from dulcourse.autoregressive.histogram import Histogram
from dulcourse.errors import UsageError
from dulcourse.flows.base import Flow, Transform
from dulcourse.latent.base import LatentModel
from dulcourse.referee.public import find, reference_bits

SHAPE = (1, 2, 2)
EXAMPLE = torch.arange(12).reshape(3, *SHAPE) % 3


@pytest.fixture(autouse=True)
def _own_session(tmp_path, monkeypatch):
    """Each test in a folder of its own, with a session and a registry of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(handin, "session", handin.Session())
    monkeypatch.setattr(handin, "registry", {})


class Linear(AutoregressiveModel):
    """A model whose logits depend on every parameter and buffer it has."""

    def __init__(self, order=None, levels=3):
        super().__init__(SHAPE, levels, order)
        self.weight = nn.Parameter(torch.zeros(levels, 4, 4))

    def logits(self, x, y=None):
        scaled = x.flatten(1).float() + 1
        return torch.einsum("lij,nj->nli", self.weight, scaled).unflatten(2, SHAPE)


def randomise(model):
    nn.init.normal_(model.weight, generator=torch.Generator().manual_seed(0))
    return {"step": [1]}


def hand_in(build=Linear, train=randomise, example=EXAMPLE, name="m"):
    return handin.trained(name, build, train, example=example)


def test_the_reloaded_model_is_what_is_handed_in():
    models = []

    def build():
        models.append(Linear(orders.random(SHAPE, torch.Generator().manual_seed(len(models)))))
        return models[-1]

    model = hand_in(build)
    assert model is models[1]
    assert handin.registry["m"].model is model
    assert handin.registry["m"].history == {"step": [1]}
    assert torch.equal(model.weight, models[0].weight)
    assert torch.equal(model.order, models[0].order)
    assert not model.training
    saved = load_file(Path("handin/m.safetensors"))
    assert set(saved) == {"order", "rank", "weight"}
    assert [path.name for path in Path("handin").iterdir()] == ["m.safetensors"]


def test_a_replay_builds_and_loads_and_never_trains():
    first = hand_in()
    handin.registry.clear()
    handin.begin("hw", mode="replay", folder="handin")
    again = hand_in(train=lambda model: pytest.fail("a replay must not train"))
    assert torch.equal(again.logits(EXAMPLE), first.logits(EXAMPLE))
    assert handin.registry["m"].history is None


def test_a_replay_of_what_was_not_handed_in_gives_none(capsys):
    handin.begin("hw", mode="replay", folder="handin")
    assert hand_in() is None
    assert capsys.readouterr().out == "'m' was not handed in.\n"
    assert handin.registry == {}


def solved_later(*_):
    raise NotImplementedError


@pytest.mark.parametrize("blank", [{"build": solved_later}, {"train": solved_later}])
def test_a_blank_is_no_error(blank, capsys):
    assert hand_in(**blank) is None
    assert "'m' is not solved yet" in capsys.readouterr().out
    assert not Path("handin").exists()


class HiddenOrdering(Linear):
    """Uses a permutation that is drawn at random and kept as a plain attribute."""

    seeds = iter(range(100))

    def __init__(self):
        super().__init__()
        self.shuffle = orders.random(SHAPE, torch.Generator().manual_seed(next(self.seeds)))

    def logits(self, x, y=None):
        return super().logits(x.flatten(1)[:, self.shuffle].view_as(x))


class HiddenAverage(Linear):
    """Answers with an average of its weights that is not in the state."""

    def __init__(self):
        super().__init__()
        self.average = torch.zeros_like(self.weight)

    def logits(self, x, y=None):
        return super().logits(x) + self.average.sum()


class Initialised(Linear):
    """Sets its offset from the first batch it ever sees, unless it thinks that this was done."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))
        self.done = False

    def logits(self, x, y=None):
        if not self.done:
            self.offset.data, self.done = x.float().mean() * 7, True
        return super().logits(x) + self.offset * torch.arange(3).view(1, 3, 1, 1, 1)


def train_average(model):
    model.average += 1 + torch.arange(48.0).view(3, 4, 4)


def first_batch_then_weights(model):
    model.logits(EXAMPLE)
    randomise(model)


@pytest.mark.parametrize(
    ("build", "train"),
    [
        (HiddenOrdering, randomise),
        (HiddenAverage, train_average),
        (Initialised, first_batch_then_weights),
    ],
)
def test_state_that_is_not_saved_is_found(build, train):
    with pytest.raises(UsageError, match="part of its state is not in state_dict"):
        hand_in(build, train)
    assert handin.registry == {}


def test_tied_weights_are_saved_and_stay_tied():
    class Tied(Linear):
        def __init__(self):
            super().__init__()
            self.twin = self.weight

    model = hand_in(Tied)
    assert model.twin is model.weight
    assert set(load_file("handin/m.safetensors")) >= {"twin", "weight"}


class Scale(Transform):
    """z = x / s, with s learned or set by the first batch it ever sees."""

    def __init__(self, first_batch=False):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.done = not first_batch

    def forward(self, x):
        if not self.done:
            self.log_scale.data, self.done = x.std().log(), True
        return x * torch.exp(-self.log_scale), -4 * self.log_scale.expand(len(x))

    def inverse(self, z):
        return z * torch.exp(self.log_scale), 4 * self.log_scale.expand(len(z))


class Coder(LatentModel):
    def __init__(self):
        super().__init__(SHAPE, 3, 2)
        self.weight = nn.Parameter(torch.zeros(4, 4))

    def encode(self, x):
        return (x.flatten(1).float() @ self.weight).chunk(2, dim=1)

    def decode(self, z):
        return (z @ self.weight[:2]).view(-1, 1, *SHAPE) * torch.arange(3).view(1, 3, 1, 1, 1)


class Conditional(Linear):
    def __init__(self):
        super().__init__()
        self.classes = 2

    def logits(self, x, y=None):
        return super().logits(x) + y.view(-1, 1, 1, 1, 1) * torch.arange(3).view(1, 3, 1, 1, 1)


def some_scale(model):
    model.transform.log_scale.data.fill_(0.3)


@pytest.mark.parametrize(
    ("build", "train", "more"),
    [
        (lambda: Flow(Scale(), SHAPE, 3), some_scale, {}),
        (Coder, randomise, {}),
        (Conditional, randomise, {"labels": torch.tensor([0, 1, 1])}),
    ],
    ids=["flow", "latent", "conditional"],
)
def test_models_of_every_family_are_handed_in_and_replayed(build, train, more):
    first = handin.trained("m", build, train, example=EXAMPLE, **more)
    handin.registry.clear()
    handin.begin("hw", mode="replay", folder="handin")
    again = handin.trained("m", build, lambda model: pytest.fail("trains"), example=EXAMPLE, **more)
    for ours, theirs in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_flow_that_forgets_that_it_was_initialised_is_found():
    def train(model):
        model(EXAMPLE + 0.5)
        some_scale(model)

    with pytest.raises(UsageError, match=r"'m' answers differently once saved and reloaded \(z differ"):
        handin.trained("m", lambda: Flow(Scale(first_batch=True), SHAPE, 3), train, example=EXAMPLE)


def test_a_flow_need_not_answer_images_unlike_any_data():
    """Far from its data a CDF is 0 or 1, and z infinite."""

    class Saturating(Scale):
        def inverse(self, z):
            if (z > 2.3).any():
                raise ArithmeticError("no x has such a z")
            return super().inverse(z)

    dark = torch.zeros(3, *SHAPE, dtype=torch.int64)
    assert handin.trained("m", lambda: Flow(Saturating(), SHAPE, 9), some_scale, example=dark) is not None


def test_a_flow_without_its_inverse_is_not_solved_yet(capsys):
    class Forward(Scale):
        def inverse(self, z):
            raise NotImplementedError

    assert handin.trained("m", lambda: Flow(Forward(), SHAPE, 3), some_scale, example=EXAMPLE) is None
    assert "'m' is not solved yet" in capsys.readouterr().out
    assert list(Path("handin").iterdir()) == []


class Extra(Linear):
    def get_extra_state(self):
        return {"anything": 1}

    def set_extra_state(self, state):
        pass


class Growing(Linear):
    """Another size every time it is built."""

    sizes = iter(range(2, 9))

    def __init__(self):
        super().__init__()
        self.more = nn.Parameter(torch.zeros(next(self.sizes)))


class Lazy(Linear):
    def __init__(self):
        super().__init__()
        self.lazy = nn.LazyLinear(3)


def with_attribute(name, value):
    def build():
        model = Linear()
        if name in model._buffers:
            del model._buffers[name]
        if isinstance(value, torch.Tensor):
            model.register_buffer(name, value)
        elif value is not None:
            setattr(model, name, value)
        return model

    return build


class Narrow(Linear):
    def logits(self, x, y=None):
        return super().logits(x)[:, :2]


class NotFinite(Linear):
    def logits(self, x, y=None):
        return super().logits(x) - torch.inf


the_same = Linear()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nn.Linear(1, 1), "expected a torch module with logits"),
        (with_attribute("shape", (2, 2)), r"has shape \(2, 2\)"),
        (with_attribute("levels", 1), "has levels 1"),
        (with_attribute("levels", 2), "values from 0 to 1"),
        (with_attribute("order", None), "has no buffer 'order'"),
        (with_attribute("order", torch.tensor([0, 1, 1, 3])), "each of 0 … 3 once"),
        (with_attribute("order", torch.arange(4.0)), "as int64"),
        (with_attribute("rank", torch.tensor([1, 0, 2, 3])), "'rank' of 'm' is not the inverse of 'order'"),
        (Extra, "keeps '_extra_state' in its state_dict"),
        (Lazy, "keeps 'lazy.weight' in its state_dict"),
        (Growing, "build.. must make the same layers every time"),
        (lambda: the_same, "it must make a new one"),
        (Narrow, r"logits of shape \(3, 2, 1, 2, 2\); expected \(3, 3, 1, 2, 2\)"),
        (NotFinite, "not finite"),
    ],
)
def test_what_cannot_be_handed_in_is_refused_in_a_sentence(build, words):
    with pytest.raises(UsageError, match=words):
        hand_in(build, train=lambda model: None)
    assert handin.registry == {}


@pytest.mark.parametrize("name", ["", "Made", "../made", "a b", "x" * 60, "1st"])
def test_names_that_are_no_files_are_refused(name):
    with pytest.raises(UsageError, match="cannot be a file"):
        hand_in(name=name)


def test_an_example_for_another_model_is_refused():
    with pytest.raises(UsageError, match=r"\(1, 4, 1\); 'm' is for torch.int64 \(1, 2, 2\)"):
        hand_in(example=torch.zeros(2, 1, 4, 1, dtype=torch.int64))


def test_the_graders_session_stays_and_a_notebooks_does_not():
    handin.begin("hw_a")
    assert (handin.session.assignment, handin.session.graded) == ("hw_a", False)
    handin.begin("hw_b", mode="train", folder="elsewhere")
    handin.begin("hw_a")
    assert (handin.session.assignment, handin.session.mode) == ("hw_b", "train")
    assert (handin.session.folder, handin.session.graded) == (Path("elsewhere"), True)
    with pytest.raises(UsageError, match="neither 'train' nor 'replay'"):
        handin.begin("hw", mode="cheat")


def test_a_claim_is_kept_as_a_number(capsys):
    hand_in()
    handin.claim("m", torch.tensor(1.25))
    assert handin.registry["m"].claim == 1.25
    handin.claim("other", 1.0)
    assert "No model 'other' has been handed in (there is: m)" in capsys.readouterr().out


# check and pack


def public(problem):
    return {"schema_version": 1, "assignment": "hw", "title": "HW", "problems": {"p": problem}}


def array(value):
    value = np.asarray(value)
    return {"dtype": str(value.dtype), "shape": list(value.shape), "data": value.reshape(-1).tolist()}


def write_public(**parts):
    problem = {"title": "P", "points": 3, "probes": [], "models": [], "samplers": [], "written": []}
    Path("public.json").write_text(json.dumps(public(problem | parts)))
    handin.begin("hw")


TWICE = {
    "function": "twice",
    "arguments": {"x": array([1.0, 2.0]), "k": array(2)},
    "expected": [array([2.0, 4.0])],
    "atol": 1e-6,
    "rtol": 1e-6,
    "hint": "multiply",
}


def test_check_says_what_is_right_and_what_is_wrong(capsys):
    write_public(probes=[TWICE, TWICE], written=["why"])
    handin.check("p", {"twice": lambda x, k: x * k})
    out = capsys.readouterr().out
    assert out.startswith("ok    twice: 2 of 2 public examples agree.")
    assert "twice on new random inputs; your answer in cell 'why', read by a person." in out
    handin.check("p", {"twice": lambda x, k: x + k})
    assert capsys.readouterr().out.startswith(
        "look  twice: is wrong at 1 of 2 places, by up to 1.\n      multiply\n"
    )
    handin.check("p", {})
    assert "the notebook defines no function 'twice'" in capsys.readouterr().out


@pytest.fixture(scope="module")
def histogram_entry():
    x = data.load("toy1d", "test", seed=5, n=64).x
    reference = Histogram.fit(data.load("toy1d", "train").x, 100)
    bits = -reference.log_prob(x).detach() / np.log(2)
    facts = {
        "name": "table",
        "data": "toy1d",
        "options": {},
        "shape": [1, 1, 1],
        "levels": 100,
        "order": None,
        "family": "autoregressive",
        "latents": None,
        "classes": None,
    }
    return facts | {"seed": 5, "images": 64, "reference_bits": bits.tolist(), "full": 0.02, "none": 0.5}


def fitted(smoothing):
    def train(model):
        model.theta.data = Histogram.fit(data.load("toy1d", "train").x, 100, smoothing=smoothing).theta.data

    example = torch.arange(9).reshape(-1, 1, 1, 1)
    return handin.trained("table", lambda: Histogram((1, 1, 1), 100), train, example=example)


def test_check_scores_a_model_blind_and_explains(histogram_entry, capsys):
    write_public(models=[histogram_entry], samplers=[{"model": "table", "n": 128}])
    handin.check("p", {})
    assert "table: not handed in yet" in capsys.readouterr().out
    fitted(1.0)
    handin.claim("table", 5.85 * np.log(2))
    handin.check("p", {})
    out = capsys.readouterr().out
    assert out.startswith("ok    table: 5.8")
    assert "All points up to +0.0200, none from +0.5000: about 100% of them." in out
    assert "in nats; divide by ln 2" in out
    assert "ok    samples of table: z =" in out
    fitted(1e9)  # so much smoothing that all levels are alike
    handin.check("p", {})
    assert capsys.readouterr().out.startswith("look  table: 6.64")


class Standardised(Transform):
    """z = (x − m) / s of toy1d, with m and s handed in as weights."""

    def __init__(self):
        super().__init__()
        self.m, self.s = nn.Parameter(torch.zeros(())), nn.Parameter(torch.ones(()))

    def forward(self, x):
        return (x - self.m) / self.s, -self.s.log().expand(len(x))

    def inverse(self, z):
        return z * self.s + self.m, self.s.log().expand(len(z))


class Curve(LatentModel):
    """Levels near 50 + 20 z."""

    def __init__(self):
        super().__init__((1, 1, 1), 100, 1)
        self.width = nn.Parameter(torch.ones(()))

    def encode(self, x):
        return (x.flatten(1).float() - 50) / 20, torch.log(self.width / 20).expand(len(x), 1)

    def decode(self, z):
        far = (torch.arange(100).to(z) - 50 - 20 * z) / self.width
        return (-0.5 * far**2).view(-1, 100, 1, 1, 1)


def set_scale(model):
    x = data.load("toy1d", "train").x.double()
    model.transform.m.data, model.transform.s.data = (x + 0.5).mean().float(), x.std().float()


def widen(model):
    model.width.data.fill_(8.0)


@pytest.mark.parametrize(
    ("build", "train", "facts"),
    [
        (lambda: Flow(Standardised(), (1, 1, 1), 100), set_scale, {"family": "flow", "latents": None}),
        (Curve, widen, {"family": "latent", "latents": 1}),
    ],
    ids=["flow", "latent"],
)
def test_check_scores_models_of_two_parties(build, train, facts, histogram_entry, capsys):
    """The reference is the model itself, so that nothing is between them but the noise of bits back."""
    model = build()
    train(model)
    entry = histogram_entry | facts
    entry["reference_bits"] = reference_bits(entry, model).tolist()
    write_public(models=[entry])
    handin.check("p", {})
    assert "table: not handed in yet" in capsys.readouterr().out
    handed_in = handin.trained("table", build, train, example=torch.arange(9).reshape(-1, 1, 1, 1))
    handin.claim("table", np.mean(entry["reference_bits"]) * np.log(2))
    handin.check("p", {})
    out = capsys.readouterr().out
    assert out.startswith("ok    table: ")
    assert "about 100% of them." in out
    assert "the grader ends it in between and asks a second one" in out.replace("\n      ", " ")
    assert "in nats; divide by ln 2" in out
    handed_in.load_state_dict(build().state_dict())
    handin.check("p", {})
    assert capsys.readouterr().out.startswith("look  table: ")


def test_check_asks_conditional_models_and_their_samplers_with_labels(capsys):
    entry = {
        "name": "by_label",
        "family": "autoregressive",
        "data": "glyphs",
        "options": {"size": 8, "levels": 2},
        "shape": [1, 8, 8],
        "levels": 2,
        "order": None,
        "latents": None,
        "classes": 10,
        "seed": 5,
        "images": 64,
        "full": 0.02,
        "none": 0.5,
    }

    class ByLabel(Histogram):
        def __init__(self):
            super().__init__((1, 8, 8), 2)
            self.classes = 10
            self.tables = nn.Parameter(torch.zeros(10, 2, 1, 8, 8))

        def logits(self, x, y=None):
            return self.tables[y]

    def count(model):
        glyphs = data.load("glyphs", "train", size=8, levels=2, n=2000)
        for label in range(10):
            ones = glyphs.x[glyphs.y == label].double().mean(0).clamp(0.01, 0.99)
            model.tables.data[label] = torch.stack([(1 - ones).log(), ones.log()])

    model = ByLabel()
    count(model)
    entry["reference_bits"] = reference_bits(entry, model).tolist()
    write_public(models=[entry], samplers=[{"model": "by_label", "n": 64}])
    glyphs = data.load("glyphs", "train", size=8, levels=2, n=9)
    handin.trained("by_label", ByLabel, count, example=glyphs.x, labels=glyphs.y)
    handin.check("p", {})
    out = capsys.readouterr().out
    assert "about 100% of them." in out
    assert "so the labels are used" in out
    assert "samples of by_label: z = " in out


def test_check_is_silent_in_the_graders_hands(capsys):
    handin.begin("hw", mode="train", folder="handin")
    handin.check("p")
    assert handin.pack() == Path("hw.ipynb")
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_what_check_needs_is_asked_for_in_sentences():
    handin.begin("hw")
    with pytest.raises(UsageError, match="there is no public"):
        handin.check("p")
    write_public()
    with pytest.raises(UsageError, match="unknown problem 'q'"):
        handin.check("q")
    Path("public.json").write_text('{"schema_version": 2}')
    with pytest.raises(UsageError, match="another version"):
        handin.check("p")
    Path("public.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        handin.check("p")


def test_public_examples_are_found_from_within_the_course(tmp_path):
    folder = tmp_path / "assignments" / "hw"
    folder.mkdir(parents=True)
    (folder / "public.json").write_text(json.dumps(public({})))
    for start in (folder, tmp_path, tmp_path / "a" / "b"):
        start.mkdir(parents=True, exist_ok=True)
        assert find("hw", start)["title"] == "HW"


def notebook(*ids):
    """As little of a notebook as the grader reads."""
    cells = [{"cell_type": "code", "id": name, "source": "1", "metadata": {}} for name in ids]
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells})


def test_pack_zips_the_notebook_and_what_was_handed_in(capsys):
    handin.begin("hw")
    hand_in()
    Path("hw.ipynb").write_text(notebook("a", "b"))
    archive = handin.pack()
    with zipfile.ZipFile(archive) as file:
        assert sorted(file.namelist()) == ["handin/m.safetensors", "hw.ipynb"]
        assert file.read("hw.ipynb") == Path("hw.ipynb").read_bytes()
    assert "the models handed in (m)" in capsys.readouterr().out
    Path("other.ipynb").write_text(notebook("a"))
    assert handin.pack("other.ipynb") == Path("other.zip")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no"),
        ("{", "is no notebook"),
        ('{"cells": 3, "nbformat": 4}', "is no notebook"),
        ("[]", "is no notebook"),
        ('{"nbformat": 4, "cells": [{"cell_type": "code"}]}', "cells without ids"),
        (notebook("a", "b", "a"), "two cells with the id 'a'"),
    ],
)
def test_a_notebook_that_the_grader_could_not_read_is_not_packed(content, words):
    handin.begin("hw")
    if content is not None:
        Path("hw.ipynb").write_text(content)
    with pytest.raises(UsageError, match=words):
        handin.pack()
    assert not Path("hw.zip").exists()


def test_pack_needs_to_know_which_notebook():
    with pytest.raises(UsageError, match="name the notebook"):
        handin.pack()
