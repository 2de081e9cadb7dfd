"""What a record of an RLDS dataset holds: features by path, with the types of features.json where there is one.

A record is one episode: `steps/...` features hold the values of all its steps one after the other, others one value.
"""

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import prod
from typing import Any

import numpy as np

from ingest.episode import RowsError
from ingest.formats.tables import check
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
from ingest.limits import LIMITS, Limits
from ingest.media.picture import ArrayPicture, array_picture, decode_picture
from ingest.media.video import VideoError

DTYPE = re.compile(r"^(bool|u?int(8|16|32|64)|float(16|32|64))$")
MAX_TEXTS = 64  # different ones in one feature of an episode
MAX_DEPTH = 32  # of features within features
MAX_NAMED = 8  # features, in one message
MAX_CODE_POINT = 0x10FFFF
COLOURS = 3
TENSOR_KINDS = ("image", "tensor", "classLabel", "boundingBox")
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


NUMBERS, TEXT = Spec("numbers"), Spec("text")
Specs = dict[str, Spec]  # by key


@dataclass(frozen=True)
class Steps:
    """One record; `specs` has the features that are known, whether or not the record has them."""

    data: Data
    features: dict[str, Values]
    specs: Specs
    limits: Limits = LIMITS

    def has_values(self, key: str) -> bool:
        values = self.features.get(key)
        return values is not None and values.end > values.start

    def key(self, path: str) -> str | None:
        """The feature that a path in a step, in the record or in its metadata leads to; None when it has no value."""
        for start in ("steps/", "", "episode_metadata/"):
            for key in (f"{start}{path}", f"{start}{path}{RAGGED}"):
                if self.has_values(key):
                    return key
        return None


def specs_of(features: dict[str, Any]) -> Specs:
    """Types by key, from features.json; what is neither picture, text nor numbers is left out."""
    specs: Specs = {}
    _collect(features, (), 0, specs)
    return specs


def _collect(node: Any, path: tuple[str, ...], sequences: int, specs: Specs) -> None:
    """Put the features at and below a node into `specs`; `sequences`: how many of them the node lies in."""
    # The file is not trusted: one that is nested too deeply would exhaust the stack
    if not isinstance(node, dict) or max(len(path), sequences) > MAX_DEPTH:
        return
    inner = _child(node, "featuresDict", "features")
    element = _child(node, "sequence", "feature")
    if isinstance(inner, dict):
        for name, child in inner.items():
            _collect(child, (*path, name), sequences, specs)
    elif element is not None:
        _collect(element, path, sequences + 1, specs)
    elif spec := _spec(node):
        # A sequence within the sequence of steps has a key of its own, and no shape
        key = "/".join(path)
        if sequences > 1:
            specs[key + RAGGED] = Spec(spec.kind, None, spec.dtype)
        else:
            specs[key] = spec


def _child(node: dict[str, Any], *names: str) -> Any:
    child: Any = node
    for name in names:
        child = child.get(name) if isinstance(child, dict) else None
    return child


def _spec(node: dict[str, Any]) -> Spec | None:
    """The type of a feature; None for what is neither picture, text nor numbers."""
    if "text" in node:
        return Spec("text", ())
    for kind in TENSOR_KINDS:
        content = node.get(kind)
        if isinstance(content, dict):
            return _tensor_spec(kind, content)
    return None


def _tensor_spec(kind: str, content: dict[str, Any]) -> Spec | None:
    try:
        shape = _shape(content)
    except (TypeError, ValueError, OverflowError):
        return None
    dtype = str(content.get("dtype", ""))
    if kind == "image":
        return Spec("picture", shape, dtype or "uint8")
    if dtype in ("string", "object"):
        return Spec("text", shape)
    return Spec(_array_kind(dtype, shape), shape, dtype, str(content.get("encoding") or "none"))


def _array_kind(dtype: str, shape: tuple[int | None, ...]) -> str:
    """A raw picture is uint8 [h, w, 1 or 3]."""
    is_picture = dtype == "uint8" and len(shape) == 3 and shape[2] in (1, 3)
    return "array" if is_picture else "numbers"


def _shape(content: dict[str, Any]) -> tuple[int | None, ...]:
    """Sizes of a tensor, None for -1: one that varies. Raises TypeError, ValueError or OverflowError."""
    dimensions = [int(size) for size in _child(content, "shape", "dimensions") or ()]
    return tuple(None if size < 0 else size for size in dimensions)


def inferred_specs(data: Data, features: dict[str, Values], limits: Limits) -> Specs:
    """Types from a record itself: bytes that begin like a JPEG or PNG file are pictures."""
    specs = {}
    for key, values in features.items():
        kind = "numbers"
        if values.kind == "bytes":
            begin = next((data[s : s + 4] for s, _ in byte_spans(data, values, limits)), b"")
            kind = "picture" if begin.startswith((b"\xff\xd8\xff", b"\x89PNG")) else "text"
        specs[key] = Spec(kind)
    return specs


def num_steps(steps: Steps) -> int:
    """Steps of an episode, from features other than pictures where there are any. Raises RowsError, TFRecordError."""
    keys = [key for key in steps.specs if key.startswith("steps/")]
    counts = _stated_counts(steps, keys)
    if not counts:
        counts = {"pictures": _num_pictures(steps, keys)}
    if len(set(counts.values())) > 1:
        first_counts = islice(counts.items(), MAX_NAMED)
        named = ", ".join(f"{key.removeprefix('steps/')} {count}" for key, count in first_counts)
        raise RowsError(f"features have different numbers of steps: {named}")
    num = next(iter(counts.values()))
    check(steps.limits.excess("max_rows", num, "steps of one episode"))
    return num


def _stated_counts(steps: Steps, keys: list[str]) -> dict[str, int]:
    """Steps by feature, of those features whose type is known and which tell it by their number of values."""
    counts = {key: _count(steps, key) for key in keys}
    return {key: count for key, count in counts.items() if count is not None}


def _num_pictures(steps: Steps, keys: list[str]) -> int:
    """Pictures of the first camera. Raises RowsError when there is none."""
    for key in keys:
        if steps.specs[key].kind == "picture" and key in steps.features:
            return _num_byte_values(steps, steps.features[key])
    raise RowsError("no feature says how many steps there are")


def _num_byte_values(steps: Steps, values: Values) -> int:
    return sum(1 for _ in byte_spans(steps.data, values, steps.limits))


def _count(steps: Steps, key: str) -> int | None:
    """Steps that a feature has, where that can be told without reading much. Raises RowsError."""
    spec, values = steps.specs[key], steps.features.get(key)
    if values is None or (spec.shape is None and key not in STEP_MARKS):
        return None
    size = 1 if spec.shape is None else spec.size
    if values.kind == "float" and size:
        return _count_of_floats(float_count(steps.data, values, steps.limits), size, key)
    return _num_single_values(steps, values, spec) if size == 1 else None


def _num_single_values(steps: Steps, values: Values, spec: Spec) -> int | None:
    """Values of a feature of integers or texts that has one per step; None for pictures."""
    if values.kind == "int":
        return len(integers(steps.data, values, steps.limits))
    is_text = values.kind == "bytes" and spec.kind == "text"
    return _num_byte_values(steps, values) if is_text else None


def _count_of_floats(num_values: int, size: int, key: str) -> int:
    if num_values % size:
        raise RowsError(f"{key} has {num_values} values, which is no multiple of {size}")
    return num_values // size


def texts(steps: Steps, path: str, num_rows: int | None = None) -> tuple[str, ...]:
    """Different texts of a feature in order of appearance; also those stored as a row of UTF-8 bytes or code points."""
    key = steps.key(path)
    if key is None:
        return ()
    return tuple(text for text in _stored_texts(steps, key, num_rows) if text)


def _stored_texts(steps: Steps, key: str, num_rows: int | None) -> Iterable[str]:
    """As `texts`, of a feature that has values; what cannot be decoded is "" among them."""
    values, spec = steps.features[key], steps.specs.get(key, TEXT)
    if values.kind == "bytes" and spec.kind == "text":
        return _texts_of_bytes(steps, values)
    if values.kind == "int" and spec.kind == "numbers" and num_rows:
        return _texts_of_integers(integers(steps.data, values, steps.limits), num_rows)
    return ()


def _texts_of_bytes(steps: Steps, values: Values) -> Iterable[str]:
    """Different texts of a feature of bytes, at most one more than MAX_TEXTS."""
    distinct: dict[str, None] = {}
    before = None
    for start, end in byte_spans(steps.data, values, steps.limits):
        # So long a value is no instruction
        if end - start > steps.limits.max_text:
            continue
        raw = steps.data[start:end]
        if raw == before:  # most steps repeat the text of the step before
            continue
        before = raw
        distinct[_text(raw)] = None
        if len(distinct) > MAX_TEXTS:
            break
    return distinct


def _texts_of_integers(codes: np.ndarray, num_rows: int) -> Iterable[str]:
    """Different texts of a feature that has a row of codes, int64 [num_rows, n], of each step."""
    if len(codes) % num_rows or len(codes) <= num_rows:
        return ()
    rows = dict.fromkeys(row.tobytes() for row in codes.reshape(num_rows, -1))
    return dict.fromkeys(_text_of_codes(np.frombuffer(row, np.int64)) for row in islice(rows, MAX_TEXTS))


def _text(raw: bytes) -> str:
    try:
        return raw.decode().strip()
    except UnicodeDecodeError:
        return ""


def _text_of_codes(codes: np.ndarray) -> str:
    """A text from its UTF-8 bytes or code points, which end at the first 0; "" for what is none."""
    zeros = np.flatnonzero(codes == 0)
    if len(zeros):
        codes = codes[: zeros[0]]
    if not len(codes) or codes.min() < 0 or codes.max() > MAX_CODE_POINT:
        return ""
    if codes.max() < 256:
        return _text(codes.astype(np.uint8).tobytes())
    return "".join(map(chr, codes.tolist())).strip()


def scalar(steps: Steps, path: str) -> str | int | float | None:
    """The value of a feature that is one text or number, or that of the last step."""
    numbers = values_of(steps, path)
    return numbers[-1].item() if len(numbers) else next(iter(texts(steps, path)), None)


def values_of(steps: Steps, path: str) -> np.ndarray:
    """The numbers [n] of a feature; none where it has none."""
    key = steps.key(path)
    if key is None or steps.features[key].kind == "bytes":
        return np.zeros(0)
    return _numbers(steps, steps.features[key])


def _numbers(steps: Steps, values: Values) -> np.ndarray:
    """int64 or float32 [n]. Raises TFRecordError."""
    read = integers if values.kind == "int" else floats
    return read(steps.data, values, steps.limits)


def matrix(steps: Steps, key: str, num_rows: int) -> np.ndarray:
    """A numeric feature, float64 [num_rows, d]. Raises RowsError, TFRecordError."""
    values, spec = steps.features[key], steps.specs.get(key, NUMBERS)
    is_stored_raw = values.kind == "bytes"
    numbers = _raw_numbers(steps, key, spec, num_rows) if is_stored_raw else _numbers(steps, values)
    expected = num_rows * (spec.size or 0)  # 0 where the shape does not say
    if (expected and len(numbers) != expected) or num_rows == 0 or len(numbers) % num_rows:
        raise RowsError(f"{key} has {len(numbers)} values, which does not fit {num_rows} steps of shape {spec.shape}")
    return numbers.reshape(num_rows, -1).astype(np.float64)


def _raw_numbers(steps: Steps, key: str, spec: Spec, num_rows: int) -> np.ndarray:
    """The values [n] of a feature whose tensors are stored as their bytes. Raises RowsError."""
    check(steps.limits.excess("max_values", num_rows * (spec.size or 0), f"{key}: values"))
    # One more than fits shows that there are too many
    spans = islice(byte_spans(steps.data, steps.features[key], steps.limits), num_rows + 1)
    rows = [_raw_array(steps.data[start:end], spec, key, steps.limits).reshape(-1) for start, end in spans]
    return np.concatenate(rows) if rows else np.zeros(0)


def pictures(steps: Steps, key: str) -> Iterator[ArrayPicture]:
    """Pictures of a camera, one at a time. Raises VideoError."""
    values, spec = steps.features[key], steps.specs[key]
    try:
        # A picture is a whole JPEG or PNG file in the record, or a raw array of pixels: only the type tells
        if values.kind == "bytes" and spec.kind == "picture":
            for k, (start, end) in enumerate(byte_spans(steps.data, values, steps.limits)):
                yield decode_picture(steps.data[start:end], f"picture {k} of {key}", steps.limits)
        else:
            for k, array in enumerate(_arrays(steps, values, spec, key)):
                yield array_picture(array, f"picture {k} of {key}")
    except (TFRecordError, RowsError) as e:
        reason = e.reason if e.reason == "over_limit" else "undecodable_video"
        raise VideoError(str(e), reason) from e


def _arrays(steps: Steps, values: Values, spec: Spec, key: str) -> Iterator[np.ndarray]:
    """Raw pictures, one at a time. Raises VideoError, RowsError, TFRecordError."""
    if values.kind == "int":
        yield from _arrays_of_integers(steps, values, spec, key)
    elif values.kind == "bytes":
        for start, end in byte_spans(steps.data, values, steps.limits):
            yield _raw_array(steps.data[start:end], spec, key, steps.limits)
    else:
        raise VideoError(f"{key} holds no pictures but {values.kind}s")


def _arrays_of_integers(steps: Steps, values: Values, spec: Spec, key: str) -> Iterator[np.ndarray]:
    """Raw pictures whose bytes are stored as integers; a few steps at a time are unpacked."""
    data, size = steps.data, spec.size
    # The pixels of all steps stand in one list: only the shape says where a picture ends
    if not size:
        raise RowsError(f"{key} has pictures of unknown shape {spec.shape}")
    _check_pixels(spec, key, steps.limits)
    for start, end in int_spans(data, values, steps.limits):
        while start < end:
            # The values of one picture: those bytes that end a varint are counted
            raw = np.frombuffer(data, np.uint8, min(2 * size, end - start), start)  # a byte takes one or two
            last = np.flatnonzero(raw < 0x80)[:size]
            if len(last) < size:
                raise TFRecordError(f"{key} ends within a picture")
            numbers = varints(raw[: last[-1] + 1])
            if numbers.min() < 0 or numbers.max() > 255:
                raise TFRecordError(f"{key} has values outside 0..255")
            yield numbers.astype(np.uint8).reshape(_static(spec))
            start += int(last[-1]) + 1


def _check_pixels(spec: Spec, key: str, limits: Limits) -> None:
    """Raises RowsError for a step of more values than a picture of three colours may have."""
    check(limits.excess("max_pixels", spec.size or 0, f"{key}: values of one step {spec.shape}", COLOURS))


def _raw_array(raw: bytes, spec: Spec, key: str, limits: Limits) -> np.ndarray:
    """One step of a tensor that is stored as its bytes, or those compressed. Raises RowsError."""
    size = spec.size
    is_number = DTYPE.match(spec.dtype)
    # The type must give the number of bytes, which bounds what is unpacked
    if not is_number or not size or spec.encoding not in ("bytes", "zlib"):
        raise RowsError(f"{key} cannot be read: {spec.encoding} {spec.dtype} {spec.shape}")
    _check_pixels(spec, key, limits)
    # Stored bytes are little endian, whatever machine reads them
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    expected = size * dtype.itemsize
    # One byte more than fits shows what would unpack to more
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
