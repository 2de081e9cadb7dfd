"""What a record of an RLDS dataset holds: features by path, with the types of features.json where there is one.

A record is one episode: `steps/...` features hold the values of all its steps one after the other,
others one value.
"""

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, takewhile
from math import prod
from typing import Any

import numpy as np

from ingest.episode import VideoError
from ingest.formats.folders import object_of
from ingest.formats.listing import texts_among
from ingest.formats.rlds_files import Data, Values, byte_spans, number_spans, numbers, varints
from ingest.formats.row_pictures import (
    SAMPLE_ROWS,
    PictureForm,
    form_of,
    other_kind,
    picture_of,
    scaled,
)
from ingest.media.picture import ArrayPicture, decode_picture
from ingest.reasons import LIMITS, DataError, Limits

MAX_DIMENSIONS, MAX_VALUES = 32, 1 << 62  # of one step's array
DTYPE = re.compile(r"^(bool|u?int(8|16|32|64)|float(16|32|64))$")
MAX_TEXTS = 64  # different ones in one feature of an episode
MAX_NAMED = 8  # features, in one message
MAX_CODE_POINT = 0x10FFFF
COLOURS = 3
TENSOR_KINDS = ("image", "tensor", "classLabel", "boundingBox")
STEPS = "steps/"
OBSERVATION = "steps/observation/"
RAGGED = "/ragged_flat_values"  # where TFDS keeps a sequence within the sequence of steps
ROW_LENGTHS = "/ragged_row_lengths_"  # and how long it is in each step, by a number for each level
IN_STEPS = re.compile("steps/")
STEP_MARKS = ("steps/is_first", "steps/is_last", "steps/is_terminal", "steps/reward")


@dataclass(frozen=True)
class Spec:
    """A feature's type. kind: picture (encoded), array (a raw picture), text, numbers, or other: `dtype` then names it.

    `shape` is that of one step, with None where it varies; itself None where nothing is known.
    """

    kind: str
    shape: tuple[int | None, ...] | None = None
    dtype: str = ""
    encoding: str = "none"

    @property
    def is_picture(self) -> bool:
        return self.kind == "array" or (self.kind == "picture" and self.dtype in ("", "uint8"))

    @property
    def size(self) -> int | None:
        """Values per step."""
        if self.shape is None or None in self.shape:
            return None
        return prod(self.static)

    @property
    def static(self) -> tuple[int, ...]:
        return tuple(n for n in self.shape or () if n is not None)


NUMBERS = Spec("numbers")
TEXT = Spec("text")
Specs = dict[str, Spec]  # by key
Labels = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class RldsRecord:
    """One record; `specs` has the features that are known, whether or not the record has them."""

    data: Data
    features: dict[str, Values]
    specs: Specs
    limits: Limits = LIMITS
    labels: Labels = field(default_factory=dict)  # names of classes, by feature

    def has_values(self, key: str) -> bool:
        values = self.features.get(key)
        return values is not None and values.end > values.start

    @cached_property
    def keys(self) -> dict[str, str]:
        """Features that have a value, by each path that leads to them in a step, in the record or in its metadata; of
        several the one in a step counts.
        """
        keys: dict[str, str] = {}
        with_values = list(filter(self.has_values, self.features))
        for start in ("episode_metadata/", "", "steps/"):
            for end in (RAGGED, ""):
                matching_keys = [
                    key for key in with_values if key.startswith(start) and key.endswith(end)
                ]
                keys |= {key.removeprefix(start).removesuffix(end): key for key in matching_keys}
        return keys

    def spans(self, key: str) -> Iterator[tuple[int, int]]:
        """Begin and end of each value of a feature of bytes. Raises DataError."""
        return byte_spans(self.data, self.features[key])

    def numbers(self, key: str) -> np.ndarray:
        """int64 or float32 [n]. Raises DataError."""
        return numbers(self.data, self.features[key], self.limits)

    def count(self, key: str) -> int:
        """How many values a feature has. Raises DataError."""
        values = self.features[key]
        if values.kind == "bytes":
            return len(list(self.spans(key)))
        if values.kind == "int":
            return len(self.numbers(key))
        return sum(end - start for start, end in number_spans(self.data, values)) // 4


# Types


def specs_of(features: dict[str, Any]) -> Specs:
    """Types by key, from features.json."""
    specs: Specs = {}
    _collect(features, (), 0, specs)
    return specs


def _collect(node: Any, path: tuple[str, ...], sequences: int, specs: Specs) -> None:
    """Put the features at and below a node into `specs`; `sequences`: how many of them the node lies in."""
    node = _modern(object_of(node))
    inner = object_of(node.get("featuresDict")).get("features")
    element = object_of(node.get("sequence")).get("feature")
    if isinstance(inner, dict):
        for name, child in inner.items():
            _collect(child, (*path, name), sequences, specs)
    elif element is not None:
        _collect(element, path, sequences + 1, specs)
    elif spec := _spec(node, "/".join(path)):
        key = "/".join(path)
        # A sequence within the sequence of steps has a key of its own, and no shape
        if sequences > 1:
            specs[key + RAGGED] = Spec(spec.kind, None, spec.dtype)
        else:
            specs[key] = spec


def _modern(node: dict[str, Any]) -> dict[str, Any]:
    """A feature as TFDS describes it now, of one that it described by "type" and "content" before."""
    name = str(node.get("type", "")).rpartition(".")[2]
    content = node.get("content")
    if not name or not isinstance(content, dict):
        return node
    if name == "FeaturesDict":
        return {"featuresDict": {"features": content}}
    if "feature" in content:
        return {"sequence": content}
    if name == "Text":
        return {"text": {}}
    kind = {"Image": "image", "ClassLabel": "classLabel"}.get(name, "tensor")
    return {kind: content | {"shape": {"dimensions": content.get("shape") or []}}}


def _shape(dimensions: Any) -> tuple[int | None, ...] | None:
    """With None for a dimension that varies, which is stored as -1; None for what is no shape of an array."""
    try:
        shape = tuple(None if int(size) < 0 else int(size) for size in dimensions or ())
    except (TypeError, ValueError, OverflowError):
        return None
    if len(shape) <= MAX_DIMENSIONS and prod(size or 1 for size in shape) < MAX_VALUES:
        return shape
    return None


def _spec(node: dict[str, Any], path: str) -> Spec | None:
    """The type of the feature at a path; None for what is no feature."""
    if "text" in node:
        return Spec("text", ())
    kind = next((kind for kind in TENSOR_KINDS if isinstance(node.get(kind), dict)), None)
    if kind is None:
        name = str(node.get("pythonClassName", "")).rpartition(".")[2]
        if name:
            return Spec("other", None, name)
        return None
    content = node[kind]
    dtype = str(content.get("dtype", ""))
    shape = _shape(object_of(content.get("shape")).get("dimensions"))
    if shape is None:
        return None
    if kind == "image":
        return Spec("picture", shape, dtype or "uint8")
    if dtype in ("string", "object"):
        return Spec("text", shape)
    is_picture = (
        bool(DTYPE.match(dtype))
        and len(shape) in (2, 3)
        and form_of(path, (None, *shape), dtype) is not None
    )
    return Spec(
        "array" if is_picture else "numbers", shape, dtype, str(content.get("encoding") or "none")
    )


def inferred_specs(data: Data, features: dict[str, Values]) -> Specs:
    """Types from a record itself: bytes that begin like a JPEG or PNG file are pictures."""
    specs = {}
    for key, values in features.items():
        kind = "numbers"
        if values.kind == "bytes":
            begin = next((data[s : s + 4] for s, _ in byte_spans(data, values)), b"")
            kind = "picture" if begin.startswith((b"\xff\xd8\xff", b"\x89PNG")) else "text"
        specs[key] = Spec(kind)
    return specs


def path_of(key: str) -> str:
    """A feature's path in a step, as people name it. Example: path_of("steps/action") == "action"."""
    return key.removeprefix(STEPS).removesuffix(RAGGED)


# How many steps


def num_steps(steps: RldsRecord) -> int:
    """Steps of an episode, from features other than pictures where there are any. Raises DataError."""
    keys = list(filter(IN_STEPS.match, steps.specs))
    counts = {key: count for key in keys if (count := _count(steps, key)) is not None}
    if not counts:  # pictures of the first camera
        cameras = [
            key for key in keys if steps.specs[key].kind == "picture" and key in steps.features
        ]
        if not cameras:
            raise DataError("no feature says how many steps there are")
        counts = {"pictures": len(list(steps.spans(cameras[0])))}
    if len(set(counts.values())) > 1:
        first_counts = islice(counts.items(), MAX_NAMED)
        count_texts = ", ".join(
            f"{key.removeprefix('steps/')} {count}" for key, count in first_counts
        )
        raise DataError(f"features have different numbers of steps: {count_texts}")
    num = next(iter(counts.values()))
    steps.limits.check("max_rows", num, "steps of one episode")
    return num


def _count(steps: RldsRecord, key: str) -> int | None:
    """Steps that a feature has, where that can be told without reading much. Raises DataError."""
    spec = steps.specs[key]
    values = steps.features.get(key)
    size = 1 if spec.shape is None and key in STEP_MARKS else spec.size
    if spec.kind == "other" or values is None or not size:
        return None
    # Features of integers or texts that have one per step; pictures are not counted
    has_one = size == 1 and (values.kind == "int" or spec.kind == "text")
    if values.kind != "float" and not has_one:
        return None
    num_values = steps.count(key)
    if num_values % size:
        raise DataError(f"{key} has {num_values} values, which is no multiple of {size}")
    return num_values // size


# Texts and numbers


def texts(steps: RldsRecord, path: str, num_rows: int | None = None) -> tuple[str, ...]:
    """Different texts of a feature in order of appearance; also those stored as a row of UTF-8 bytes or code points."""
    key = steps.keys.get(path)
    if key is None:
        return ()
    values = steps.features[key]
    spec = steps.specs.get(key, TEXT)
    if values.kind == "bytes" and spec.kind == "text":
        # At most one more than MAX_TEXTS; so long a one is no instruction
        distinct: dict[bytes, None] = {}
        for start, end in steps.spans(key):
            if end - start <= steps.limits.max_text:
                distinct[steps.data[start:end]] = None
            if len(distinct) > MAX_TEXTS:
                break
        return texts_among(map(_text, distinct))
    if values.kind == "int" and spec.kind == "numbers" and num_rows:
        return texts_among(_texts_of_codes(steps.numbers(key), num_rows))
    return ()


def has_text_each(steps: RldsRecord, path: str, num_rows: int) -> bool:
    """Is a feature of texts within the steps, and has it one in each?"""
    key = steps.keys.get(path, "")
    is_in_codes = steps.specs.get(key, TEXT).kind == "numbers"
    return key.startswith("steps/") and (is_in_codes or len(list(steps.spans(key))) == num_rows)


def _texts_of_codes(codes: np.ndarray, num_rows: int) -> Iterator[str]:
    """Of code points of which each step has equally many, those of each different step."""
    if len(codes) % num_rows == 0 and len(codes) > num_rows:
        rows = dict.fromkeys(row.tobytes() for row in codes.reshape(num_rows, -1))
        yield from map(_text_of_codes, islice(rows, MAX_TEXTS))


def _text(raw: bytes) -> str:
    try:
        return raw.decode().strip()
    except UnicodeDecodeError:
        return ""


def _text_of_codes(row: bytes) -> str:
    """A text from its UTF-8 bytes or code points, each int64, which end at the first 0; "" for what is none."""
    codes = list(takewhile(bool, np.frombuffer(row, np.int64).tolist()))
    if min(codes, default=-1) < 0 or max(codes) > MAX_CODE_POINT:
        return ""
    return _text(bytes(codes)) if max(codes) < 256 else "".join(map(chr, codes))


def scalar(steps: RldsRecord, path: str) -> str | int | float | None:
    """The value of a feature that is one text or number, or that of the last step."""
    values = values_of(steps, path)
    if len(values):
        return values[-1].item()
    return next(iter(texts(steps, path)), None)


def values_of(steps: RldsRecord, path: str) -> np.ndarray:
    """The numbers [n] of a feature, one of each step or one in all; none where it has none, or several of a step, such
    as one for each stage of a task.
    """
    key = steps.keys.get(path)
    if (
        key is None
        or steps.features[key].kind == "bytes"
        or steps.specs.get(key, NUMBERS).size not in (None, 1)
    ):
        return np.zeros(0)
    return steps.numbers(key)


def matrix(steps: RldsRecord, key: str, num_rows: int) -> np.ndarray:
    """A numeric feature, [num_rows, d]. Raises DataError."""
    spec = steps.specs.get(key, NUMBERS)
    expected = num_rows * (spec.size or 0)  # 0 where the shape does not say
    if not expected and (problem := ragged_problem(steps, key)):
        raise DataError(problem)
    if steps.features[key].kind == "bytes":
        # Tensors that are stored as their bytes. One more than fits shows that there are too many
        steps.limits.check("max_values", expected, f"{key}: values")
        rows = [array.ravel() for array in islice(_arrays(steps, key), num_rows + 1)]
        stored = np.concatenate(rows) if rows else np.zeros(0)
    else:
        stored = steps.numbers(key)
    if (expected and len(stored) != expected) or num_rows == 0 or len(stored) % num_rows:
        raise DataError(
            f"{key} has {len(stored)} values, which does not fit {num_rows} steps of shape {spec.shape}"
        )
    return stored.reshape(num_rows, -1)


def ragged_problem(steps: RldsRecord, key: str) -> str:
    """Why a sequence within the steps is no vector: it has not as many values in each step; "" where it is one."""
    base = key.removesuffix(RAGGED)
    if base == key or (first := f"{base}{ROW_LENGTHS}0") not in steps.features:
        return ""
    if f"{base}{ROW_LENGTHS}1" in steps.features:
        return f"{base} holds sequences of sequences"
    lengths = np.unique(steps.numbers(first))
    if len(lengths) > 1:
        return f"{base} has {lengths[0]} to {lengths[-1]} values in a step, by turns"
    return ""


def unreadable(steps: RldsRecord, key: str) -> str:
    """Why the numbers of a feature cannot be read; "" where they can, by its type."""
    spec = steps.specs.get(key, NUMBERS)
    is_packed = steps.features[key].kind == "bytes"
    if is_packed and not (
        DTYPE.match(spec.dtype) and spec.size and spec.encoding in ("bytes", "zlib")
    ):
        return f"it cannot be read: {spec.encoding} {spec.dtype} {spec.shape}"
    return ragged_problem(steps, key)


def label_of(steps: RldsRecord, path: str) -> str | None:
    """The name of a ClassLabel's value, that of the last step; None where no names are there."""
    names = steps.labels.get(steps.keys.get(path, ""), ())
    values = values_of(steps, path)
    number = int(values[-1]) if len(values) else -1
    if 0 <= number < len(names):
        return names[number]
    return None


def texts_by_key(steps: RldsRecord, num_rows: int) -> dict[str, Sequence[str]]:
    """The texts of a record; names of classes are texts, too."""
    by_key: dict[str, Sequence[str]] = {}
    for key, spec in steps.specs.items():
        path = key.removeprefix(STEPS)
        if spec.kind == "text" and steps.has_values(key):
            by_key[key] = texts(steps, path, num_rows)
        elif (label := label_of(steps, path)) is not None:
            by_key[key] = (label,)
    return by_key


# Pictures


def camera_keys(specs: Iterable[tuple[str, Spec]]) -> dict[str, str]:
    """Features that are a camera's pictures, by the camera's name: their path in the observation, else in the step."""
    pictures = [
        key
        for key, spec in specs
        if spec.is_picture and not other_kind(key) and not key.endswith(RAGGED)
    ]
    key_by_camera = {
        key.removeprefix(OBSERVATION): key for key in pictures if key.startswith(OBSERVATION)
    }
    step_pictures = [
        key for key in pictures if key.startswith(STEPS) and key not in key_by_camera.values()
    ]
    for key in step_pictures:
        name = key.removeprefix(STEPS)
        key_by_camera[name if name not in key_by_camera else f"steps/{name}"] = key
    return key_by_camera


def pictures(steps: RldsRecord, key: str) -> Iterator[ArrayPicture]:
    """Pictures of a camera, one at a time. Raises DataError."""
    # A picture is a whole JPEG or PNG file in the record, or a raw array of pixels: only the type tells
    if steps.features[key].kind == "bytes" and steps.specs[key].kind == "picture":
        for k, (start, end) in enumerate(steps.spans(key)):
            yield decode_picture(steps.data[start:end], f"picture {k} of {key}", steps.limits)
        return
    form = picture_form(steps, key)
    if form is None:
        raise VideoError(f"{key} holds no pictures but numbers")
    for k, array in enumerate(_arrays(steps, key)):
        yield picture_of(array, form, f"picture {k} of {key}")


def picture_form(steps: RldsRecord, key: str) -> PictureForm | None:
    """How raw pictures of a feature lie; None where the values are no pictures'. Raises DataError."""
    spec = steps.specs[key]
    if spec.shape is None or not DTYPE.match(spec.dtype):
        return PictureForm()
    form = form_of(key, (None, *spec.shape), spec.dtype)
    if form is None or not form.is_float:
        return form
    sample = list(islice(_arrays(steps, key), SAMPLE_ROWS))
    if sample:
        return scaled(form, len(sample), sample.__getitem__)[0]
    return None


def _arrays(steps: RldsRecord, key: str) -> Iterator[np.ndarray]:
    """What a feature holds in each step, as it is stored, one at a time. Raises DataError."""
    spec = steps.specs.get(key, NUMBERS)
    kind = steps.features[key].kind
    if kind == "bytes":
        return (_raw_array(steps, span, spec, key) for span in steps.spans(key))
    return {"float": _arrays_of_floats, "int": _arrays_of_integers}[kind](steps, key, spec)


def _arrays_of_floats(steps: RldsRecord, key: str, spec: Spec) -> Iterator[np.ndarray]:
    """Raw pictures of floating-point numbers, one at a time."""
    size = _picture_size(spec, key, steps.limits)
    for start, end in number_spans(steps.data, steps.features[key]):
        if (end - start) % (4 * size):
            raise VideoError(f"{key} ends within a picture")
        for offset in range(start, end, 4 * size):
            yield np.frombuffer(steps.data, "<f4", size, offset).reshape(spec.static)


def _arrays_of_integers(steps: RldsRecord, key: str, spec: Spec) -> Iterator[np.ndarray]:
    """Raw pictures whose bytes are stored as integers; a few steps at a time are unpacked."""
    size = _picture_size(spec, key, steps.limits)
    for start, end in number_spans(steps.data, steps.features[key]):
        while start < end:
            # The values of one picture, of which each takes a byte or two: those bytes that end a varint are counted
            raw = np.frombuffer(steps.data, np.uint8, min(2 * size, end - start), start)
            last = np.flatnonzero(raw < 0x80)[:size]
            if len(last) < size:
                raise VideoError(f"{key} ends within a picture")
            pixels = varints(raw[: last[-1] + 1])
            if pixels.min() < 0 or pixels.max() > 255:
                raise VideoError(f"{key} has values outside 0..255")
            yield pixels.astype(np.uint8).reshape(spec.static)
            start += int(last[-1]) + 1


def _picture_size(spec: Spec, key: str, limits: Limits) -> int:
    """The number of values of a raw picture.

    Raises VideoError where nothing says it, and DataError for more than a picture of three colours
    may have.
    """
    # Where the values of all steps stand in one list, only the shape says where a picture ends
    if not spec.size:
        raise VideoError(f"{key} has pictures of unknown shape {spec.shape}")
    limits.check("max_pixels", spec.size, f"{key}: values of one step {spec.shape}", COLOURS)
    return spec.size


def _raw_array(steps: RldsRecord, span: tuple[int, int], spec: Spec, key: str) -> np.ndarray:
    """One step of a tensor that is stored as its bytes, or those compressed. Raises DataError."""
    # The type must give the number of bytes, which bounds what is unpacked
    if not DTYPE.match(spec.dtype) or not spec.size or spec.encoding not in ("bytes", "zlib"):
        raise VideoError(f"{key} cannot be read: {spec.encoding} {spec.dtype} {spec.shape}")
    # Stored bytes are little endian, whatever machine reads them
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    raw = steps.data[slice(*span)]
    expected = _picture_size(spec, key, steps.limits) * dtype.itemsize
    # One byte more than fits shows what would unpack to more
    if spec.encoding == "zlib":
        try:
            raw = zlib.decompressobj().decompress(raw, expected + 1)
        except zlib.error as e:
            raise VideoError(f"{key} cannot be decompressed: {e}") from e
    if len(raw) != expected:
        raise VideoError(f"{key} has {len(raw)} bytes where {expected} were expected")
    return np.frombuffer(raw, dtype).reshape(spec.static)
