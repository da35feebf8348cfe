"""One submission's way: who is asked what, in which order, and what it is worth."""

import json
from pathlib import Path

import pytest

from autograder.batch import create_batch
from autograder.grading import grade_class, regrade_class
from autograder.results import SubmissionResult, Verdict, read_result
from autograder.run import load_run
from dulcourse.referee.exam import Exam
from tests.autograder.parties import BEHAVIOURS, course, hand_in, parties


class Room:
    """A course, a class, a folder of results, and what the parties saw."""

    def __init__(self, folder: Path):
        self.course, self.klass, self.out = course(folder / "course"), folder / "class", folder / "out"
        (self.klass / "submitted").mkdir(parents=True)
        self.log: list = []

    def grade(self, *words: str, **options) -> int:
        for word in words:
            hand_in(self.klass, word, word, self.course)
        return grade_class(
            self.course,
            "tiny",
            self.klass,
            self.out,
            tier="smoke",
            slots=1,
            sandboxes=parties(self.log),
            **options,
        )

    def result(self, student: str) -> SubmissionResult:
        return read_result(self.out / student / "result.json")

    def points(self, student: str) -> dict[str, float | None]:
        return {item.id: item.points for item in self.result(student).items}

    def asked(self) -> list[str]:
        return [entry[1] for entry in self.log if entry[0] == "call"]

    def runs(self) -> list[tuple]:
        return [entry[2:4] for entry in self.log if entry[0] == "run"]


@pytest.fixture
def room(tmp_path, monkeypatch) -> Room:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    secrets = iter(
        bytes([number]) * 16 for number in range(1, 99)
    )  # the same draws in every run of the tests
    monkeypatch.setattr("autograder.batch.secrets.token_bytes", lambda size: next(secrets))
    return Room(tmp_path)


@pytest.fixture
def no_figures(monkeypatch) -> None:
    monkeypatch.setattr("autograder.report.figures.draw", lambda folder, name, **given: {})


def test_good_work_gets_everything_and_waits_for_a_person(room):
    assert room.grade("good") == 0
    result = room.result("good")
    assert room.points("good") == {
        "function:double": 2,
        "function:same": 1,
        "model:table": 4,
        "sampler:table": 2,
        "written:why": None,
    }
    assert (result.verdict, result.points, result.out_of, result.by_hand) == (Verdict.graded, 9, 9, 3)
    measured = next(item.measurement for item in result.items if item.kind == "model")
    assert measured.images == 64
    assert measured.failures == 0
    assert measured.claimed_bits_per_dim == 1.5
    assert measured.own_bits_per_dim == pytest.approx(measured.bits_per_dim, abs=0.5)


@pytest.mark.usefixtures("no_figures")
def test_an_answer_in_words_is_kept_for_the_person_who_reads_it(room):
    room.grade("good")
    kept = {cell["id"]: cell for cell in load_run(room.out / "good").cells}
    assert kept["why"]["source"] == "YOUR ANSWER"
    assert "YOUR ANSWER" in (room.out / "good" / "index.html").read_text()


@pytest.mark.usefixtures("no_figures")
def test_one_party_at_a_time_and_each_does_its_part(room):
    room.grade("good")
    assert [entry[0] for entry in room.log if entry[0] in ("open", "close")] == ["open", "close"] * 2
    closed = next(i for i, entry in enumerate(room.log) if entry[0] == "close")
    first = [entry[1] for entry in room.log[:closed] if entry[0] == "call"]
    second = [entry[1] for entry in room.log[closed:] if entry[0] == "call"]
    assert first == [
        "table.claim",
        "table.history",
        *["function.double"] * 5,
        *["function.same"] * 5,
        "table.sample",
    ]
    assert second[:2] == ["table.conditional", "table.conditional"]  # the images, then the samples
    assert not {"table.sample", "table.claim", "function.double"} & set(second)
    assert room.runs() == [("train", None), ("replay", None)]


def test_what_is_beside_the_result(room):
    room.grade("good")
    folder = room.out / "good"
    figures = {name for item in room.result("good").items for name in item.figures.values()}
    assert figures == {path.name for path in folder.glob("*.png")}
    assert {"table-curves.png", "table-dependency.png", "table-samples.png"} == figures
    run = load_run(folder)
    assert set(run.checkpoints) == {"table"}
    assert run.claims == {"table": 1.5}
    assert json.loads((folder / "executed.json").read_text())["cells"][0]["text"] == ["printed"]
    assert json.loads((room.out / "batch.json").read_text())["assignment"] == "tiny"


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    ("word", "verdict", "points", "words"),
    [
        (
            "unsolved",
            Verdict.graded,
            [0, 1, 0, 0, None],
            {"model:table": "No model 'table' was handed in: call"},
        ),
        ("wrong", Verdict.graded, [0, 1, 4, 2, None], {"function:double": "1.5 times what is expected"}),
        ("uniform", Verdict.graded, [2, 1, 0, 0, None], {"model:table": "none from +0.3"}),
        ("raises", Verdict.student_error, [0, 1, 4, 2, None], {"function:double": "Times two."}),
        ("late", Verdict.timeout, [2, 1, 4, 2, None], {}),
        ("early", Verdict.timeout, [2, 1, 0, 0, None], {"model:table": "before the run ended. Too slow."}),
        (
            "cheats",
            Verdict.graded,
            [2, 1, 0, 0, None],
            {"model:table": "imports dulcourse.autoregressive.histogram"},
        ),
        ("breaks_out", Verdict.sandbox_violation, [0, 0, 0, 0, 0], {"function:same": "interfered"}),
        ("dies_of_double", Verdict.kernel_died, [0, 1, 4, 2, None], {"function:double": "It died of"}),
        ("dies_of_scoring", Verdict.kernel_died, [2, 1, 0, 0, None], {"model:table": "bits/dim on 64"}),
        ("attacks_scoring", Verdict.sandbox_violation, [0, 0, 0, 0, 0], {"model:table": "It died of"}),
        ("no_replay", Verdict.timeout, [2, 1, 0, 0, None], {}),
        ("no_order", Verdict.graded, [2, 1, 0, 0, None], {"model:table": "no buffer 'order'"}),
        ("garbage", Verdict.graded, [2, 1, 0, 0, None], {"sampler:table": "cannot be read"}),
    ],
)
def test_what_each_way_of_going_wrong_costs(room, word, verdict, points, words):
    assert room.grade(word) == 0
    result = room.result(word)
    assert result.verdict is verdict
    for item, expected in zip(result.items, points, strict=True):
        assert item.points == expected, (item.id, item.words)
    said = {item.id: " ".join(item.words) for item in result.items}
    for item, sentence in words.items():
        assert sentence in said[item]


@pytest.mark.usefixtures("no_figures")
def test_a_party_that_dies_over_a_question_is_replaced_for_the_others(room):
    room.grade("dies_of_double")
    assert room.runs() == [("train", None), ("replay", 5), ("replay", None)]
    assert room.asked().count("function.double") == 1


@pytest.mark.usefixtures("no_figures")
def test_a_run_that_died_is_replayed_up_to_the_cell_it_died_in(room):
    room.grade("late")
    assert room.runs() == [("train", None), ("replay", 4), ("replay", 4)]


@pytest.mark.usefixtures("no_figures")
def test_a_replay_that_never_lives_is_not_tried_for_ever(room):
    room.grade("no_replay")
    assert room.runs() == [("train", None), ("replay", None)]


@pytest.mark.usefixtures("no_figures")
def test_the_machines_failures_are_not_charged_and_begin_again(room):
    assert room.grade("unlucky", "good") == 2
    assert room.result("unlucky").verdict is Verdict.infrastructure_error
    assert room.result("unlucky").items == []
    assert room.result("good").points == 9
    assert room.grade() == 0
    assert room.result("unlucky").points == 9


@pytest.mark.usefixtures("no_figures")
def test_a_machine_that_fails_between_the_parties_begins_again_from_the_same_draws(room, tmp_path):
    assert room.grade("unlucky_later", "good") == 2
    assert room.result("unlucky_later").verdict is Verdict.infrastructure_error
    assert room.grade() == 0
    one, other = (room.result(student) for student in ("unlucky_later", "good"))
    assert one.points == other.points == 9


@pytest.mark.usefixtures("no_figures")
def test_a_fault_of_the_grader_is_loud_and_nobodys(room, capsys):
    assert room.grade("our_fault", "good") == 2
    assert room.result("our_fault").verdict is Verdict.infrastructure_error
    assert "ZeroDivisionError" in (room.out / "our_fault" / "fault.txt").read_text()
    assert "our_fault" in capsys.readouterr().out
    assert room.result("good").points == 9


@pytest.mark.usefixtures("no_figures")
def test_more_time_for_those_who_need_it(room):
    (room.klass / "roster.csv").write_text("student,time_factor\ngood,2\n")
    room.grade("good")
    assert [entry[5] for entry in room.log if entry[0] == "run"] == [40, 40]


@pytest.mark.usefixtures("no_figures")
def test_the_notebook_is_told_seed_device_and_tier(room):
    room.grade("good", seed=7)
    assert room.log[1][4] == {"seed": 7, "device": "cpu", "tier": "smoke"}


@pytest.mark.usefixtures("no_figures")
def test_nothing_is_drawn_before_the_weights_are_frozen(room, monkeypatch):
    events = []
    for name in ("freeze", "generator", "images"):
        original = getattr(Exam, name)

        def noted(self, *args, _original=original, _name=name, **options):
            events.append(_name)
            return _original(self, *args, **options)

        monkeypatch.setattr(Exam, name, noted)
    room.grade("good")
    assert events[0] == "freeze"
    assert "freeze" not in events[1:]
    assert {"generator", "images"} <= set(events)


@pytest.mark.usefixtures("no_figures")
def test_the_draws_depend_on_student_and_notebook_and_secret(room, monkeypatch):
    labels = []
    original = Exam.__init__
    monkeypatch.setattr(
        Exam,
        "__init__",
        lambda self, secret, label: (labels.append((secret, label)), original(self, secret, label))[1],
    )
    room.grade("good", "wrong")
    assert len({label for _, label in labels}) == 2
    before = list(labels)
    room.out = room.out.with_name("other")
    room.grade()
    assert {label for _, label in labels[2:]} == {label for _, label in before}
    assert labels[2][0] != before[0][0]


# --- scoring again ---------------------------------------------------------------------------------------


def regrade(room, **options):
    return regrade_class(room.course, room.out, slots=1, sandboxes=parties(room.log), **options)


def test_a_changed_rubric_scores_again_from_saved_weights(room):
    room.grade("good", "late")
    before = room.result("good")
    path = room.course / "solutions/tiny/rubric.py"
    path.write_text(path.read_text().replace("points=4", "points=40"))
    room.log.clear()
    assert room.grade() == 0
    assert room.log == []
    assert room.result("good") == before
    assert regrade(room) == 0
    assert {mode for mode, _ in room.runs()} == {"replay"}
    assert room.points("good")["model:table"] == 40
    assert room.points("late")["model:table"] == 40
    assert room.result("late").verdict is Verdict.timeout
    again, first = (
        next(item.measurement for item in result.items if item.kind == "model")
        for result in (room.result("good"), before)
    )
    assert again == first
    assert "table-curves.png" in {path.name for path in (room.out / "good").glob("*.png")}


@pytest.mark.usefixtures("no_figures")
def test_a_regrade_is_logged_and_can_train_anew(room):
    room.grade("good", "wrong")
    room.log.clear()
    regrade(room, only=["good"], retrain=True)
    assert room.runs() == [("train", None), ("replay", None)]
    lines = [json.loads(line) for line in (room.out / "journal.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines][-3:] == ["regrade", "started", "regraded"]
    assert lines[-3]["students"] == ["good"]


@pytest.mark.usefixtures("no_figures")
def test_a_new_hand_in_is_not_regraded_but_graded(room, capsys):
    room.grade("good")
    hand_in(room.klass, "good", "wrong", room.course)
    room.log.clear()
    regrade(room)
    assert room.runs() == []
    assert "handed in anew" in capsys.readouterr().out
    room.grade()
    assert room.points("good")["function:double"] == 0


def test_the_behaviours_are_all_tried():
    source = Path(__file__).read_text()
    assert all(f'"{word}"' in source for word in BEHAVIOURS)


def test_batches_have_secrets_of_their_own(room):
    one = create_batch(
        room.out, assignment="tiny", tier="smoke", seed=0, device="cpu", class_folder=room.klass
    )
    other = create_batch(
        room.out.with_name("o"),
        assignment="tiny",
        tier="smoke",
        seed=0,
        device="cpu",
        class_folder=room.klass,
    )
    assert one.id != other.id
