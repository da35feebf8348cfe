"""Why there are no points, in words that tell a student what to do."""

from autograder import points
from autograder.results import CellError, Verdict
from autograder.rubric import Model, Problem
from autograder.run import Run

MODEL = Model(name="made", data="glyphs", shape=(1, 8, 8), levels=4, reference="made", points=5)
PROBLEM = Problem(name="made", title="MADE", items=(MODEL,))


def words(**run) -> str:
    item = points.not_handed_in(PROBLEM, MODEL, "made", Run(verdict=Verdict.graded, **run))
    assert item.points == 0
    return " ".join(item.words)


def test_a_model_that_was_not_handed_in_has_its_own_reason():
    said = {"text": ["'made' is not solved yet (NotImplementedError); nothing was handed in.\n"]}
    raised = CellError(problem="made", cell="c", name="NameError", message="name 'y' is not defined")
    assert "call handin.trained('made'" in words()
    assert "not solved yet" in words(cells=[said])
    assert "NameError: name 'y'" in words(cells=[said], errors=[raised])
    assert "before the run ended. Too slow." in words(last_cell=3, reason="Too slow.")
