"""Frames through a socket: a JSON header and safetensors, never anything that could be executed.

    frame  =  header length (4 bytes, big-endian)  ·  header (JSON object)  ·  tensors (safetensors)
    stream =  frame length (8 bytes, big-endian)  ·  frame  ·  frame length  ·  frame  …

What is decoded was written by a stranger. Everything is checked before it is believed, sizes before
anything is allocated, and whatever is wrong becomes one kind of error: `WireError`.
"""

import json
import math
import re
import socket
import struct
import time
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save

__all__ = [
    "FRAME_LIMIT",
    "WireClosed",
    "WireError",
    "WireTimeout",
    "decode",
    "decode_tensors",
    "encode",
    "plain",
    "read_frame",
    "write_frame",
]

FRAME_LIMIT = 256 << 20  # bytes in one frame
HEADER_LIMIT = 1 << 20  # bytes of JSON in one frame, and in the index of its tensors
DEPTH_LIMIT = 32  # brackets inside brackets
TENSOR_LIMIT = 4096  # a checkpoint of a deep model has hundreds
AXES_LIMIT = 8
SIZE_LIMIT = 1 << 31  # elements along one axis, even of an empty tensor

# The element types of the format, and their names in numpy; the last ones have none, so they are skipped
# or refused.
_DTYPES = {
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
}
_DTYPES |= {"BOOL": "u1", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
_SIZES = {name: np.dtype(kind).itemsize for name, kind in _DTYPES.items()} | {
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}


class WireError(Exception):
    """A frame that cannot be used, with the reason in words."""


class WireClosed(WireError):  # noqa: N818
    """The other side has gone."""


class WireTimeout(WireError):  # noqa: N818
    """The other side took too long."""


def encode(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """One frame. The arrays may be of any shape and of the types bool, int, uint and float."""
    text = json.dumps(header, allow_nan=False).encode()
    tensors = save({name: np.require(array, requirements="C") for name, array in arrays.items()})
    return struct.pack(">I", len(text)) + text + tensors


def decode(frame: bytes, *, header_limit: int = HEADER_LIMIT) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of a frame, or `WireError`."""
    if len(frame) < 4:
        raise WireError(f"a frame of {len(frame)} bytes has no header")
    (length,) = struct.unpack_from(">I", frame)
    if length > min(header_limit, len(frame) - 4):
        raise WireError(f"a header of {length} bytes in a frame of {len(frame)} (at most {header_limit})")
    return _json_object(frame[4 : 4 + length]), decode_tensors(memoryview(frame)[4 + length :])


def decode_tensors(data: bytes | memoryview, *, only: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file: copies, writable and aligned. `only` names those that are wanted.

    The whole index is checked whatever is wanted: every tensor inside the file, no two overlapping, no
    byte unused.
    """
    data = memoryview(data)
    if len(data) < 8:
        raise WireError(f"{len(data)} bytes are too few for safetensors")
    (length,) = struct.unpack_from("<Q", data)
    if length > min(HEADER_LIMIT, len(data) - 8):
        raise WireError(f"a safetensors index of {length} bytes among {len(data)} (at most {HEADER_LIMIT})")
    index = _json_object(bytes(data[8 : 8 + length]))
    index.pop("__metadata__", None)
    if len(index) > TENSOR_LIMIT:
        raise WireError(f"{len(index)} tensors; at most {TENSOR_LIMIT} are read")
    entries = sorted((_entry(name, item) for name, item in index.items()), key=lambda entry: entry[3:])
    _check_layout(entries, len(data) - 8 - length)
    body = data[8 + length :]
    return {
        name: _array(name, kind, shape, body[begin:end])
        for name, kind, shape, begin, end in entries
        if only is None or name in only
    }


def _json_object(text: bytes) -> dict[str, Any]:
    """A JSON object: no key twice, no NaN, no long numbers, no deep nesting, no half characters."""
    try:
        decoded = text.decode()
        _check_depth(decoded)
        value = json.loads(
            decoded, object_pairs_hook=_unique, parse_constant=_refuse, parse_int=_int, parse_float=_float
        )
        json.dumps(value, ensure_ascii=False).encode()  # lone surrogates cannot be written down
    except WireError:
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise WireError(f"a header that is not JSON: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise WireError(f"a header that is a {type(value).__name__}, not an object")
    return value


def _check_depth(text: str) -> None:
    # Brackets inside strings are taken out first; what is left is counted without building anything.
    # A string that never ends runs to the end of the text, so that every text takes linear time.
    bare = re.sub(r'"(?:[^"\\]|\\.?)*+(?:"|\Z)', "", text, flags=re.DOTALL)
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", bare):
        depth += 1 if bracket in "[{" else -1
        if depth > DEPTH_LIMIT:
            raise WireError(f"a header nested deeper than {DEPTH_LIMIT}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise WireError("a header with the same key twice")
    return result


def _refuse(constant: str) -> None:
    raise WireError(f"a header with {constant}")


def _int(digits: str) -> int:
    if len(digits) > 19:
        raise WireError(f"a header with an integer of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise WireError("a header with an infinite number")
    return value


def _entry(name: str, item: Any) -> tuple[str, str, tuple[int, ...], int, int]:
    """One tensor's (name, element type, shape, begin, end), each of the right type and consistent."""
    if not isinstance(item, dict) or set(item) != {"dtype", "shape", "data_offsets"}:
        raise WireError("a tensor without exactly dtype, shape and data_offsets")
    kind, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if not isinstance(kind, str) or kind not in _SIZES:
        raise WireError(f"a tensor of unknown type {plain(str(kind), 20)!r}")
    if not _naturals(shape, AXES_LIMIT) or not _naturals(offsets, 2) or len(offsets) != 2:
        raise WireError(f"a tensor whose shape or offsets are not at most {AXES_LIMIT} natural numbers")
    if any(size > SIZE_LIMIT for size in shape):
        raise WireError(f"a tensor with an axis longer than {SIZE_LIMIT}")
    begin, end = offsets
    if end - begin != math.prod(shape) * _SIZES[kind]:
        raise WireError("a tensor whose shape does not fit its bytes")
    return name, kind, tuple(shape), begin, end


def _naturals(values: Any, most: int) -> bool:
    return isinstance(values, list) and len(values) <= most and all(type(v) is int and v >= 0 for v in values)


def _check_layout(entries: list[tuple], size: int) -> None:
    position = 0
    for *_, begin, end in entries:
        if begin != position:
            raise WireError("tensors that overlap or leave a gap")
        position = end
    if position != size:
        raise WireError(f"tensors of {position} bytes in a body of {size}")


def _array(name: str, kind: str, shape: tuple[int, ...], body: memoryview) -> np.ndarray:
    if kind not in _DTYPES:
        raise WireError(f"tensor {plain(name, 60)!r} has type {kind}, which has no equal in numpy")
    array = np.frombuffer(body, _DTYPES[kind]).reshape(shape)
    if kind == "BOOL":
        if (array > 1).any():
            raise WireError("a truth value that is neither 0 nor 1")
        return array.astype(bool)
    return array.astype(array.dtype.newbyteorder("="))


def plain(text: str, limit: int = 500) -> str:
    """A stranger's words, fit to be shown: no control or half characters, at most `limit` characters."""
    clean = "".join(
        c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text[: limit + 1]
    )
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def read_frame(stream: socket.socket, limit: int = FRAME_LIMIT, deadline: float | None = None) -> bytes:
    """The next frame, of at most `limit` bytes, whole before `deadline` (`time.monotonic()`; None: no limit).

    Raises `WireClosed` when the other side has gone, `WireTimeout` when it is too slow, `WireError` for a
    frame that is too large (the stream cannot be used after any of them).
    """
    (length,) = struct.unpack(">Q", _read(stream, 8, deadline))
    if length > limit:
        raise WireError(f"a frame of {length} bytes; at most {limit} are read")
    return bytes(_read(stream, length, deadline))


def _read(stream: socket.socket, count: int, deadline: float | None) -> bytearray:
    # Grown as bytes come: a large promise alone takes no memory.
    data = bytearray()
    while len(data) < count:
        try:
            stream.settimeout(_left(deadline))
            piece = stream.recv(min(count - len(data), 1 << 20))
        except TimeoutError:
            raise WireTimeout("no answer in time") from None
        except OSError as error:
            raise WireClosed(f"the connection broke: {error.strerror or type(error).__name__}") from error
        if not piece:
            raise WireClosed("the connection was closed")
        data += piece
    return data


def write_frame(stream: socket.socket, frame: bytes, deadline: float | None = None) -> None:
    """Send a frame; a reader that does not read is `WireTimeout`, one that has gone `WireClosed`."""
    try:
        stream.settimeout(_left(deadline))
        stream.sendall(struct.pack(">Q", len(frame)) + frame)
    except TimeoutError:
        raise WireTimeout("the frame was not taken in time") from None
    except OSError as error:
        raise WireClosed(f"the connection broke: {error.strerror or type(error).__name__}") from error


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
