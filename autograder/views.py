"""What a cell showed, made fit to be looked at: a stranger wrote it, a browser will read it."""

import re
import struct
import zlib
from dataclasses import dataclass

__all__ = ["CellView", "clean_png", "clean_text"]

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
_CONTROL = re.compile(
    r"[^\n\t\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]|[\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # the picture and nothing else
_SIDE = 8192  # pixels


@dataclass(frozen=True)
class CellView:
    """A cell that was run. `index` counts all cells of the notebook; source and problem are the release's."""

    index: int
    problem: str | None
    source: str
    text: list[str]
    images: list[bytes]  # PNG


def clean_text(text: str, limit: int = 20_000) -> str:
    """Text as a terminal would have left it: no escapes, progress bars at their last state, not too long."""
    plain = _ESCAPES.sub("", text).replace("\r\n", "\n")
    lines = (_last_state(line) for line in plain.split("\n"))
    clean = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", "\n".join(lines)).rstrip()
    if len(clean) <= limit:
        return clean
    return f"{clean[: limit // 2]}\n[{len(clean) - limit} characters left out]\n{clean[-(limit // 2) :]}"


def _last_state(line: str) -> str:
    return next((part for part in reversed(line.split("\r")) if part), "")


def clean_png(data: bytes) -> bytes | None:
    """A PNG file with nothing but its picture in it; None when it is none, broken, or too large to show."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    kept, position = [data[:8]], 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        chunk = data[position : position + 12 + length]
        if len(chunk) < 12 + length or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            return None
        if position == 8 and (kind != b"IHDR" or max(struct.unpack_from(">II", chunk, 8)) > _SIDE):
            return None
        kept += [chunk] if kind in _CHUNKS else []
        position += len(chunk)
        if kind == b"IEND":
            return b"".join(kept)
    return None
