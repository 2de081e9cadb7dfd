"""Prompts of a checkpoint's own, from a folder that the user points at: a file for each family of questions.

Files are texts with placeholders in braces, filled in by name: nothing in them is run, and no format or attribute of a
value can be asked for. What they may hold is in docs/evaluation.md.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Formatter
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from annotate.samples.procvqa import task_text
from annotate.samples.wording import percent, without_marks
from core.errors import UserError, validation_message
from core.values import IMAGE_MARK, PLAIN_IMAGE
from eval.benchmarks.load import FAMILIES
from eval.benchmarks.question import DEMONSTRATED, Question
from eval.runners.methods import AskedPrompt, Method
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
OF_A_PLACE = ("number", "index")  # in a list, from 1 and from 0

# Stands for a question's picture until all are in their places
_PICTURE = re.compile("\ue001(\\d+)\ue002")


class PictureList(BaseModel):
    """How a list looks in a prompt: `each` of its items, with `between` between two of them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    of: Literal["pictures", "demonstration"]
    each: str
    between: str = ""


# Of a family's prompts: what lists are of; placeholders of a prompt; those of a list's items, of which the first shows
# the item; the list that is there without being told: {pictures} of a run; {demonstration} in pictures, or in words
OF_RUNS = (
    "pictures",
    (*OF_ALL, "num_pictures"),
    ("picture", *OF_A_PLACE),
    PictureList(of="pictures", each="{picture}"),
)
OF_DEMONSTRATIONS = "demonstration", (*OF_ALL, "num_items", "state")
OF_PICTURES = (
    *OF_DEMONSTRATIONS, ("picture", *OF_A_PLACE, "percent"), PictureList(of="demonstration", each="{picture}"),
)  # fmt: skip
STEPS = PictureList(of="demonstration", each="{number}. {step}\n{percent}%", between="\n\n")
OF_FAMILY = {"text": (*OF_DEMONSTRATIONS, ("step", *OF_A_PLACE, "percent"), STEPS)}


class PromptFile(BaseModel):
    """The prompt of one family of questions: what a TOML file holds; a plain text is `prompt` alone."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str
    system: str = ""
    lists: dict[str, PictureList] = {}

    def fill(self, q: Question) -> Prompt:
        """The question in these words, its pictures in the order in which the words show them."""
        values = {
            "task": task_text(q.goal or None),
            "question": q.text.replace(f"{IMAGE_MARK}\n", "").replace(IMAGE_MARK, "").strip(),
            "num_pictures": str(len(q.pictures)),
            "num_items": str(len(q.shares)),
            "state": _placeholder(len(q.pictures) - 1),
        }
        # All pictures of a run, or the demonstration's pictures or steps
        items = []
        for k in range(len(q.shares) if q.family in DEMONSTRATED else len(q.pictures)):
            item = {"number": str(k + 1), "index": str(k), "picture": _placeholder(k)}
            if q.steps:
                item["step"] = without_marks(q.steps[k])
            if q.family in DEMONSTRATED:
                item["percent"] = percent(q.shares[k])
            items.append(item)
        for name, shape in self.lists.items():
            values[name] = shape.between.join(_filled(shape.each, item) for item in items)
        text = _filled(self.prompt, values)
        return replace(
            Prompt.of(q),
            text=_PICTURE.sub(IMAGE_MARK, text),
            pictures=tuple(q.pictures[int(k)] for k in _PICTURE.findall(text)),
            system=_filled(self.system, values).replace(PLAIN_IMAGE, IMAGE_MARK),
            as_written=True,
        )


@dataclass(frozen=True)
class PromptFolder:
    """`hash`: first 16 hex of a sha256 over names and bytes of the files."""

    folder: Path
    hash: str
    by_name: Mapping[str, PromptFile]

    def of(self, question: Question) -> PromptFile:
        """The prompt of a question's variant, its family, or the family that stands for it. Raises UserError."""
        family = question.family
        for name in (
            f"{family}.{question.row.get('variant')}",
            family,
            INSTEAD.get(family, family),
        ):
            if name in self.by_name:
                return self.by_name[name]
        raise UserError(
            f"{self.folder} has no {' or '.join(f'{family}{ending}' for ending in ENDINGS)}, which questions of "
            f"{question.benchmark} ({question.part}) need: add it, or leave these out with --part"
        )

    def method(self) -> Method:
        """Asks the benchmark's questions in the folder's words."""
        return Method(
            "question", lambda asked: [AskedPrompt(self.of(q).fill(q), (q,)) for q in asked]
        )


def read_prompts(folder: Path) -> PromptFolder:
    """The prompts of a folder. Raises UserError, which names the file and what is wrong in it."""
    if not folder.is_dir():
        raise UserError(f"--prompts {folder} is not a folder")
    # Other files, such as a README or a licence, may stand beside them
    paths = sorted(p for p in folder.iterdir() if p.suffix in ENDINGS)
    if not paths:
        raise UserError(f"{folder} has no prompt: a file such as procvqa_c.txt or visual.toml")
    h = hashlib.sha256()
    by_name = dict[str, PromptFile]()
    for path in paths:
        if path.stem in by_name:
            both = " and ".join(p.name for p in paths if p.stem == path.stem)
            raise UserError(f"{folder} has both {both}: leave one")
        family, _, variant = path.stem.partition(".")
        if family not in FAMILIES or (variant and variant not in VARIANTS.get(family, ())):
            families = [*FAMILIES]
            for name, variants in VARIANTS.items():
                families += [f"{name}.{variant}" for variant in variants]
            raise UserError(
                f"{path}: {path.stem!r} is no family of questions; there are {', '.join(families)}"
            )
        data, file = _read(path)
        by_name[path.stem] = _checked(path, family, file)
        h.update(path.name.encode() + b"\0" + len(data).to_bytes(8) + data)
    return PromptFolder(folder, h.hexdigest()[:16], by_name)


def _read(path: Path) -> tuple[bytes, PromptFile]:
    try:
        data = path.read_bytes()
        text = data.decode("utf-8").replace("\r\n", "\n")
        if path.suffix == ".txt":
            fields = {"prompt": text.removesuffix("\n")}
        else:
            fields = tomllib.loads(text)
        return data, PromptFile.model_validate(fields)
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not UTF-8 text (byte {e.start})") from e
    except tomllib.TOMLDecodeError as e:
        raise UserError(f"{path} is not TOML: {e}") from e
    except ValidationError as e:
        raise UserError(f"{path}: {validation_message(e)}") from e


def _checked(path: Path, family: str, file: PromptFile) -> PromptFile:
    """With the list that is there without being told: every placeholder is known, every picture is shown."""
    list_name, of_question, of_item, default_list = OF_FAMILY.get(
        family, OF_PICTURES if family in DEMONSTRATED else OF_RUNS
    )
    lists = {list_name: default_list} | file.lists
    showing = set()  # lists that show what is in them
    for name, shape in lists.items():
        if shape.of != list_name:
            raise UserError(
                f"{path}: lists.{name} is of {shape.of!r}, and {family} has {list_name!r} alone"
            )
        if name in of_question:
            raise UserError(f"{path}: lists.{name} has the name of a placeholder: give it another")
        if of_item[0] in _placeholders(path, f"lists.{name}.each", shape.each, of_item):
            showing.add(name)
    placeholders = _placeholders(path, "prompt", file.prompt, (*of_question, *lists))
    _placeholders(
        path, "system", file.system, tuple(name for name in of_question if name != "state")
    )
    # A model that is not shown what it judges would answer all the same
    if "state" in set(of_question) - placeholders:
        raise UserError(f"{path}: prompt never shows {{state}}, the picture to judge")
    if not placeholders & showing:
        raise UserError(f"{path}: prompt never shows {{{list_name}}}")
    return file.model_copy(update={"lists": lists})


def _placeholders(path: Path, field: str, text: str, known_names: Sequence[str]) -> set[str]:
    """Those of a text. Raises UserError for one that is not `known_names`, or asks for more than a
    value."""
    names = set()
    try:
        for _, name, form, conversion in Formatter().parse(text):
            if name is None:
                continue
            if not name.isidentifier() or form or conversion:
                placeholder = (
                    name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
                )
                raise UserError(
                    f"{path}: {field} has {{{placeholder}}}: a placeholder is a name; braces are {{{{ and }}}}"
                )
            names.add(name)
    except ValueError as e:
        raise UserError(
            f"{path}: {field} has a brace too many or too few ({e}): braces are {{{{ and }}}}"
        ) from e
    if unknown := sorted(names - set(known_names)):
        raise UserError(
            f"{path}: {field} has {{{unknown[0]}}}; known there: {', '.join(f'{{{n}}}' for n in known_names)}"
        )
    return names


def _filled(template: str, values: Mapping[str, str]) -> str:
    """<image> in the file's own words is text, not a place for a picture."""
    return template.replace(IMAGE_MARK, PLAIN_IMAGE).format_map(values)


def _placeholder(number: int) -> str:
    return f"\ue001{number}\ue002"
