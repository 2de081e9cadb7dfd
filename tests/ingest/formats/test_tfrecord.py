"""TFRecord framing and Example messages, against bytes that TensorFlow wrote and against damage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.formats.rlds_files import Record, byte_spans, example, numbers
from ingest.reasons import DataError
from tests.kits.rlds_writer import example as written
from tests.kits.rlds_writer import message, varint

FEATURES = {
    "a/text": [b"one", b"", b"three"],
    "b": np.array([1, -2.5], np.float32),
    "c": [3, -1, 300],
    "empty": [],
}


def parsed(message_bytes: bytes) -> dict[str, list]:
    """Values of an Example by key, all read."""
    values_by_key = {}
    for key, values in example(message_bytes, Record(0, 0, len(message_bytes))).items():
        if values.kind == "bytes":
            values_by_key[key] = [message_bytes[s:e] for s, e in byte_spans(message_bytes, values)]
        else:
            values_by_key[key] = numbers(message_bytes, values).tolist()
    return values_by_key


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (message(2, message(1, b"12345")), "not a list of numbers"),
        (message(2, varint(1 << 3 | 0) + varint(1)), "not a list of numbers"),
        (message(3, message(1, b"\x80")), "an integer is cut off"),
        (message(3, message(1, b"\x80" * 10 + b"\x01")), "more than 10 bytes"),
        (message(1, varint(1 << 3 | 0) + varint(1)), "unexpected wire type 0"),
    ],
)
def test_values_that_are_damaged(content: bytes, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        parsed(message(1, message(1, message(1, b"k") + message(2, content))))


@given(st.data())
def test_damage_is_noticed_or_harmless(data: st.DataObject) -> None:
    """Any bytes, and an Example with any byte changed or cut anywhere: read, or DataError."""
    whole = written(FEATURES)
    cut_at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:cut_at] + bytes([data.draw(st.integers(0, 255))]) + whole[cut_at + 1 :]
    for damaged in (changed, whole[:cut_at], data.draw(st.binary(max_size=60))):
        try:
            parsed(damaged)
        except DataError:
            continue
