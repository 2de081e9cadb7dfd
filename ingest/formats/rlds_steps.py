"""What a record of an RLDS dataset holds: features by path, with the types of features.json where there is one.

A record is one episode: `steps/...` features hold the values of all its steps one after the other, others one value.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import prod
from typing import Any

import numpy as np

from ingest.episode import RowsError
from ingest.formats.tfrecord import (
    Data,
    TFRecordError,
    Values,
    byte_spans,
    float_count,
    floats,
    int_spans,
    integers,
    varints,
)
from ingest.media.picture import MAX_PIXELS, ArrayPicture, array_picture, decode_picture
from ingest.media.video import VideoError

DTYPE = re.compile(r"^(bool|u?int(8|16|32|64)|float(16|32|64))$")
MAX_TEXT_BYTES = 1 << 16
MAX_WIDTH = 1 << 16  # values per step of a state
MAX_TEXTS = 64  # different ones in one feature of an episode
RAGGED = "/ragged_flat_values"  # where TFDS keeps a sequence within the sequence of steps
STEP_MARKS = ("steps/is_first", "steps/is_last", "steps/is_terminal", "steps/reward")


@dataclass(frozen=True)
class Spec:
    """A feature's type. kind: picture (encoded), array (a raw picture), text, or numbers.

    `shape` is that of one step, with None where it varies; itself None where nothing is known.
    """

    kind: str
    shape: tuple[int | None, ...] | None = None
    dtype: str = ""
    encoding: str = "none"

    @property
    def size(self) -> int | None:
        """Values per step."""
        if self.shape is None or None in self.shape:
            return None
        return prod(n for n in self.shape if n is not None)


@dataclass(frozen=True)
class Steps:
    """One record; `specs` has the features that are known, whether or not the record has them."""

    data: Data
    features: dict[str, Values]
    specs: dict[str, Spec]

    def key(self, path: str) -> str | None:
        """The feature that a path in a step, in the record or in its metadata leads to; None when it has no value."""
        for start in ("steps/", "", "episode_metadata/"):
            for key in (f"{start}{path}", f"{start}{path}{RAGGED}"):
                if (found := self.features.get(key)) and found.end > found.start:
                    return key
        return None


def specs_of(features: dict[str, Any]) -> dict[str, Spec]:
    """Types by key, from features.json; what is neither picture, text nor numbers is left out."""
    specs: dict[str, Spec] = {}
    _collect(features, (), 0, specs)
    return specs


def _collect(node: Any, path: tuple[str, ...], sequences: int, specs: dict[str, Spec]) -> None:
    if not isinstance(node, dict) or len(path) > 32 or sequences > 32:
        return
    inner = _child(node, "featuresDict", "features")
    if isinstance(inner, dict):
        for name, child in inner.items():
            _collect(child, (*path, name), sequences, specs)
        return
    if (element := _child(node, "sequence", "feature")) is not None:
        _collect(element, path, sequences + 1, specs)
        return
    if spec := _spec(node):
        ragged = sequences > 1
        specs["/".join(path) + (RAGGED if ragged else "")] = Spec(spec.kind, None, spec.dtype) if ragged else spec


def _child(node: dict[str, Any], *names: str) -> Any:
    found: Any = node
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _spec(node: dict[str, Any]) -> Spec | None:
    if "text" in node:
        return Spec("text", ())
    for kind in ("image", "tensor", "classLabel", "boundingBox"):
        if isinstance(content := node.get(kind), dict):
            break
    else:
        return None
    dimensions = _child(content, "shape", "dimensions")
    try:
        shape = tuple(None if int(d) < 0 else int(d) for d in dimensions or ())
    except (TypeError, ValueError, OverflowError):
        return None
    dtype = str(content.get("dtype", ""))
    if kind == "image":
        return Spec("picture", shape, dtype or "uint8")
    if dtype in ("string", "object"):
        return Spec("text", shape)
    is_picture = dtype == "uint8" and len(shape) == 3 and shape[2] in (1, 3)
    return Spec("array" if is_picture else "numbers", shape, dtype, str(content.get("encoding") or "none"))


def inferred_specs(data: Data, features: dict[str, Values]) -> dict[str, Spec]:
    """Types from a record itself: bytes that begin like a JPEG or PNG file are pictures."""
    specs = {}
    for key, values in features.items():
        kind = "numbers"
        if values.kind == "bytes":
            begin = next((data[s : s + 4] for s, _ in byte_spans(data, values)), b"")
            kind = "picture" if begin.startswith((b"\xff\xd8\xff", b"\x89PNG")) else "text"
        specs[key] = Spec(kind)
    return specs


def num_steps(steps: Steps) -> int:
    """Steps of an episode, from features other than pictures where there are any. Raises RowsError, TFRecordError."""
    counts = {k: c for k in steps.specs if k.startswith("steps/") and (c := _count(steps, k)) is not None}
    if not counts:
        for key, spec in steps.specs.items():
            if key.startswith("steps/") and spec.kind == "picture" and key in steps.features:
                return sum(1 for _ in byte_spans(steps.data, steps.features[key]))
        raise RowsError("no feature says how many steps there are")
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{k.removeprefix('steps/')} {n}" for k, n in list(counts.items())[:8])
        raise RowsError(f"features have different numbers of steps: {told}")
    return next(iter(counts.values()))


def _count(steps: Steps, key: str) -> int | None:
    """Steps that a feature has, where that can be told without reading much."""
    spec, values = steps.specs[key], steps.features.get(key)
    if values is None or (spec.shape is None and key not in STEP_MARKS):
        return None
    size = 1 if spec.shape is None else spec.size
    if values.kind == "float" and size:
        count = float_count(steps.data, values)
        if count % size:
            raise RowsError(f"{key} has {count} values, which is no multiple of {size}")
        return count // size
    if values.kind == "int" and size == 1:
        return len(integers(steps.data, values))
    if values.kind == "bytes" and spec.kind == "text" and size == 1:
        return sum(1 for _ in byte_spans(steps.data, values))
    return None


def texts(steps: Steps, path: str, num_rows: int | None = None) -> tuple[str, ...]:
    """Different texts of a feature in order of appearance; also those stored as a row of UTF-8 bytes or code points."""
    if (key := steps.key(path)) is None:
        return ()
    values, spec = steps.features[key], steps.specs.get(key, Spec("text"))
    found: dict[str, None] = {}
    if values.kind == "bytes" and spec.kind == "text":
        before = None
        for start, end in byte_spans(steps.data, values):
            if end - start > MAX_TEXT_BYTES or (raw := steps.data[start:end]) == before:
                continue
            before = raw
            found[_text(raw)] = None
            if len(found) > MAX_TEXTS:
                break
    elif values.kind == "int" and spec.kind == "numbers" and num_rows:
        codes = integers(steps.data, values)
        if len(codes) % num_rows == 0 and len(codes) > num_rows:
            for row in islice(dict.fromkeys(row.tobytes() for row in codes.reshape(num_rows, -1)), MAX_TEXTS):
                found[_text_of_codes(np.frombuffer(row, np.int64))] = None
    return tuple(t for t in found if t)


def _text(raw: bytes) -> str:
    try:
        return raw.decode().strip()
    except UnicodeDecodeError:
        return ""


def _text_of_codes(codes: np.ndarray) -> str:
    codes = codes[: int(np.argmax(codes == 0))] if (codes == 0).any() else codes
    if len(codes) and codes.min() >= 0 and codes.max() < 256:
        return _text(codes.astype(np.uint8).tobytes())
    inside = len(codes) and codes.min() >= 0 and codes.max() <= 0x10FFFF
    return "".join(map(chr, codes.tolist())).strip() if inside else ""


def scalar(steps: Steps, path: str) -> str | int | float | None:
    """The value of a feature that is one text or number, or that of the last step."""
    numbers = last_values(steps, path, 1)
    return numbers[0] if numbers else next(iter(texts(steps, path)), None)


def last_values(steps: Steps, path: str, count: int) -> list[int | float]:
    """The last numbers of a feature; [] for what is none."""
    key = steps.key(path)
    if key is None or (values := steps.features[key]).kind == "bytes":
        return []
    return (integers if values.kind == "int" else floats)(steps.data, values)[-count:].tolist()


def matrix(steps: Steps, key: str, num_rows: int) -> np.ndarray:
    """A numeric feature, float64 [num_rows, d]. Raises RowsError, TFRecordError."""
    values, spec = steps.features[key], steps.specs.get(key, Spec("numbers"))
    if values.kind == "bytes":
        if (spec.size or 0) > MAX_WIDTH:
            raise RowsError(f"{key} has {spec.size} values per step")
        spans = islice(byte_spans(steps.data, values), num_rows + 1)
        rows = [_raw_array(steps.data[s:e], spec, key).reshape(-1) for s, e in spans]
        found = np.concatenate(rows) if rows else np.zeros(0)
    else:
        found = integers(steps.data, values) if values.kind == "int" else floats(steps.data, values)
    size = num_rows * (spec.size or 0)
    if (size and len(found) != size) or num_rows == 0 or len(found) % num_rows:
        raise RowsError(f"{key} has {len(found)} values, which does not fit {num_rows} steps of shape {spec.shape}")
    return found.reshape(num_rows, -1).astype(np.float64)


def pictures(steps: Steps, key: str) -> Iterator[ArrayPicture]:
    """Pictures of a camera, one at a time. Raises VideoError."""
    values, spec = steps.features[key], steps.specs[key]
    try:
        if values.kind == "int":
            arrays = _arrays_of_integers(steps.data, values, spec, key)
        elif values.kind != "bytes":
            raise VideoError(f"{key} holds no pictures but {values.kind}s")
        else:
            spans = byte_spans(steps.data, values)
            if spec.kind == "picture":
                for k, (start, end) in enumerate(spans):
                    yield decode_picture(steps.data[start:end], f"picture {k} of {key}")
                return
            arrays = (_raw_array(steps.data[s:e], spec, key) for s, e in spans)
        for k, array in enumerate(arrays):
            yield array_picture(array, f"picture {k} of {key}")
    except (TFRecordError, RowsError) as e:
        raise VideoError(str(e)) from e


def _arrays_of_integers(data: Data, values: Values, spec: Spec, key: str) -> Iterator[np.ndarray]:
    """Raw pictures whose bytes are stored as integers; a few steps at a time are unpacked."""
    size = spec.size
    if not size or size > 3 * MAX_PIXELS:
        raise RowsError(f"{key} has pictures of unknown or unlikely shape {spec.shape}")
    for start, end in int_spans(data, values):
        while start < end:
            raw = np.frombuffer(data, np.uint8, min(2 * size, end - start), start)  # a byte takes one or two
            last = np.flatnonzero(raw < 0x80)[:size]
            if len(last) < size:
                raise TFRecordError(f"{key} ends within a picture")
            numbers = varints(raw[: last[-1] + 1])
            if numbers.min() < 0 or numbers.max() > 255:
                raise TFRecordError(f"{key} has values outside 0..255")
            yield numbers.astype(np.uint8).reshape(_static(spec))
            start += int(last[-1]) + 1


def _raw_array(raw: bytes, spec: Spec, key: str) -> np.ndarray:
    """One step of a tensor that is stored as its bytes, or those compressed. Raises RowsError."""
    size = spec.size
    is_number = DTYPE.match(spec.dtype)
    if not is_number or not size or size > 3 * MAX_PIXELS or spec.encoding not in ("bytes", "zlib"):
        raise RowsError(f"{key} cannot be read: {spec.encoding} {spec.dtype} {spec.shape}")
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    expected = size * dtype.itemsize
    if spec.encoding == "zlib":
        try:
            raw = zlib.decompressobj().decompress(raw, expected + 1)
        except zlib.error as e:
            raise RowsError(f"{key} cannot be decompressed: {e}") from e
    if len(raw) != expected:
        raise RowsError(f"{key} has {len(raw)} bytes where {expected} were expected")
    return np.frombuffer(raw, dtype).reshape(_static(spec))


def _static(spec: Spec) -> tuple[int, ...]:
    return tuple(n for n in spec.shape or () if n is not None)
