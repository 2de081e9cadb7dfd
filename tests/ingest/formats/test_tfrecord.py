"""TFRecord framing and Example messages, against bytes that TensorFlow wrote and against damage."""

import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.formats.tfrecord import (
    Record,
    byte_spans,
    check_message,
    example,
    float_count,
    is_whole,
    mapped,
    masked,
    numbers,
    record_at,
    records,
    varints,
)
from ingest.limits import Limits
from ingest.reasons import DataError
from tests.kits.real_data import BRIDGE
from tests.kits.rlds_writer import example as written
from tests.kits.rlds_writer import feature, message, record, varint

FEATURES = {"a/text": [b"one", b"", b"three"], "b": np.array([1, -2.5], np.float32), "c": [3, -1, 300], "empty": []}


def parsed(message_bytes: bytes) -> dict[str, list]:
    """Values of an Example by key, all read."""
    found = {}
    for key, values in example(message_bytes, Record(0, 0, len(message_bytes))).items():
        if values.kind == "bytes":
            found[key] = [message_bytes[s:e] for s, e in byte_spans(message_bytes, values)]
        else:
            found[key] = numbers(message_bytes, values).tolist()
    return found


def test_header_that_tensorflow_wrote() -> None:
    """The first 12 bytes of a shard of BridgeData: length 144644 and its CRC."""
    assert record_at(bytes.fromhex("04350200000000008c1fcfa2"), 0) == Record(0, 12, 144656)
    assert masked(google_crc32c.value(bytes.fromhex("0435020000000000"))) == 0xA2CF1F8C


def test_records_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(record(b"first") + record(b"") + record(b"x" * 300))
    data = mapped(tmp_path / "f")
    found = list(records(data))
    assert found == [Record(0, 12, 17), Record(21, 33, 33), Record(37, 49, 349)]
    for r in found:
        check_message(data, r)
    assert [data[r.start : r.end] for r in found] == [b"first", b"", b"x" * 300]


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    assert list(records(mapped(tmp_path / "f"))) == []


def test_message_larger_than_what_is_read_at_once() -> None:
    data = record(bytes(range(256)) * 10_000)
    check_message(data, record_at(data, 0))
    with pytest.raises(DataError, match="the record at byte 0 is damaged: its CRC is wrong"):
        check_message(data[:-9] + b"!" + data[-8:], record_at(data, 0))


@pytest.mark.parametrize("kept", [1, 11])
def test_file_that_ends_in_a_header(kept: int) -> None:
    data = record(b"first") + record(b"second")[:kept]
    found = records(data)
    assert next(found) == Record(0, 12, 17)
    with pytest.raises(DataError, match=r"ends within a record's header \(byte 21\)"):
        next(found)


@pytest.mark.parametrize("kept", [12, 15, 21])
def test_file_that_ends_in_a_message(kept: int) -> None:
    data = record(b"second")[:kept]
    (found,) = records(data)
    assert (found, is_whole(data, found)) == (Record(0, 12, 18), False)
    with pytest.raises(DataError, match=f"cut off: the file has {kept} bytes"):
        check_message(data, found)


def test_length_that_is_damaged() -> None:
    data = bytearray(record(b"first") + record(b"second") + record(b"third"))
    data[21] ^= 1
    found = records(bytes(data))
    assert next(found) == Record(0, 12, 17)
    with pytest.raises(DataError, match="no record begins at byte 21: the length's CRC is wrong"):
        next(found)


def test_length_beyond_all_files() -> None:
    header = struct.pack("<Q", (1 << 64) - 1)
    data = header + struct.pack("<I", masked(google_crc32c.value(header))) + b"abc"
    (found,) = records(data)
    assert (found.end, is_whole(data, found)) == (12 + (1 << 64) - 1, False)


def test_example() -> None:
    assert parsed(written(FEATURES)) == {"a/text": [b"one", b"", b"three"], "b": [1, -2.5], "c": [3, -1, 300]} | {
        "empty": []
    }


def test_numbers_that_are_not_packed() -> None:
    loose_floats = b"".join(varint(1 << 3 | 5) + struct.pack("<f", x) for x in (1.5, -2.0))
    loose_ints = b"".join(varint(1 << 3 | 0) + varint(x) for x in (7, -7))
    mixed = message(2, loose_floats + message(1, struct.pack("<f", 3.0)))
    data = message(
        1,
        message(1, message(1, b"f") + message(2, mixed))
        + message(1, message(1, b"i") + message(2, message(3, loose_ints))),
    )
    assert parsed(data) == {"f": [1.5, -2.0, 3.0], "i": [7, -7]}
    assert float_count(data, example(data, Record(0, 0, len(data)))["f"]) == 3


def test_what_protobuf_allows() -> None:
    """Fields that are not known, a message in two parts, a key twice (the last counts), a value before its key."""
    unknown = varint(9 << 3 | 0) + varint(5) + varint(8 << 3 | 1) + bytes(8) + varint(7 << 3 | 5) + bytes(4)
    one = message(1, message(2, feature([1])) + message(1, b"k") + unknown)
    two = message(1, message(1, b"k") + message(2, unknown + feature([2])))
    other = message(1, message(1, b"other") + message(2, feature([3])))
    assert parsed(unknown + message(1, one + two) + message(1, other)) == {"k": [2], "other": [3]}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "has no features"),
        (message(1, b""), "has no features"),
        (message(5, b"abc"), "has no features"),
        (b"plain text, no message", "not an Example"),
        (message(1, message(1, message(1, b"k")[:-1])), "leaves its message"),
        (message(1, message(1, message(1, b"\xff\xfe") + message(2, feature([1])))), "a key is not text"),
        (varint(1 << 3 | 3), "wire type 3"),
        (varint(1 << 3 | 0) + varint(1), "unexpected wire type 0"),
        (b"\x0a" + b"\xff" * 12, "a number is cut off"),
        (b"\x0a" + varint(1 << 62), "leaves its message"),
    ],
)
def test_what_is_no_example(data: bytes, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        example(data, Record(0, 0, len(data)))


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


def test_too_many_features() -> None:
    with pytest.raises(DataError, match=r"features .*: 10,001, over the limit of 10,000 \(limits.max_features") as e:
        parsed(written({f"{k}": [] for k in range(10_001)}))
    assert e.value.reason == "over_limit"


@pytest.mark.parametrize(
    ("content", "limits", "why"),
    [
        ([1.0] * 5, {"max_values": 4}, "5, over the limit of 4 (limits.max_values of the registry entry)"),
        ([300] * 5, {"max_values": 4}, "5, over the limit of 4 (limits.max_values of the registry entry)"),
        # More bytes than four numbers take: no byte is looked at
        ([-1] * 5, {"max_values": 4}, "5, over the limit of 4 (limits.max_values of the registry entry)"),
    ],
)
def test_more_values_than_the_limits(content: list, limits: dict[str, int], why: str) -> None:
    data = written({"k": content})
    values = example(data, Record(0, 0, len(data)))["k"]
    assert len(numbers(data, values, Limits())) == len(content)
    with pytest.raises(DataError) as e:
        numbers(data, values, Limits(**limits))
    assert why in str(e.value)
    assert e.value.reason == "over_limit"


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1)))
def test_varints(values: list[int]) -> None:
    raw = np.frombuffer(b"".join(map(varint, values)), np.uint8)
    assert varints(raw).tolist() == values


@given(st.data())
def test_damage_is_noticed_or_harmless(data: st.DataObject) -> None:
    """Any bytes, and an Example with any byte changed or cut anywhere: read, or DataError."""
    whole = written(FEATURES)
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    for damaged in (changed, whole[:at], data.draw(st.binary(max_size=60))):
        try:
            parsed(damaged)
        except DataError:
            continue


def test_real_file() -> None:
    """Every record of the sample passes its CRC, and is written again byte for byte by the writer of the tests."""
    data = mapped(BRIDGE / "1.0.0/bridge_dataset-train.tfrecord-00000-of-00001")
    found = list(records(data))
    assert (len(found), found[-1].end + 4) == (4, len(data))
    for r in found:
        check_message(data, r)
        raw = data[r.start : r.end]
        values = {
            k: np.array(v, np.float32) if example(raw, Record(0, 0, len(raw)))[k].kind == "float" else v
            for k, v in parsed(raw).items()
        }
        assert record(written(values)) == data[r.offset : r.end + 4]
