"""ProgressLM's data: its JSONL files as they are, and the samples that a profile draws from a release.

Rows come in the three forms that ProgressLM (arXiv 2601.15224) publishes, told apart by their fields:

- conversations of SFT: `messages` (user, assistant; in older files a system message first, which is put before the
  question) and `images`, below the image root;
- sources of RL and the benchmark: a demonstration, a picture and its label, `<image root>/<id>/<file>`. They hold no
  question, so ours is asked; trained on as SFT they are answered by the label alone;
- prompts of RL: `user_prompt`, `images` and the label in `answer`; absolute paths of another machine are looked for as
  `<image root>/<id>/<file>`.

A file is read and checked whole when it is opened; pictures are read when they are asked for.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from annotate.samples.wording import NA, Form, parse_answer, parse_reply, score_text
from core.errors import validation_message
from core.files import write_file
from core.paths import Workspace
from core.values import IMAGE_MARK, grouped
from training.folder import TrainingError
from training.pictures import Size
from training.pixels import picture_size
from training.progresslm import Conversation, RlPrompt, SourceRow, Truth
from warehouse.releases.release import Release
from warehouse.shards.progresslm import draw, ground_truth
from warehouse.shards.shard import Sample, read_sample

LONGEST_LINE = 4 << 20  # characters; a demonstration of hundreds of pictures has some ten thousand


# A row as it is trained on, with sample_id, question, answer, form, progress and truth; and its pictures
_Line = tuple[dict[str, Any], tuple[Path, ...]]


class Rows(Sequence[Sample]):
    """Rows of files as samples. `sample_id` is file and line; `truth` the label, or None."""

    def __init__(self, lines: Sequence[_Line]) -> None:
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: Any) -> Any:
        """Raises TrainingError for a picture that cannot be read."""
        if isinstance(index, slice):
            return Rows(self._lines[index])
        row = self.row(index)
        paths = self._lines[index][1]
        try:
            return Sample(row, tuple(p.read_bytes() for p in paths))
        except OSError as e:
            raise TrainingError(
                f"{row['sample_id']}: picture {e.filename} cannot be read: {e.strerror}"
            ) from e

    def row(self, index: int) -> dict[str, Any]:
        """A sample's row, without reading a picture."""
        return dict(self._lines[index][0])

    def pictures(self, index: int) -> tuple[Path, ...]:
        """Where a sample's pictures lie."""
        return self._lines[index][1]

    def picture_sizes(self, index: int) -> tuple[Size, ...]:
        """Height and width of a sample's pictures, by their headers. Raises TrainingError."""
        row, paths = self._lines[index]
        sizes = []
        for path in paths:
            try:
                with path.open("rb") as f:
                    sizes.append(picture_size(f))
            except (OSError, ValueError) as e:
                raise TrainingError(
                    f"{row['sample_id']}: picture {path} cannot be read: {e}"
                ) from e
        return tuple(sizes)

    def dataset(self, index: int) -> str:
        """The name of a row's file."""
        return Path(self._lines[index][0]["sample_id"].rpartition(":")[0]).stem

    @property
    def texts(self) -> Iterator[str]:
        """Questions and answers, without reading a picture."""
        for row, _ in self._lines:
            yield from (row["question"], row["answer"] or "")

    def runs(self) -> list[list[int]]:
        """Numbers of the rows that have a label of progress, by run: the last pictures of a run lie in one folder."""
        numbers_by_folder = grouped(
            (paths[-1].parent if paths else None, number)
            for number, (row, paths) in enumerate(self._lines)
            if row["progress"] is not None
        )
        return list(numbers_by_folder.values())

    def check_labels(self) -> None:
        """Raises TrainingError for a row that no reward can be given for, without reading a picture."""
        for row, _ in self._lines:
            _known_truth(row)


def read_rows(
    paths: Iterable[Path], image_root: Path | None = None, form: Form = "no_think"
) -> Rows:
    """All rows of some JSONL files; `form` is that of our questions, for rows that bring none.

    `image_root`: default, each file's folder. Raises TrainingError, naming file and line, for the first row that is
    broken or shows a picture that is not there.
    """
    of_files = (_lines(path, _finder(image_root or path.parent), form) for path in paths)
    lines = list(chain.from_iterable(of_files))
    if not lines:
        raise TrainingError(f"{', '.join(map(str, paths)) or 'no file'}: there is no row")
    return Rows(lines)


def _lines(path: Path, find: "_Find", form: Form) -> Iterator[_Line]:
    """Read by pieces of bounded length: a file without line ends must not fill the memory. Raises TrainingError."""
    try:
        with path.open(encoding="utf-8") as f:
            for number, text in enumerate(iter(lambda: f.readline(LONGEST_LINE), ""), 1):
                if text.strip():
                    yield _line(f"{path}:{number}", text, find, form)
    except UnicodeDecodeError as e:
        raise TrainingError(f"{path}: is no UTF-8 text ({e.reason} at byte {e.start})") from e
    except OSError as e:
        raise TrainingError(f"{path}: cannot be read: {e.strerror}") from e


_Find = Callable[..., Path]


def _finder(root: Path) -> _Find:
    """Finds pictures below a root; what was found once is not looked for again."""
    root = Path(os.path.abspath(root))

    @cache
    def find(name: str, folder: str | None = None) -> Path:
        """`folder`: of the row's own pictures. Raises ValueError."""
        path = Path(os.path.normpath(root / name))
        # A path of another machine: only the file's name says anything here, within the row's own folder.
        if Path(name).is_absolute() and not path.is_relative_to(root) and folder is not None:
            path = Path(os.path.normpath(root / folder / Path(name).name))
        # Rows may come from anyone: none may reach files outside of the image root, by dots or otherwise.
        if not path.is_relative_to(root):
            raise ValueError(f"picture {name!r} is not below the image root {root}")
        if not path.is_file():
            raise ValueError(f"there is no picture {path} (is the image root right?)")
        return path

    return find


def _line(line_name: str, text: str, find: _Find, form: Form) -> _Line:
    """A line of a file as a row, checked. Raises TrainingError."""
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError("is no object")
        row, paths = _line_of(line_name, fields, find, form)
        question = row["question"]
        answer = row["answer"]
        if (marks := question.count(IMAGE_MARK)) != len(paths):
            raise ValueError(f"{marks} {IMAGE_MARK} marks for {len(paths)} pictures")
        if IMAGE_MARK in (answer or ""):
            raise ValueError(f"the answer holds {IMAGE_MARK}")
    except (json.JSONDecodeError, RecursionError) as e:
        long = " (longer than any row can be)" if len(text) == LONGEST_LINE else ""
        raise TrainingError(f"{line_name}: is no JSON: {e}{long}") from None
    except ValidationError as e:
        raise TrainingError(f"{line_name}: {validation_message(e)}") from None
    except (ValueError, TypeError) as e:
        raise TrainingError(f"{line_name}: {e}") from None
    return row, paths


def _line_of(line_name: str, fields: dict[str, Any], find: _Find, form: Form) -> _Line:
    """The row in its form, which its fields tell. Raises ValueError, TypeError."""
    if "user_prompt" in fields:
        row, paths = _prompt(RlPrompt(**fields), fields.get("messages"), find)
    elif "messages" in fields:
        row, paths = _conversation(Conversation(**fields), find)
    elif "progress_score" in fields:
        row, paths = _source(SourceRow(**fields), find, form)
    else:
        raise ValueError(
            "has neither messages, user_prompt nor progress_score, as rows of ProgressLM's have"
        )
    return {"sample_id": line_name, **row}, tuple(paths)


_Found = tuple[dict[str, Any], Iterable[Path]]  # a row but for its sample_id; its pictures


def _conversation(row: Conversation, find: _Find) -> _Found:
    *messages, answer = (m.content for m in row.messages)
    reply = parse_reply(answer)
    form = "think" if reply.score_text else "no_think"
    score = row.progress
    if score is None:
        score = reply.score if form == "think" else parse_answer(answer).score
    fields = {
        "question": "\n".join(t for t in messages if t.strip()),
        "answer": answer,
        "form": form,
        "progress": score,
        "truth": None,
    }
    return fields, map(find, row.images)


def _prompt(row: RlPrompt, segments: Any, find: _Find) -> _Found:
    question = row.user_prompt
    if IMAGE_MARK not in question and isinstance(segments, list):
        question = "".join(
            IMAGE_MARK if s.get("type") == "image" else str(s.get("text", "")) for s in segments
        )
    if row.system_prompt.strip():
        question = f"{row.system_prompt}\n{question}"
    truth = _truth(**row.answer.model_dump())
    progress = None if truth.score_percent is None else truth.score_percent / 100
    fields = {
        "question": question,
        "answer": None,
        "form": "think",
        "progress": progress,
        "truth": truth,
    }
    return fields, (find(name, row.id) for name in row.images)


def _source(row: SourceRow, find: _Find, form: Form) -> _Found:
    # A demonstration in pictures begins with the start
    num_steps = row.demo_size - (row.visual_demo is not None)
    if num_steps != row.total_steps or num_steps < 1:
        raise ValueError(f"total_steps is {row.total_steps}, and the demonstration has {num_steps}")
    score = row.progress_score
    percent = None if score is None else float(f"{100 * score:.6g}")
    fields = {
        "question": row.question(form),
        "answer": score_text(score) if form == "no_think" else None,
        "form": form,
        "progress": score,
        "truth": Truth(row.closest_idx, percent, row.demo_size),
    }
    return fields, map(find, row.names)


def write_conversations(
    samples: Iterable[tuple[Sample, str, Mapping[str, Any]]], folder: Path, name: str = "rows.jsonl"
) -> Path:
    """Samples with an answer each, as a file that `read_rows` reads, pictures below it; the mapping joins the row."""
    lines = []
    for sample, answer, extra in samples:
        names = []
        for jpeg in sample.pictures:
            # Named by content: a picture that several samples show is stored once.
            sha256 = hashlib.sha256(jpeg).hexdigest()
            names.append(f"images/{sha256[:2]}/{sha256}.jpg")
            if not (folder / names[-1]).exists():
                write_file(folder / names[-1], jpeg)
        turns = [
            {"role": "user", "content": sample.row["question"]},
            {"role": "assistant", "content": answer},
        ]
        lines.append(
            json.dumps({"messages": turns, "images": names, **extra}, ensure_ascii=False) + "\n"
        )
    write_file(folder / name, "".join(lines).encode())
    return folder / name


# Labels


def _truth(ref: str, score_percent: str, demo_count: int) -> Truth:
    """As rows state it. Raises ValueError."""
    return Truth(
        None if ref == NA else int(ref),
        None if score_percent == NA else float(score_percent),
        demo_count,
    )


def truth_of(sample: Sample) -> Truth:
    """What replies to a sample are rewarded by. Raises TrainingError, ShardError."""
    if "truth" in sample.row:
        return _known_truth(sample.row)
    stored_truth = ground_truth(sample)  # out of a shard
    try:
        return _truth(
            str(stored_truth["ref"]),
            str(stored_truth["score_percent"]),
            int(stored_truth["demo_count"]),
        )
    except ValueError as e:
        raise TrainingError(f"sample {sample.row['sample_id']}: {e}") from None


def _known_truth(row: Mapping[str, Any]) -> Truth:
    if row["truth"] is None:
        raise TrainingError(
            f"{row['sample_id']}: a conversation has no reference and score to reward an answer by"
        )
    return row["truth"]


# Out of a release


class DrawnSamples(Sequence[Sample]):
    """Samples of shards that can be asked for by number; an entry is read for each."""

    def __init__(self, places: Sequence[tuple[str, Path, int, str]]) -> None:
        self._places = places  # dataset, tar, offset, sample_id

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        """Raises ShardError."""
        if isinstance(index, slice):
            return DrawnSamples(self._places[index])
        return read_sample(*self._places[index][1:])

    def dataset(self, index: int) -> str:
        return self._places[index][0]


def drawn_samples(
    workspace: Workspace, release: Release, profile: str, seed: int = 0, split: str = "train"
) -> DrawnSamples:
    """What `samples draw` draws of a release's split: think form, each run giving one before any gives two."""
    tars = {s.shard: s.path(workspace) for s in release.shards(split)}
    rows = draw(workspace, release, profile, seed, split).samples.to_pylist()
    return DrawnSamples(
        [(r["dataset"], tars[r["shard"]], r["offset"], r["sample_id"]) for r in rows]
    )
