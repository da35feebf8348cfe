"""Streams by name: the same name gives the same draws, any other name gives others."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from dulcourse.errors import UsageError
from dulcourse.randomness import KEY_BYTES, _philox_keys, derive, generator, uniforms
from dulcourse.referee.secret import new_secret

keys = st.binary(min_size=1, max_size=64)
labels = st.lists(st.text(max_size=4) | st.binary(max_size=4) | st.integers(), max_size=3).map(tuple)


@given(keys, labels, labels)
def test_draws_are_equal_exactly_when_the_labels_are(key, one, other):
    same = [(type(a), a) for a in one] == [(type(b), b) for b in other]
    assert (derive(key, *one) == derive(key, *other)) == same
    assert (generator(key, *one).random(4).tolist() == generator(key, *other).random(4).tolist()) == same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab",), ("a", "b")),
        (("a", "b"), ("asb",)),
        (("1",), (1,)),
        (("a",), (b"a",)),
        ((), ("",)),
        ((1, 2), (12,)),
        ((1,), (-1,)),
    ],
)
def test_labels_that_look_alike_are_told_apart(one, other):
    assert derive(b"key", *one) != derive(b"key", *other)


@given(keys, keys, labels)
def test_another_key_gives_other_draws(one, other, labels):
    # BLAKE2b pads a short key with zero bytes, so these two would be one key to it.
    same = one.rstrip(b"\0") == other.rstrip(b"\0") and len(one) == len(other)
    assert (derive(one, *labels) == derive(other, *labels)) == same


@given(keys, labels)
def test_a_derived_key_is_not_the_seed_of_a_stream(key, labels):
    seed = int.from_bytes(derive(key, *labels), "little")
    leaked = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    assert leaked.random() != generator(key, *labels).random()


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=5), st.integers(1, 9))
def test_each_row_of_uniforms_is_its_own_stream(indices, count):
    rows = uniforms(b"key", indices, count)
    assert rows.shape == (len(indices), count)
    for row, index in zip(rows, indices, strict=True):
        assert row.tolist() == generator(b"key", index).random(count).tolist()


@given(st.lists(st.binary(min_size=16, max_size=16) | st.just(bytes(16)), min_size=1, max_size=5))
def test_seeds_are_mixed_as_numpy_mixes_them(digests):
    expected = [
        np.random.SeedSequence(int.from_bytes(d, "little")).generate_state(2, np.uint64) for d in digests
    ]
    assert np.array_equal(_philox_keys(digests), np.stack(expected))


def test_numpy_integers_are_integers():
    assert derive(b"key", np.int64(7)) == derive(b"key", 7)


def test_streams_of_neighbours_are_independent():
    draws = uniforms(b"key", range(2000), 2)
    neighbours = np.stack([draws[:-1, 0], draws[1:, 0], draws[:-1, 1]])
    correlation = np.corrcoef(neighbours)[np.triu_indices(3, 1)]
    assert abs(correlation).max() < 4 / np.sqrt(2000)


@pytest.mark.parametrize("key", [b"", bytes(65)])
def test_a_key_of_the_wrong_length_is_refused(key):
    with pytest.raises(UsageError, match=f"1 to 64 bytes, got {len(key)}"):
        derive(key, "anything")


def test_a_label_of_another_kind_is_refused():
    with pytest.raises(Exception, match=r"0\.5"):
        derive(b"key", 0.5)


def test_secrets_have_128_bits_and_differ():
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(len(secret) == KEY_BYTES == 16 for secret in secrets)
    assert all(
        len(set(byte)) > 50 for byte in zip(*secrets, strict=True)
    )  # all of it, not 32 bits and padding
