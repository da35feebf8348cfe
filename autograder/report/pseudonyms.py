"""Names to grade under: drawn by chance, kept in a list that stays with the instructor."""

import csv
import io
import secrets
from collections.abc import Iterable
from pathlib import Path

from autograder.results import write_atomically

__all__ = ["pseudonyms"]

COLOURS = (
    "amber ash azure bronze cherry clay cobalt copper coral cream crimson ebony fawn ginger golden "
    "hazel indigo ivory jade lilac maroon mauve mint ochre olive pearl plum rose russet saffron sand sepia "
    "silver slate teal umber"
)
BIRDS = (
    "avocet bittern bunting chough crane curlew dipper dunlin egret falcon finch fulmar gannet goldcrest "
    "grebe heron hoopoe ibis jackdaw kestrel kite lapwing lark linnet martin merlin nuthatch oriole osprey "
    "petrel pipit plover raven redstart robin shrike siskin starling stork swift tern "
    "thrush wagtail warbler whimbrel wren"
)


def pseudonyms(path: Path, students: Iterable[str]) -> dict[str, str]:
    """student -> pseudonym, such as "teal heron 417": from the CSV file `path`, where new students are added.

    Drawn, not computed: no one finds a student by hashing the names of the class. The file is readable to its
    owner only; whoever may see the report but not the names must not get it.
    """
    known = _read(path)
    new = [student for student in students if student not in known]
    for student in new:
        taken = set(known.values())
        while (name := _draw()) in taken:
            pass
        known[student] = name
    if new:
        write_atomically(path, _csv(known))
        path.chmod(0o600)
    return known


def _draw() -> str:
    return f"{secrets.choice(COLOURS.split())} {secrets.choice(BIRDS.split())} {100 + secrets.randbelow(900)}"


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["student"]: row["pseudonym"] for row in csv.DictReader(file)}


def _csv(known: dict[str, str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["pseudonym", "student"])
    writer.writerows(sorted((name, student) for student, name in known.items()))
    return text.getvalue()
