"""Prediction files as they grow: a line per answer, on disk before the next batch; what is there is not asked again.

A line is what eval.benchmarks.rows reads, with the run it belongs to and its tokens.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from core.errors import UserError
from core.files import write_file
from eval.benchmarks.question import Question
from eval.runners.prompt import ModelReply

Row = dict[str, Any]


def run_hash(settings: Mapping[str, Any]) -> str:
    """First 16 hex of a hash over all that answers depend on."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


class Journal:
    """One prediction file for one process: a context manager. Raises UserError for a file of another run.

    Opening takes away a line that a kill cut off, and failures, which are to be tried again.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.run = path, run_hash(settings)
        self.settings = settings

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(f"{self.path}.lock")
        try:
            # Two processes on one file would ask all questions twice and mix up their lines.
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{self.path} is being written by another process: wait for it, or give another --out"
            ) from None
        try:
            self.rows: dict[str, Row] = {}
            self._recover()
            # Lines have a hash of the settings alone; these are the settings, for people.
            write_file(self.path.with_name(f"{self.path.name}.run.json"), json.dumps(self.settings, indent=1).encode())
            self._file = self.path.open("ab")
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.close()
        finally:
            self._lock.release()

    def _recover(self) -> None:
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        rows = read_rows(self.path, data)
        # Answers of two models in one file would be scored as those of one.
        if any(row.get("run") != self.run for row in rows):
            raise UserError(
                f"{self.path} holds answers of another model or other settings (see {self.path.name}.run.json "
                "beside it): give another --out, or delete it"
            )
        self.rows = {key_of(row): row for row in rows if not has_failed(row)}
        answered = b"".join(map(line, self.rows.values()))
        # Written anew only where a cut line or a failure was taken away.
        if answered != data:
            write_file(self.path, answered)

    def add(self, rows: Iterable[Row]) -> None:
        """On disk, also after a power cut, when this returns."""
        rows = list(rows)
        self._file.write(b"".join(line(row | {"run": self.run}) for row in rows))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows.update((key_of(row), row | {"run": self.run}) for row in rows)


def key_of(row: Row) -> str:
    """Of the question that a line answers."""
    return row["meta_data"]["key"]


def has_failed(row: Row) -> bool:
    """Nothing was said; an answer that cannot be read is an answer."""
    return "error" in row and not row["response"]


def row_of(question: Question, reply: ModelReply) -> Row:
    """A reply as a line of a prediction file."""
    row = {"meta_data": question.meta_data(), "response": reply.text or ""}
    optional = {
        "error": reply.error,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "value": reply.progress,
    }
    return row | {name: value for name, value in optional.items() if value is not None}


def line(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_rows(path: Path, data: bytes) -> list[Row]:
    """The rows of a journal's bytes; a last line that a kill cut off is no row. Raises UserError."""
    *whole, _ = data.split(b"\n")
    rows = []
    for number, text in enumerate(whole, 1):
        try:
            row = json.loads(text)
            # Whatever has no key is no line of ours, though it may be JSON.
            key_of(row)
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} line {number} is no line of a prediction file of `eval`: move it away") from None
        rows.append(row)
    return rows


def part_path(out: Path, shard: tuple[int, int]) -> Path:
    """Where one of several processes writes; the whole file where there is one."""
    k, n = shard
    return out if n == 1 else out.with_name(f"{out.name}.{k}-of-{n}")


def merged(out: Path, count: int, keys: Sequence[str], settings: Mapping[str, Any]) -> list[Row] | None:
    """The rows of all parts in the order of `keys`, written to `out` as one file; None while some are missing.

    Whichever process ends last finds all; that two find all does no harm, they write equal bytes.
    """
    run = run_hash(settings)
    row_by_key: dict[str, Row] = {}
    for k in range(count):
        path = part_path(out, (k, count))
        rows_of_part = read_rows(path, path.read_bytes()) if path.exists() else []
        # A part may be left from an older run with other settings.
        row_by_key |= {key_of(row): row for row in rows_of_part if row["run"] == run}
    if any(key not in row_by_key for key in keys):
        return None
    rows = [row_by_key[key] for key in keys]
    write_file(out, b"".join(map(line, rows)))  # answers come in any order; files are compared and scored in one
    return rows
