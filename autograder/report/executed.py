"""The notebook as it ran, reduced to what is safe to show: source, text and PNG pictures of each cell."""

import base64
import binascii
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Cell", "is_png", "read_cells"]

MOST_CELLS = 400
MOST_PICTURES = 8 * 2**20  # bytes on one page
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Cell:
    """One cell; `pictures` are base64 PNG, ready for a data: address, `left_out` counts those too many."""

    index: int
    id: str
    problem: str | None
    source: str
    text: list[str]
    pictures: list[str]
    left_out: int = 0


def read_cells(path: Path) -> list[Cell] | None:
    """The cells in `executed.json`, or None where there is none that can be read.

    The file holds a list (or an object with the list `cells`) of objects with index, id, problem, source,
    text (a string or a list of them) and images (base64 PNG). HTML and scripts are never looked at; whatever
    has another type than expected is taken as absent.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError):
        return None
    found = found.get("cells") if isinstance(found, dict) else found
    if not isinstance(found, list):
        return None
    cells, room = [], MOST_PICTURES
    for position, raw in enumerate(found[:MOST_CELLS]):
        if isinstance(raw, dict):
            cell = _cell(raw, position, room)
            room -= sum(map(len, cell.pictures)) * 3 // 4
            cells.append(cell)
    return cells


def is_png(data: bytes) -> bool:
    return data.startswith(PNG)


def _cell(raw: dict[str, Any], position: int, room: int) -> Cell:
    pictures, left_out = [], 0
    for picture in _list(raw.get("images")):
        data = _decoded(picture)
        if data is None:
            continue
        if len(data) > room:
            left_out += 1
            continue
        room -= len(data)
        pictures.append(base64.b64encode(data).decode())
    index = raw.get("index")
    return Cell(
        index=index if isinstance(index, int) else position,
        id=_text(raw.get("id")),
        problem=raw["problem"] if isinstance(raw.get("problem"), str) else None,
        source=_text(raw.get("source")),
        text=[text for text in map(_text, _list(raw.get("text"))) if text],
        pictures=pictures,
        left_out=left_out,
    )


def _decoded(picture: object) -> bytes | None:
    if not isinstance(picture, str):
        return None
    try:
        data = base64.b64decode("".join(picture.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if is_png(data) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _list(value: object) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]
