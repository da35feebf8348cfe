"""Flows and latent-variable models on their way: images go to a first party, and only z to the second."""

import math
import re
from functools import cache
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from autograder import protocols
from autograder.calibrate import calibrate
from autograder.grading import grade_class, regrade_class
from autograder.reference import References, Trusted, public_images
from autograder.release import public
from autograder.results import Verdict, read_result
from autograder.rubric import Model, Problem, Rubric, Sampler, load_module, load_rubric
from dulcourse.referee.exam import Exam
from dulcourse.referee.respondent import LocalRespondent
from tests.autograder.parties import (
    TINY,
    Behaviour,
    course,
    hand_in,
    parties,
    save_reference,
    weights,
    write_release,
)

REFERENCE = load_module(TINY / "solutions" / "pair" / "reference.py")
MORE = load_module(TINY / "solutions" / "more" / "reference.py")
KEY, DRAWS = b"sixteen bytes !!", bytes([5]) * 16


@cache
def good() -> dict:
    return {"line": REFERENCE.line(9, "smoke"), "blind": REFERENCE.blind(9, "smoke")}


@cache
def sure() -> dict:
    """Far too sure of themselves: some images reach their cap."""
    line, blind = REFERENCE.line(9, "smoke"), REFERENCE.blind(9, "smoke")
    with torch.no_grad():
        line.transform.log_scale -= 2
        blind.table *= 10
    return {"line": line, "blind": blind}


class Remembering(REFERENCE.Blind):
    """z is a number for the image; whoever remembers which one needs no more to name the image."""

    seen: ClassVar[dict[int, torch.Tensor]] = {}  # of the process: copies of the model have it too

    def encode(self, x):
        first = len(self.seen)
        self.seen.update({first + i: image for i, image in enumerate(x)})
        number = torch.arange(first, len(self.seen), dtype=self.table.dtype)[:, None]
        return number / 1000, torch.full_like(number, -12.0)

    def decode(self, z):
        logits = super().decode(z).clone()
        for row, number in enumerate((z[:, 0] * 1000).round().long().tolist()):
            if number in self.seen:
                logits[row] = 20.0 * torch.nn.functional.one_hot(self.seen[number], 4).movedim(-1, 0)
        return logits


def remembering() -> Remembering:
    """In a new process, which remembers nothing."""
    Remembering.seen.clear()
    model = Remembering()
    model.load_state_dict(good()["blind"].state_dict())
    return model


@cache
def tables() -> dict:
    return {"labelled": MORE.labelled(9, "smoke"), "scarce": MORE.scarce(9, "smoke")}


class Ignoring(MORE.Labelled):
    """The mean over the classes, whatever the label."""

    def __init__(self, like):
        super().__init__()
        self.load_state_dict(like.state_dict())

    def logits(self, x, y=None):
        return self.table.softmax(1).mean(0).log().expand(len(x), -1, -1, -1, -1)


def dies_of(question: str, verdict: Verdict = Verdict.kernel_died) -> Behaviour:
    return Behaviour(models=good, deadly={question: verdict})


BEHAVIOURS = {
    "good": Behaviour(models=good),
    "sure": Behaviour(models=sure),
    "remembers": Behaviour(models=lambda: {"blind": remembering()}),
    "dies_of_forward": dies_of("line.forward"),
    "dies_of_encode": dies_of("blind.encode"),
    "dies_of_inverse": dies_of("line.inverse"),
    "dies_of_sample": dies_of("line.sample"),
    "breaks_out_of_decode": dies_of("blind.decode", Verdict.sandbox_violation),
    "late": Behaviour(models=good, verdict=Verdict.timeout, last_cell=4),
    "more": Behaviour(models=lambda: tables()),
    "ignores_labels": Behaviour(models=lambda: {"labelled": Ignoring(tables()["labelled"])}),
    "no_replay": Behaviour(models=good, replay=Verdict.timeout, deadly={"line.claim": Verdict.kernel_died}),
}


class Room:
    """A course with one homework of several families, a class, and what the parties saw."""

    def __init__(self, folder, assignment, reference, models):
        self.course, self.klass, self.out = course(folder / "course"), folder / "class", folder / "out"
        self.assignment = assignment
        write_release(self.course, assignment)
        for name in models:
            save_reference(self.course, assignment, name, getattr(reference, name)(0, "smoke"))
        self.log: list = []

    def grade(self, word):
        hand_in(self.klass, word, word, self.course, self.assignment)
        options = {"tier": "smoke", "slots": 1, "sandboxes": parties(self.log, behaviours=BEHAVIOURS)}
        assert grade_class(self.course, self.assignment, self.klass, self.out, **options) == 0
        return self.result(word)

    def result(self, word):
        return read_result(self.out / word / "result.json")

    def points(self, word):
        return {item.id: item.points for item in self.result(word).items}


@pytest.fixture
def known_draws(tmp_path, monkeypatch) -> None:
    """The same images every time: on so few, what is measured scatters by more than the tests allow."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("autograder.grading.secret_of", lambda batch: DRAWS)


@pytest.fixture
def room(tmp_path, known_draws) -> Room:
    return Room(tmp_path, "pair", REFERENCE, ("line", "blind"))


@pytest.fixture
def more(tmp_path, known_draws) -> Room:
    return Room(tmp_path, "more", MORE, ("labelled", "scarce"))


@pytest.fixture
def no_figures(monkeypatch) -> None:
    monkeypatch.setattr("autograder.report.figures.draw", lambda folder, name, **given: {})


def test_good_models_of_both_families_get_everything(room):
    result = room.grade("good")
    assert room.points("good") == {"function:double": 1, "model:line": 4, "model:blind": 4}
    line, blind = (item.measurement for item in result.items if item.kind == "model")
    assert (line.family, blind.family) == ("flow", "latent")
    for found in (line, blind):
        assert found.failures == 0
        assert found.images == 64
        assert abs(found.difference) < 0.05
        assert found.own_bits_per_dim == pytest.approx(found.bits_per_dim, abs=0.01)
    cap = line.parts.get("cap", 0.0)  # one image in some thousands reaches it
    total = line.parts["prior"] - line.parts["log_det"] + cap
    assert total == pytest.approx(line.bits_per_dim, abs=1e-6)
    assert sum(blind.parts.values()) == pytest.approx(blind.bits_per_dim, abs=1e-6)
    assert {path.name for path in (room.out / "good").glob("*.png")} == {
        f"{name}-{figure}.png" for name in ("line", "blind") for figure in ("curves", "samples")
    }
    page = (room.out / "good" / "index.html").read_text()
    assert "minus log-determinant" in page
    assert "What each output depends on" not in page


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("word", ["good", "sure"])
def test_the_figures_on_a_page_add_up(room, word):
    room.grade(word)
    page = (room.out / word / "index.html").read_text()
    tables = re.findall(r">measured by the referee<.*?(?=>our reference,)", page, re.DOTALL)
    assert len(tables) == 2
    for table in tables:
        cells = re.findall(r'<td class="number">([^<]+)</td>', table)
        measured, _, *parts = (float(cell.replace("−", "-")) for cell in cells)
        assert sum(parts) == pytest.approx(measured, abs=1e-4 * len(parts))  # four digits of each
        assert word == "good" or "taken off it" in table


@pytest.mark.usefixtures("no_figures")
def test_images_come_last_and_only_z_is_seen_by_the_second_party(room):
    room.grade("good")
    closed = next(i for i, entry in enumerate(room.log) if entry[0] == "close")
    first = [entry[1] for entry in room.log[:closed] if entry[0] == "call"]
    second = [entry[1] for entry in room.log[closed:] if entry[0] == "call"]
    assert first[-4:] == ["line.sample", "blind.sample", "line.forward", "blind.encode"]
    scored = second.index("line.log_prob")
    assert set(second[:scored]) == {"line.inverse", "blind.decode"}
    assert not {"line.forward", "blind.encode"} & set(second)


@pytest.mark.usefixtures("no_figures")
def test_a_decoder_that_remembers_the_encoders_images_gains_nothing(room):
    model = Model.model_validate(
        next(
            item
            for _, item in load_rubric("pair", room.course / "solutions").items
            if item.id[-5:] == "blind"
        )
    )
    exam, liar = Exam(KEY, "liar"), remembering()
    frozen = protocols.freeze(exam, model, weights(liar))
    alive = LocalRespondent({"blind": SimpleNamespace(model=liar, claim=None, history=None)})
    images = protocols.images(exam, model, 64)
    asked = protocols.ask_first(alive, model, frozen, images, exam.generator("a"))
    trusted = Trusted(REFERENCE.blind(0, "smoke"), public_images(model))
    one = protocols.score(
        alive, model, frozen, images, trusted=trusted, generator=exam.generator("b"), asked=asked
    )
    assert one.difference < -0.3  # what it would gain if its first party lived on
    room.grade("remembers")
    measured = next(item for item in room.result("remembers").items if item.id == "model:blind")
    assert measured.measurement.difference > 0.2
    assert measured.points == 0


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("word", "verdict", "points"),
    [
        ("dies_of_forward", Verdict.kernel_died, [1, 0, 4]),
        ("dies_of_encode", Verdict.kernel_died, [1, 4, 0]),
        ("dies_of_inverse", Verdict.kernel_died, [1, 0, 4]),
        ("dies_of_sample", Verdict.kernel_died, [1, 4, 4]),
        ("breaks_out_of_decode", Verdict.sandbox_violation, [0, 0, 0]),
        ("late", Verdict.timeout, [1, 4, 4]),
        ("no_replay", Verdict.timeout, [0, 0, 0]),
    ],
)
def test_what_kills_a_party_costs_that_model_only(room, word, verdict, points):
    assert room.grade(word).verdict is verdict
    assert list(room.points(word).values()) == points
    deadly = next(iter(BEHAVIOURS[word].deadly), None)
    assert deadly is None or [entry[1] for entry in room.log if entry[0] == "call"].count(deadly) == 1


@pytest.mark.usefixtures("no_figures")
def test_a_regrade_asks_a_stand_in_and_finds_the_same(room):
    before = room.grade("good")
    path = room.course / "solutions/pair/rubric.py"
    path.write_text(path.read_text().replace("points=1)", "points=2)"))
    room.log.clear()
    sandboxes = parties(room.log, behaviours=BEHAVIOURS)
    assert regrade_class(room.course, room.out, slots=1, sandboxes=sandboxes) == 0
    assert [entry[2:4] for entry in room.log if entry[0] == "run"] == [("replay", 5), ("replay", None)]
    again = room.result("good")
    assert again.points == before.points + 1
    assert [i.measurement for i in again.items] == [i.measurement for i in before.items]


def test_references_of_every_family_are_calibrated_and_released(room, monkeypatch):
    monkeypatch.setattr("autograder.calibrate.DRAWS", 2)
    lines = list(calibrate(room.course / "solutions", "pair", "smoke", 3))
    assert [line.partition(":")[0] for line in lines] == ["line", "blind"]
    rubric = load_rubric("pair", room.course / "solutions")
    References(rubric, "smoke").check()
    monkeypatch.setattr("autograder.release.PUBLIC_TIER", "smoke")
    line, blind = public(rubric)["problems"]["models"]["models"]
    assert (line["family"], line["latents"], line["classes"]) == ("flow", None, None)
    assert (blind["family"], blind["latents"], blind["order"]) == ("latent", 1, None)
    assert np.mean(line["reference_bits"]) == pytest.approx(6.3, abs=0.5)
    assert np.mean(blind["reference_bits"]) == pytest.approx(1.3, abs=0.3)


# --- labels, and finite data -------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_figures")
def test_a_conditional_model_is_told_labels_and_pays_for_them(more):
    result = more.grade("more")
    assert more.points("more") == {
        "function:double": 1,
        "model:labelled": 4,
        "sampler:labelled": 4,
        "model:scarce": 2,
    }
    labelled, scarce = (item.measurement for item in result.items if item.kind == "model")
    assert labelled.label_gap > 0.05
    assert labelled.images == 192  # a quarter gets wrong labels, and no score
    assert labelled.bits_per_dim - labelled.own_bits_per_dim == pytest.approx(math.log2(10) / 64, abs=0.05)
    assert scarce.images == 360
    # All positions, by its own account of the first 256 of them.
    assert scarce.own_bits_per_dim == pytest.approx(scarce.bits_per_dim, abs=0.01)


@pytest.mark.usefixtures("no_figures")
def test_whoever_ignores_labels_is_told_so(more):
    item = next(item for item in more.grade("ignores_labels").items if item.id == "model:labelled")
    # The gap that is measured is that of few images; the same images with other labels tell exactly.
    assert any("wrong labels cost +0.000 bits/dim: the labels are ignored" in word for word in item.words)


# --- what a rubric may say of models -----------------------------------------------------------------------

GLYPHS = {"data": "glyphs", "shape": (1, 8, 8), "levels": 4, "reference": "r", "points": 1}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"family": "flow", "order": (0, 1)}, "neither an order nor classes"),
        ({"family": "latent", "latents": 2, "classes": 3}, "neither an order nor classes"),
        ({"family": "latent"}, "how many numbers z has"),
        ({"family": "flow", "latents": 2}, "how many numbers z has"),
        ({"latents": 2}, "how many numbers z has"),
        ({"family": "latent", "latents": 0}, "at least 1 latent"),
        ({"classes": 1}, "2 classes"),
        ({"family": "energy"}, "autoregressive"),
    ],
)
def test_a_model_says_what_its_family_needs(said, words):
    with pytest.raises(ValueError, match=words):
        Model(name="m", **GLYPHS, **said)


def test_samples_are_of_autoregressive_models_and_finite_data_of_one(tmp_path):
    flow = Model(name="m", family="flow", **GLYPHS)
    with pytest.raises(ValueError, match="no autoregressive model of this name"):
        _rubric(tmp_path, flow, Sampler(model="m", points=1))
    finite = GLYPHS | {"data": "digits", "points": 0}
    with pytest.raises(ValueError, match="same finite data, 'digits'"):
        _rubric(tmp_path, Model(name="a", **finite), Model(name="b", **finite))


def _rubric(folder, *items):
    return Rubric(
        name="r", title="R", folder=folder, problems=(Problem(name="p", title="P", items=items),), tiers={}
    )
