"""Answer the referee from inside a notebook's kernel: one blocking loop in the calling thread."""

import socket
from collections.abc import Mapping
from typing import Any

from dulcourse import handin
from dulcourse.referee.respondent import LocalRespondent, Malformed
from dulcourse.referee.wire import FRAME_LIMIT, WireClosed, decode, encode, read_frame, write_frame

__all__ = ["serve"]


def serve(path: str, functions: Mapping[str, Any]) -> None:
    """Connect to the unix socket `path` and answer frames until it closes or a frame says `{"stop": true}`.

        {"call": name} + arrays  →  {"ok": true} + arrays  |  {"ok": false, "error": words}

    Models are those handed in, functions those of the notebook (its globals). An `id` in a question is
    repeated in its answer, a `limit` is the most bytes that are taken. This side is the untrusted one:
    nothing here protects the referee, it only keeps honest answers coming.
    """
    respondent = LocalRespondent(handin.registry, functions)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.connect(path)
        while True:
            try:
                header, arrays = decode(read_frame(stream))
            except WireClosed:
                return
            if header.get("stop"):
                return
            write_frame(stream, _answer(respondent, header, arrays))


def _answer(respondent: LocalRespondent, header: dict[str, Any], arrays: dict) -> bytes:
    echo = {"id": header["id"]} if "id" in header else {}
    limit = header.get("limit", FRAME_LIMIT)
    try:
        frame = encode({"ok": True, **echo}, respondent.call(str(header.get("call")), arrays))
        if len(frame) <= limit:
            return frame
        words = f"an answer of {len(frame)} bytes; at most {limit} are taken"
    except Malformed as error:
        words = str(error)
    except BaseException as error:  # complex numbers, an interrupt: one bad answer, and the next is heard
        words = f"an answer that cannot be sent ({type(error).__name__}: {error})"
    return encode({"ok": False, "error": words, **echo}, {})
