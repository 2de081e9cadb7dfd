"""Prompts of a checkpoint's own, from a folder that the user points at: a file for each family of questions.

Files are texts with placeholders in braces, filled in by name: nothing in them is run, and no format or attribute of a
value can be asked for. What they may hold is in docs/evaluation.md.
"""

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from annotate.samples.procvqa import task_text
from annotate.samples.wording import percent, without_marks
from core.errors import UserError, validation_message
from core.values import IMAGE_MARK, PLAIN_IMAGE
from eval.benchmarks.load import FAMILIES
from eval.benchmarks.question import DEMONSTRATED, Question
from eval.runners.methods import AskedPrompt, Method, as_said
from eval.runners.prompt import Prompt

ENDINGS = (".toml", ".txt")
# Kinds of questions within a family, each of which may have a file of its own: procvqa_b.next.toml
VARIANTS = {
    "procvqa_a": ("whole", "untold", "range"),
    "procvqa_b": ("next", "remaining"),
    "procvqa_c": ("progress", "share"),
}
INSTEAD = {"cross_view": "visual"}  # whose file a family takes that has none
OF_ALL = ("task", "question")
OF_A_RUN = (*OF_ALL, "num_pictures")
OF_A_DEMONSTRATION = (*OF_ALL, "num_items", "state")
OF_A_PLACE = ("number", "index")  # in a list, from 1 and from 0

_PICTURE = re.compile("\ue001(\\d+)\ue002")  # stands for a question's picture until all are in their places


class PictureList(BaseModel):
    """How a list looks in a prompt: `each` of its items, with `between` between two of them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    of: Literal["pictures", "demonstration"]
    each: str
    between: str = ""


class PromptFile(BaseModel):
    """What a TOML file holds; a plain text is `prompt` alone."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str
    system: str = ""
    lists: dict[str, PictureList] = {}


@dataclass(frozen=True)
class FamilyPrompt:
    """The prompt of one family of questions, checked: every placeholder is known, every picture is shown."""

    path: Path
    file: PromptFile
    lists: Mapping[str, PictureList] = field(default_factory=dict)

    def prompt(self, question: Question) -> Prompt:
        """The question in these words, its pictures in the order in which the words show them."""
        values = _values(question)
        for name, shape in self.lists.items():
            values[name] = shape.between.join(_filled(shape.each, item) for item in _items(question, shape.of))
        text = _filled(self.file.prompt, values)
        pictures = tuple(question.pictures[int(k)] for k in _PICTURE.findall(text))
        return replace(
            Prompt.of(question),
            text=_PICTURE.sub(IMAGE_MARK, text),
            pictures=pictures,
            system=_filled(self.file.system, values).replace(PLAIN_IMAGE, IMAGE_MARK),
            as_written=True,
        )


@dataclass(frozen=True)
class PromptFolder:
    """`hash`: first 16 hex of a sha256 over names and bytes of the files."""

    folder: Path
    hash: str
    by_name: Mapping[str, FamilyPrompt]

    def of(self, question: Question) -> FamilyPrompt:
        """The prompt of a question's variant, its family, or the family that stands for it. Raises UserError."""
        names = [question.family, *([INSTEAD[question.family]] if question.family in INSTEAD else [])]
        if variant := question.row.get("variant"):
            names.insert(0, f"{question.family}.{variant}")
        for name in names:
            if name in self.by_name:
                return self.by_name[name]
        wanted = " or ".join(f"{question.family}{ending}" for ending in ENDINGS)
        raise UserError(
            f"{self.folder} has no {wanted}, which questions of {question.benchmark} ({question.part}) need: add it, "
            "or leave these out with --part"
        )

    def method(self) -> Method:
        """Asks the benchmark's questions in the folder's words."""
        return Method("question", self._asked, as_said)

    def _asked(self, questions: Sequence[Question]) -> list[AskedPrompt]:
        return [AskedPrompt(self.of(q).prompt(q), (q,)) for q in questions]


def read_prompts(folder: Path) -> PromptFolder:
    """The prompts of a folder. Raises UserError, which names the file and what is wrong in it."""
    if not folder.is_dir():
        raise UserError(f"--prompts {folder} is not a folder")
    # Other files, such as a README or a licence, may stand beside them
    paths = sorted(p for p in folder.iterdir() if p.suffix in ENDINGS)
    if not paths:
        raise UserError(f"{folder} has no prompt: a file such as procvqa_c.txt or visual.toml")
    h, by_name = hashlib.sha256(), dict[str, FamilyPrompt]()
    for path in paths:
        if path.stem in by_name:
            raise UserError(f"{folder} has both {by_name[path.stem].path.name} and {path.name}: leave one")
        data = _bytes(path)
        by_name[path.stem] = _family_prompt(path, data)
        h.update(path.name.encode() + b"\0" + len(data).to_bytes(8) + data)
    return PromptFolder(folder, h.hexdigest()[:16], by_name)


# Reading


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from e


def _family_prompt(path: Path, data: bytes) -> FamilyPrompt:
    """Raises UserError."""
    family, _, variant = path.stem.partition(".")
    if family not in FAMILIES or (variant and variant not in VARIANTS.get(family, ())):
        variants = [f"{name}.{v}" for name, known in VARIANTS.items() for v in known]
        raise UserError(
            f"{path}: {path.stem!r} is no family of questions; there are {', '.join((*FAMILIES, *variants))}"
        )
    file = _prompt_file(path, data)
    lists = _standard_lists(family) | file.lists
    _check(path, family, file, lists)
    return FamilyPrompt(path, file, lists)


def _prompt_file(path: Path, data: bytes) -> PromptFile:
    try:
        text = data.decode("utf-8").replace("\r\n", "\n")
        if path.suffix == ".txt":
            return PromptFile(prompt=text.removesuffix("\n"))
        return PromptFile.model_validate(tomllib.loads(text))
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not UTF-8 text (byte {e.start})") from e
    except tomllib.TOMLDecodeError as e:
        raise UserError(f"{path} is not TOML: {e}") from e
    except ValidationError as e:
        raise UserError(f"{path}: {validation_message(e)}") from e


def _standard_lists(family: str) -> dict[str, PictureList]:
    """{pictures} of a run; {demonstration} in pictures, or in words."""
    if family not in DEMONSTRATED:
        return {"pictures": PictureList(of="pictures", each="{picture}")}
    if family == "text":
        return {"demonstration": PictureList(of="demonstration", each="{number}. {step}\n{percent}%", between="\n\n")}
    return {"demonstration": PictureList(of="demonstration", each="{picture}")}


def _check(path: Path, family: str, file: PromptFile, lists: Mapping[str, PictureList]) -> None:
    """Raises UserError for a placeholder that nothing fills, a list of another family, and what is never shown."""
    is_demonstrated = family in DEMONSTRATED
    of = "demonstration" if is_demonstrated else "pictures"
    item = "step" if family == "text" else "picture"
    of_question = OF_A_DEMONSTRATION if is_demonstrated else OF_A_RUN
    of_item = (item, *OF_A_PLACE, *(["percent"] if is_demonstrated else []))
    for name, shape in lists.items():
        if shape.of != of:
            raise UserError(f"{path}: lists.{name} is of {shape.of!r}, and {family} has {of!r} alone")
        if name in of_question:
            raise UserError(f"{path}: lists.{name} has the name of a placeholder: give it another")
        _known(path, f"lists.{name}.each", shape.each, of_item)
    shown = _known(path, "prompt", file.prompt, (*of_question, *lists))
    no_pictures = tuple(name for name in of_question if name != "state")
    _known(path, "system", file.system, no_pictures)
    # A model that is not shown what it judges would answer all the same
    if is_demonstrated and "state" not in shown:
        raise UserError(f"{path}: prompt never shows {{state}}, the picture to judge")
    if not any(item in _fields(path, "each", lists[name].each) for name in shown if name in lists):
        raise UserError(f"{path}: prompt never shows {{{of}}}")


def _known(path: Path, where: str, text: str, names: Sequence[str]) -> set[str]:
    """The placeholders of a text. Raises UserError for one that is not among `names`."""
    found = set(_fields(path, where, text))
    if unknown := sorted(found - set(names)):
        raise UserError(f"{path}: {where} has {{{unknown[0]}}}; known there: {', '.join(f'{{{n}}}' for n in names)}")
    return found


def _fields(path: Path, where: str, text: str) -> Iterator[str]:
    try:
        for _, name, form, conversion in Formatter().parse(text):
            if name is None:
                continue
            if not name.isidentifier() or form or conversion:
                told = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
                raise UserError(f"{path}: {where} has {{{told}}}: a placeholder is a name; braces are {{{{ and }}}}")
            yield name
    except ValueError as e:
        raise UserError(f"{path}: {where} has a brace too many or too few ({e}): braces are {{{{ and }}}}") from e


# Filling in


def _filled(template: str, values: Mapping[str, str]) -> str:
    """<image> in the file's own words is text, not a place for a picture."""
    parts = []
    for words, name, _, _ in Formatter().parse(template):
        parts.append(words.replace(IMAGE_MARK, PLAIN_IMAGE))
        if name is not None:
            parts.append(values[name])
    return "".join(parts)


def _values(q: Question) -> dict[str, str]:
    """By placeholder, lists left out."""
    values: dict[str, Any] = {
        "task": task_text(q.goal or None),
        "question": q.text.replace(f"{IMAGE_MARK}\n", "").replace(IMAGE_MARK, "").strip(),
        "num_pictures": len(q.pictures),
        "num_items": len(q.shares),
        "state": _place(len(q.pictures) - 1),
    }
    return {name: str(value) for name, value in values.items()}


def _items(q: Question, of: Literal["pictures", "demonstration"]) -> list[dict[str, str]]:
    """Placeholders of each item: all pictures of a run, or the demonstration's pictures or steps."""
    if of == "pictures":
        return [{"picture": _place(k), "number": str(k + 1), "index": str(k)} for k in range(len(q.pictures))]
    items = []
    for k, share in enumerate(q.shares):
        shown = {"step": without_marks(q.steps[k])} if q.steps else {"picture": _place(k)}
        items.append({**shown, "number": str(k + 1), "index": str(k), "percent": percent(share)})
    return items


def _place(number: int) -> str:
    return f"\ue001{number}\ue002"
