"""Edits of a notebook, of which the students of the example class are made."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

__all__ = [
    "Cell",
    "Edit",
    "Notebook",
    "append",
    "delete",
    "duplicate",
    "find",
    "nothing",
    "own_cell",
    "replace",
    "unsolved",
    "write",
    "write_all",
]

Cell = dict[str, Any]
Notebook = dict[str, Any]
# Changes a notebook; the second one is what students were given.
Edit = Callable[[Notebook, Notebook], None]


def replace(cell: str, old: str, new: str) -> Edit:
    """Change a passage that occurs once in a cell; fails loudly when the solution has been rewritten."""

    def edit(notebook: Notebook, given: Notebook) -> None:
        source = find(notebook, cell)["source"]
        if source.count(old) != 1:
            raise ValueError(f"{old!r} occurs {source.count(old)} times in cell {cell!r}, expected once")
        find(notebook, cell)["source"] = source.replace(old, new)

    return edit


def write(cell: str, source: str) -> Edit:
    """Put something else into a cell."""
    return lambda notebook, given: find(notebook, cell).update(source=source.strip())


def write_all(sources: Mapping[str, str]) -> Edit:
    """Put something else into several cells."""

    def edit(notebook: Notebook, given: Notebook) -> None:
        for cell, source in sources.items():
            write(cell, source)(notebook, given)

    return edit


def append(cell: str, source: str) -> Edit:
    """Write more at the end of a cell."""
    return lambda notebook, given: find(notebook, cell).update(
        source=find(notebook, cell)["source"] + "\n\n\n" + source.strip()
    )


def unsolved(*cells: str) -> Edit:
    """Leave cells as they were given."""

    def edit(notebook: Notebook, given: Notebook) -> None:
        for cell in cells:
            find(notebook, cell)["source"] = find(given, cell)["source"]

    return edit


def nothing() -> Edit:
    """Nothing filled in at all."""

    def edit(notebook: Notebook, given: Notebook) -> None:
        for cell in given["cells"]:
            if cell["metadata"].get("nbgrader", {}).get("solution"):
                find(notebook, cell["id"])["source"] = cell["source"]

    return edit


def own_cell(after: str | None, source: str, number: int = 1) -> Edit:
    """Add a cell of one's own after another one; None: at the end."""

    def edit(notebook: Notebook, given: Notebook) -> None:
        at = len(notebook["cells"]) if after is None else notebook["cells"].index(find(notebook, after)) + 1
        notebook["cells"].insert(at, _code_cell(f"mine-{number}", source.strip()))

    return edit


def delete(*cells: str) -> Edit:
    """Delete cells."""

    def edit(notebook: Notebook, given: Notebook) -> None:
        for cell in cells:
            notebook["cells"].remove(find(notebook, cell))

    return edit


def duplicate(*cells: str) -> Edit:
    """Copy and paste a cell below itself: metadata and all, with a new id, as Jupyter does."""

    def edit(notebook: Notebook, given: Notebook) -> None:
        for cell in cells:
            original = find(notebook, cell)
            copy = deepcopy(original) | {"id": f"copy-of-{cell}"}
            notebook["cells"].insert(notebook["cells"].index(original) + 1, copy)

    return edit


def find(notebook: Notebook, cell: str) -> Cell:
    """The cell with this id."""
    found = [c for c in notebook["cells"] if c["id"] == cell]
    if len(found) != 1:
        raise ValueError(f"{len(found)} cells have the id {cell!r}, expected one")
    return found[0]


def _code_cell(name: str, source: str) -> Cell:
    """A cell as Jupyter makes it."""
    empty = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    return empty | {"id": name, "source": source}
