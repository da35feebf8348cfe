"""What a score is a function of, as hashes: equal receipts, equal scores, so nothing is run twice."""

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path

from autograder.batch import Batch
from autograder.rebuild import Rebuilt
from autograder.results import Receipt

__all__ = ["library_hash", "receipt_for", "rubric_hash", "same_run", "same_score"]

PACKAGES = ("dulcourse", "autograder")
# How limits were enforced is a fact about the run, known only afterwards; it changes no score.
IGNORED = {"limits"}
# Scored again from saved weights when one of these changed; everything else needs a new run.
SCORING = {"rubric", "library", "torch", "notebook"}


def receipt_for(submitted: str, rebuilt: Rebuilt, batch: Batch, secret: bytes, rubric: str) -> Receipt:
    """The receipt of one submission, known before it runs (all but how limits will be enforced)."""
    return Receipt(
        submitted=submitted,
        notebook=rebuilt.sha256,
        rubric=rubric,
        library=library_hash(),
        draws=hashlib.sha256(b"dulcourse draws" + secret).hexdigest(),
        seed=batch.seed,
        device=batch.device,
        tier=batch.tier,
        torch=version("torch"),
    )


def same_score(one: Receipt, other: Receipt) -> bool:
    """Nothing that a score depends on differs."""
    return one.model_dump(exclude=IGNORED) == other.model_dump(exclude=IGNORED)


def same_run(one: Receipt, other: Receipt) -> bool:
    """The same hand-in of the same batch: at most the scoring changed, for which weights are saved."""
    return one.model_dump(exclude=IGNORED | SCORING) == other.model_dump(exclude=IGNORED | SCORING)


def rubric_hash(rubric_folder: Path, release: Path) -> str:
    """Of the rubric's Python files, its reference weights, and the release."""
    reference = rubric_folder / "reference"
    return _hash([*rubric_folder.glob("*.py"), *reference.glob("*"), release])


@cache
def library_hash() -> str:
    """Of every Python file of the library and the grader."""
    root = Path(__file__).resolve().parents[1]
    return _hash(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def _hash(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
