"""Frames from a stranger: whatever is wrong with them is a WireError."""

import contextlib
import json
import socket
import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from dulcourse.referee import wire
from dulcourse.referee.wire import WireClosed, WireError, WireTimeout, decode, decode_tensors, encode, plain

DTYPES = [
    "bool",
    "uint8",
    "int8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_what_is_encoded_is_decoded(dtype, shape):
    array = np.asarray(np.random.default_rng(0).random(shape) * 3).astype(dtype)
    header, arrays = decode(encode({"call": "f", "n": [1, None, True, 0.5, "é"]}, {"a": array, "b": array}))
    assert header == {"call": "f", "n": [1, None, True, 0.5, "é"]}
    for copy in arrays.values():
        assert (copy.dtype, copy.shape) == (array.dtype, array.shape)
        assert np.array_equal(copy, array)
        assert copy.flags.writeable
        assert copy.flags.aligned


def test_arrays_in_any_layout_arrive_in_order():
    array = np.arange(12).reshape(3, 4)
    _, arrays = decode(encode({}, {"t": array.T, "s": array[::2, ::-1]}))
    assert np.array_equal(arrays["t"], array.T)
    assert np.array_equal(arrays["s"], array[::2, ::-1])


def frame(header: bytes | str, tensors: bytes = save({})) -> bytes:
    header = header if isinstance(header, bytes) else header.encode()
    return struct.pack(">I", len(header)) + header + tensors


def tensors(index: object, body: bytes = b"") -> bytes:
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    return struct.pack("<Q", len(text)) + text + body


def one(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


HEADERS = {
    "empty": b"",
    "not JSON": b"{",
    "not UTF-8": b'{"a": "\xff"}',
    "not an object": b"[1]",
    "a key twice": b'{"a": 1, "a": 2}',
    "a key twice, deep inside": b'{"a": [{"b": 1, "b": 2}]}',
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "overflowing float": b'{"a": 1e999}',
    "huge integer": b'{"a": ' + b"9" * 4000 + b"}",
    "huger integer": b'{"a": ' + b"9" * 100_000 + b"}",
    "half a character": b'{"a": "\\ud800"}',
    "half a character as key": b'{"\\ud800": 1}',
    "deep lists": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deep and unfinished": b"[" * 500_000,
    "too long": b'{"a": "' + b"x" * wire.HEADER_LIMIT + b'"}',
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_bad_headers_are_wire_errors(header):
    with pytest.raises(WireError):
        decode(frame(header))
    with pytest.raises(WireError):
        decode_tensors(tensors(header))


def test_brackets_in_strings_are_no_depth_and_unfinished_strings_take_linear_time():
    """In quadratic time this test would not end."""
    header, _ = decode(frame(json.dumps({"a": "[" * 1000, "b": '\\"[{'})))
    assert header["a"] == "[" * 1000
    for text in (b'"\\' * 400_000, b'{"a": "' + b'\\"' * 400_000, b'"' * 900_001):
        with pytest.raises(WireError):
            decode(frame(text))


TENSORS = {
    "nothing": b"",
    "index longer than the file": struct.pack("<Q", 2**63) + b"{}",
    "index of one gigabyte": struct.pack("<Q", 2**30) + b"{}",
    "unknown type": tensors(one("C64"), b"\0" * 4),
    "type is a list": tensors(one(["F32"]), b"\0" * 4),
    "bfloat16 wanted": tensors(one("BF16", [2], [0, 4]), b"\0" * 4),
    "missing field": tensors({"a": {"dtype": "F32", "shape": [1]}}, b"\0" * 4),
    "extra field": tensors({"a": one()["a"] | {"more": 1}}, b"\0" * 4),
    "not an object": tensors({"a": 3}),
    "empty but enormous": tensors(one("F32", [0, 2**60], [0, 0])),
    "enormous": tensors(one("F32", [2**40], [0, 2**42])),
    "product overflows": tensors(one("F32", [2**31, 2**31, 2**31], [0, 4])),
    "negative axis": tensors(one("F32", [-1, -1], [0, 4]), b"\0" * 4),
    "axis is true": tensors(one("F32", [True], [0, 4]), b"\0" * 4),
    "axis is a float": tensors(one("F32", [1.0], [0, 4]), b"\0" * 4),
    "too many axes": tensors(one("F32", [1] * 9, [0, 4]), b"\0" * 4),
    "shape is a string": tensors(one("F32", "1", [0, 4]), b"\0" * 4),
    "offsets reversed": tensors(one("F32", [1], [4, 0]), b"\0" * 4),
    "three offsets": tensors(one("F32", [1], [0, 4, 4]), b"\0" * 4),
    "beyond the file": tensors(one("F32", [2], [0, 8]), b"\0" * 4),
    "bytes left over": tensors(one(), b"\0" * 5),
    "a gap": tensors(one("F32", [1], [4, 8]), b"\0" * 8),
    "overlap": tensors({**one(), "b": one()["a"]}, b"\0" * 4),
    "neither true nor false": tensors(one("BOOL", [1], [0, 1]), b"\2"),
    "many": tensors({str(i): one("F32", [0], [0, 0])["a"] for i in range(5000)}),
}


@pytest.mark.parametrize("data", TENSORS.values(), ids=TENSORS)
def test_bad_tensors_are_wire_errors(data):
    with pytest.raises(WireError):
        decode_tensors(data)
    with pytest.raises(WireError):
        decode(frame(b"{}", data))


def test_types_without_a_name_in_numpy_are_skipped_when_not_wanted():
    data = tensors({**one("BF16", [2], [0, 4]), "b": one("F32", [1], [4, 8])["a"]}, b"\0" * 8)
    assert list(decode_tensors(data, only=("b", "c"))) == ["b"]


@given(st.binary(max_size=300))
@settings(max_examples=120)
def test_random_bytes_are_wire_errors_or_frames(data):
    for attempt in (data, frame(data), frame(b"{}", data), frame(b"{}", tensors(data))):
        with contextlib.suppress(WireError):
            header, arrays = decode(attempt)
            assert isinstance(header, dict)
            assert all(isinstance(array, np.ndarray) for array in arrays.values())


@given(st.data())
@settings(max_examples=120)
def test_a_damaged_frame_is_a_wire_error_or_a_frame(data):
    good = bytearray(encode({"call": "made.conditional"}, {"x": np.arange(6), "p": np.ones((2, 2))}))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(good[: data.draw(st.integers(0, len(good)))])
    with contextlib.suppress(WireError):
        header, arrays = decode(damaged)
        assert isinstance(header, dict)
        assert sum(array.nbytes for array in arrays.values()) <= len(damaged)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "__metadata__"]),
        values
        | st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "I64", "BOOL", "BF16"]),
                "shape": values,
                "data_offsets": values,
            }
        ),
    ),
    st.binary(max_size=32),
)
@settings(max_examples=120)
def test_any_json_as_an_index_is_a_wire_error_or_arrays(index, body):
    with contextlib.suppress(WireError):
        arrays = decode_tensors(tensors(index, body))
        assert set(arrays) <= set(index)
        assert sum(array.nbytes for array in arrays.values()) <= len(body)


def pair():
    left, right = socket.socketpair()
    return left, right


def test_frames_follow_each_other_through_a_socket():
    left, right = pair()
    with left, right:
        for text in (b"one", b"", b"three"):
            wire.write_frame(left, text)
        assert [wire.read_frame(right) for _ in range(3)] == [b"one", b"", b"three"]


def test_a_frame_that_is_too_long_is_refused_before_it_is_read():
    left, right = pair()
    with left, right:
        left.sendall(struct.pack(">Q", 2**62))
        with pytest.raises(WireError, match="at most 10"):
            wire.read_frame(right, 10)


@pytest.mark.parametrize("sent", [b"", b"\0\0\0", struct.pack(">Q", 5) + b"ab"])
def test_an_end_in_the_middle_is_an_end(sent):
    left, right = pair()
    with left, right:
        left.sendall(sent)
        left.close()
        with pytest.raises(WireClosed):
            wire.read_frame(right)


def test_silence_and_a_full_socket_are_time_outs():
    left, right = pair()
    with left, right:
        left.sendall(struct.pack(">Q", 5) + b"ab")
        with pytest.raises(WireTimeout):
            wire.read_frame(right, deadline=time.monotonic() + 0.05)
        with pytest.raises(WireTimeout):
            wire.write_frame(left, bytes(1 << 24), deadline=time.monotonic() + 0.05)
        with pytest.raises(WireTimeout):
            wire.read_frame(right, deadline=time.monotonic() - 1)


def test_writing_to_nobody_is_an_end():
    left, right = pair()
    right.close()
    with left, pytest.raises(WireClosed):
        wire.write_frame(left, bytes(100))


def test_strangers_words_are_made_plain():
    assert plain("a\x1b[31mb\u202e\ud800c\nd") == "a�[31mb��c\nd"
    assert plain("x" * 600, 10) == "x" * 9 + "…"
