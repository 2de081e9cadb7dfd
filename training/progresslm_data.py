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
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from annotate.samples.replies import NA, parse_answer, parse_reply, written_score
from annotate.samples.wording import Form, question_text, score_text
from core.errors import FailedError
from core.files import write_file
from core.paths import Workspace
from core.values import IMAGE_MARK
from training.pictures import Size
from training.pixels import picture_size
from training.rewards import Truth
from warehouse.releases import Release
from warehouse.shards import Entry, Sample, expand, read_entry, read_index
from warehouse.shards.ground_truth import ground_truth
from warehouse.shards.profiles import draw

CAMERA = re.compile(r"(camera_[a-z]+)_\d+(?:_edit)?\.\w+$")  # in the name of a picture of RoboMIND's
LONGEST_LINE = 4 << 20  # characters; a demonstration of hundreds of pictures has some ten thousand


class RowError(FailedError):
    """A row that cannot be trained on: file, line, what is wrong."""


# What lines hold


class _Row(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)


class _Message(_Row):
    role: Literal["system", "user", "assistant"]
    content: str


class _Conversation(_Row):
    messages: list[_Message]
    images: list[str] = []
    progress: float | None = Field(default=None, ge=0, le=1)  # ours: the label, where the answer does not tell it

    @model_validator(mode="after")
    def one_turn(self) -> "_Conversation":
        roles = [m.role for m in self.messages]
        if roles not in (["user", "assistant"], ["system", "user", "assistant"]):
            raise ValueError(f"messages must be of user and assistant, or system, user and assistant, not {roles}")
        return self


class _Label(_Row):
    ref: str
    score_percent: str
    demo_count: int = Field(ge=1)


class _Prompt(_Row):
    id: str
    user_prompt: str
    system_prompt: str = ""
    answer: _Label
    images: list[str]


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


class _Source(_Row):
    id: str
    task_goal: str
    text_demo: list[str] | None = None
    visual_demo: list[str] | None = None
    total_steps: int
    stage_to_estimate: Annotated[str, BeforeValidator(_single)]
    closest_idx: str
    progress_score: str

    @model_validator(mode="after")
    def one_demonstration(self) -> "_Source":
        if (self.text_demo is None) == (self.visual_demo is None):
            raise ValueError("exactly one of text_demo and visual_demo")
        there = len(self.text_demo) if self.text_demo is not None else len(self.visual_demo or ()) - 1
        if there != self.total_steps or there < 1:
            raise ValueError(f"total_steps is {self.total_steps}, and the demonstration has {there}")
        return self


@dataclass(frozen=True)
class _Line:
    """A row as it is trained on; `truth` as in warehouse.shards.ground_truth, None where the row does not tell."""

    where: str
    question: str
    answer: str | None
    form: Form
    progress: float | None
    truth: Mapping[str, str | int] | None
    pictures: tuple[Path, ...]


class Rows(Sequence[Sample]):
    """Rows of files as samples. `sample_id` is file and line; `ground_truth` the label, or None."""

    def __init__(self, lines: Sequence[_Line]) -> None:
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: Any) -> Any:
        """Raises RowError for a picture that cannot be read."""
        if isinstance(index, slice):
            return Rows(self._lines[index])
        line = self._lines[index]
        try:
            pictures = tuple(p.read_bytes() for p in line.pictures)
        except OSError as e:
            raise RowError(f"{line.where}: picture {e.filename} cannot be read: {e.strerror}") from e
        return Sample(self.row(index), pictures)

    def row(self, index: int) -> dict[str, Any]:
        """A sample's row, without reading a picture."""
        line = self._lines[index]
        row = {"sample_id": line.where, "question": line.question, "answer": line.answer, "form": line.form}
        return row | {"progress": line.progress, "ground_truth": line.truth}

    def picture_sizes(self, index: int) -> tuple[Size, ...]:
        """Height and width of a sample's pictures, by their headers. Raises RowError."""
        line = self._lines[index]
        sizes = []
        for path in line.pictures:
            try:
                with path.open("rb") as f:
                    sizes.append(picture_size(f))
            except (OSError, ValueError) as e:
                raise RowError(f"{line.where}: picture {path} cannot be read: {e}") from e
        return tuple(sizes)

    @property
    def texts(self) -> Iterator[str]:
        """Questions and answers, without reading a picture."""
        return (text for line in self._lines for text in (line.question, line.answer or ""))

    def runs(self) -> list[list[int]]:
        """Numbers of the rows that have a label of progress, by run: the last pictures of a run lie in one folder."""
        found: dict[Path | None, list[int]] = {}
        for number, line in enumerate(self._lines):
            if line.progress is not None:
                found.setdefault(line.pictures[-1].parent if line.pictures else None, []).append(number)
        return list(found.values())

    def check_labels(self) -> None:
        """Raises RowError for a row that no reward can be given for, without reading a picture."""
        for line in self._lines:
            if line.truth is None:
                raise RowError(_no_label(line.where))


def read_rows(paths: Iterable[Path], image_root: Path | None = None, form: Form = "no_think") -> Rows:
    """All rows of some JSONL files; `form` is that of our questions, for rows that bring none.

    `image_root`: default, each file's folder. Raises RowError, naming file and line, for the first row that is broken
    or shows a picture that is not there.
    """
    lines: list[_Line] = []
    for path in paths:
        pictures = _Pictures(image_root or path.parent)
        try:
            with path.open(encoding="utf-8") as f:
                # Read by pieces of bounded length: a file without line ends must not fill the memory.
                for number, text in enumerate(iter(lambda f=f: f.readline(LONGEST_LINE), ""), 1):
                    if text.strip():
                        lines.append(_line(f"{path}:{number}", text, pictures, form))
        except UnicodeDecodeError as e:
            raise RowError(f"{path}: is no UTF-8 text ({e.reason} at byte {e.start})") from e
        except OSError as e:
            raise RowError(f"{path}: cannot be read: {e.strerror}") from e
    if not lines:
        raise RowError(f"{', '.join(map(str, paths)) or 'no file'}: there is no row")
    return Rows(lines)


@dataclass
class _Pictures:
    """Paths of pictures below a root; what was found once is not looked for again."""

    root: Path

    def __post_init__(self) -> None:
        self.root = Path(os.path.abspath(self.root))
        self._there: set[Path] = set()

    def find(self, name: str, folder: str | None = None) -> Path:
        """`folder`: of the row's own pictures. Raises ValueError."""
        path = Path(os.path.normpath(self.root / name))
        # A path of another machine: only the file's name says anything here, within the row's own folder.
        if Path(name).is_absolute() and not path.is_relative_to(self.root) and folder is not None:
            path = Path(os.path.normpath(self.root / folder / Path(name).name))
        # Rows may come from anyone: none may reach files outside of the image root, by dots or otherwise.
        if not path.is_relative_to(self.root):
            raise ValueError(f"picture {name!r} is not below the image root {self.root}")
        if path not in self._there:
            if not path.is_file():
                raise ValueError(f"there is no picture {path} (is the image root right?)")
            self._there.add(path)
        return path


def _line(where: str, text: str, pictures: _Pictures, form: Form) -> _Line:
    """A line of a file as a row, checked. Raises RowError."""
    fields = _fields(where, text)
    try:
        line = _line_of(where, fields, pictures, form)
        _check_marks(line)
        # A label that gives no reward is an error now, not in the midst of a run.
        if line.truth is not None:
            _truth(line.truth, where)
    except ValidationError as e:
        # The first error is enough to find the line's fault, without pydantic's own words.
        first = e.errors()[0]
        field, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise RowError(f"{where}: {field + ': ' if field else ''}{message}") from None
    except (ValueError, TypeError) as e:
        raise RowError(f"{where}: {e}") from None
    return line


def _fields(where: str, text: str) -> dict[str, Any]:
    """The JSON object of a line. Raises RowError."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as e:
        long = " (longer than any row can be)" if len(text) == LONGEST_LINE else ""
        raise RowError(f"{where}: is no JSON: {e}{long}") from None
    if not isinstance(fields, dict):
        raise RowError(f"{where}: is no object")
    return fields


def _line_of(where: str, fields: dict[str, Any], pictures: _Pictures, form: Form) -> _Line:
    """The row in its form, which its fields tell. Raises ValueError, TypeError."""
    if "user_prompt" in fields:
        return _prompt(where, _Prompt(**fields), fields.get("messages"), pictures)
    if "messages" in fields:
        return _conversation(where, _Conversation(**fields), pictures)
    if "progress_score" in fields:
        return _source(where, _Source(**fields), pictures, form)
    raise ValueError("has neither messages, user_prompt nor progress_score, as rows of ProgressLM's have")


def _check_marks(line: _Line) -> None:
    """Raises ValueError where the marks in the question are not one for each picture, or the answer has one."""
    marks = line.question.count(IMAGE_MARK)
    if marks != len(line.pictures):
        raise ValueError(f"{marks} {IMAGE_MARK} marks for {len(line.pictures)} pictures")
    if line.answer is not None and IMAGE_MARK in line.answer:
        raise ValueError(f"the answer holds {IMAGE_MARK}")


def _conversation(where: str, row: _Conversation, pictures: _Pictures) -> _Line:
    *before, answer = (m.content for m in row.messages)
    reply = parse_reply(answer)
    form: Form = "think" if reply.score_text else "no_think"
    score = row.progress
    if score is None:
        score = reply.score if form == "think" else parse_answer(answer).score
    found = tuple(map(pictures.find, row.images))
    return _Line(where, "\n".join(t for t in before if t.strip()), answer, form, score, None, found)


def _prompt(where: str, row: _Prompt, segments: Any, pictures: _Pictures) -> _Line:
    question = row.user_prompt
    if IMAGE_MARK not in question and isinstance(segments, list):
        question = "".join(IMAGE_MARK if s.get("type") == "image" else str(s.get("text", "")) for s in segments)
    if row.system_prompt.strip():
        question = f"{row.system_prompt}\n{question}"
    truth = row.answer.model_dump()
    found = tuple(pictures.find(name, row.id) for name in row.images)
    return _Line(where, question, None, "think", _share(truth), truth, found)


def _source(where: str, row: _Source, pictures: _Pictures, form: Form) -> _Line:
    steps, n = row.text_demo or [], row.total_steps
    # A demonstration in words ends each step at its share; one in pictures begins with the start, too.
    shares = [k / n for k in range(1 if steps else 0, n + 1)]
    score = written_score(row.progress_score)
    # n/a says that the state cannot be placed; any other text that is no number is a fault of the file.
    if score is None and row.progress_score.strip().lower() not in (NA, "na"):
        raise ValueError(f"progress_score: {row.progress_score!r} is neither a score nor n/a")
    truth = {
        "ref": row.closest_idx.strip().lower(),
        "score_percent": NA if score is None else f"{100 * score:.6g}",
        "demo_count": len(shares),
    }
    # The state to place comes last, after the demonstration.
    names = [*(row.visual_demo or []), row.stage_to_estimate]
    question = question_text(_view(steps, names), row.task_goal, shares, steps, form)
    answer = score_text(score) if form == "no_think" else None
    files = tuple(pictures.find(os.path.join(row.id, name)) for name in names)
    return _Line(where, question, answer, form, score, truth, files)


def _view(steps: Sequence[str], names: Iterable[str]) -> Literal["text", "visual", "cross_view"]:
    """The kind of a demonstration: in words, or in pictures of one camera or of several, as their names tell."""
    if steps:
        return "text"
    matches = map(CAMERA.search, names)
    cameras = {match[1] for match in matches if match}
    return "cross_view" if len(cameras) > 1 else "visual"


def write_conversations(
    samples: Iterable[tuple[Sample, str, Mapping[str, Any]]], folder: Path, name: str = "rows.jsonl"
) -> Path:
    """Samples with an answer each, as a file that `read_rows` reads, pictures below it; the mapping joins the row."""
    lines = []
    for sample, answer, more in samples:
        names = []
        for jpeg in sample.pictures:
            # Named by content: a picture that several samples show is stored once.
            sha256 = hashlib.sha256(jpeg).hexdigest()
            names.append(f"images/{sha256[:2]}/{sha256}.jpg")
            if not (folder / names[-1]).exists():
                write_file(folder / names[-1], jpeg)
        turns = [{"role": "user", "content": sample.row["question"]}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": turns, "images": names, **more}, ensure_ascii=False) + "\n")
    write_file(folder / name, "".join(lines).encode())
    return folder / name


# Labels


def _share(truth: Mapping[str, str | int]) -> float | None:
    percent = truth["score_percent"]
    return None if percent == NA else float(percent) / 100


def _truth(truth: Mapping[str, str | int], where: str) -> Truth:
    ref, percent = truth["ref"], truth["score_percent"]
    try:
        return Truth(
            None if ref == NA else int(ref), None if percent == NA else float(percent), int(truth["demo_count"])
        )
    except ValueError as e:
        raise RowError(f"{where}: {e}") from None


def truth_of(sample: Sample) -> Truth:
    """What replies to a sample are rewarded by. Raises RowError, ShardError."""
    row = sample.row
    if "ground_truth" not in row:  # out of a shard
        return _truth(ground_truth(sample), f"sample {row['sample_id']}")
    if row["ground_truth"] is None:
        raise RowError(_no_label(row["sample_id"]))
    return _truth(row["ground_truth"], row["sample_id"])


def _no_label(where: str) -> str:
    return f"{where}: a conversation has no reference and score to reward an answer by"


# Out of a release


class DrawnSamples(Sequence[Sample]):
    """Samples of shards that can be asked for by number; an entry is read for each."""

    def __init__(self, places: Sequence[tuple[Path, int, str]]) -> None:
        self._places = places  # tar, offset, sample_id
        self._entries: dict[Path, dict[int, Entry]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        """Raises ShardError."""
        if isinstance(index, slice):
            return DrawnSamples(self._places[index])
        path, offset, sample_id = self._places[index]
        if path not in self._entries:
            self._entries[path] = {e.offset: e for e in read_index(path).entries}
        rows, pictures = read_entry(path, self._entries[path][offset])
        return expand(next(r for r in rows if r["sample_id"] == sample_id), pictures)


def drawn_samples(
    workspace: Workspace, release: Release, profile: str, seed: int = 0, split: str = "train"
) -> DrawnSamples:
    """What `samples draw` draws of a release's split: think form, each run giving one before any gives two."""
    tars = {s.shard: s.path(workspace) for s in release.shards(split)}
    rows = draw(workspace, release, profile, seed, split).samples.select(["shard", "offset", "sample_id"]).to_pylist()
    return DrawnSamples([(tars[r["shard"]], r["offset"], r["sample_id"]) for r in rows])
