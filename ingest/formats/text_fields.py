"""Instructions among the texts of a source, whatever their fields are called; also within texts that hold JSON."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from ingest.formats.listing import ListingBuilder, texts_among
from ingest.formats.side_files import parse_json
from ingest.signals.naming import words

# Words in the name of a field that holds an instruction, the plainest first
INSTRUCTION_WORDS = (
    ("instruction", "instructions"),
    ("language", "lang", "prompt"),
    ("task", "tasks"),
    ("description", "goal", "command", "caption"),
)
# In names of fields that are about a task, and are no text of it
NOT_A_TEXT = frozenset(
    {
        "id",
        "index",
        "idx",
        "embedding",
        "embed",
        "type",
        "category",
        "suite",
        "version",
        "env",
        "file",
        "path",
        "bddl",
    }
)
MAX_DEPTH = 3  # objects within objects, in JSON


def instruction(
    listing: ListingBuilder,
    uri: str,
    usual_places: Iterable[str],
    texts_at: Callable[[str], Sequence[str] | None],
    texts_by_name: Callable[[], Mapping[str, Sequence[str]]],
    is_of_rows: Callable[[str], bool],
    *,
    are_all: bool = False,
) -> tuple[list[str], tuple[str, ...]]:
    """Where the instruction of the coming episode is, and what it says: at all places that the registry names; else at
    the first of the usual ones that has a text, or at all of them (`are_all`); else in the one of `texts_by_name`
    whose name says so.

    `texts_at` gives the different texts at a place; `is_of_rows`: has it one for each row? Then several are steps.
    """
    registered = listing.source.config.keys.language
    texts = {place: texts_at(place) or () for place in registered or usual_places}
    places = [place for place in texts if texts[place]]
    if not places and not registered:
        name, texts[name] = instructions(texts_by_name())
        places = [name] if texts[name] else []
    if not registered and not are_all:
        del places[1:]
    steps = {place: texts[place] for place in places if len(texts[place]) > 1 and is_of_rows(place)}
    return places, listing.whole_task(texts_among(map(texts.get, places)), steps, uri)


@lru_cache(maxsize=4096)
def rank_of(name: str) -> int | None:
    """How plainly a field's name says that it holds an instruction, 0 is best; None where it does not."""
    parts = set(words(name.rpartition("/")[2]))
    if not NOT_A_TEXT.isdisjoint(parts):
        return None
    return next(
        (rank for rank, names in enumerate(INSTRUCTION_WORDS) if not parts.isdisjoint(names)), None
    )


def instructions(fields: Mapping[str, Sequence[str]]) -> tuple[str, tuple[str, ...]]:
    """The field that holds the instruction by its name, and its texts; ("", ()) for none."""
    candidates: list[tuple[int, int, str, tuple[str, ...]]] = []
    for place, (name, texts) in enumerate(fields.items()):
        json_instruction = _inside_json(texts)
        rank = rank_of(name)
        if json_instruction:
            candidates.append((json_instruction[0], place, name, json_instruction[1]))
        elif rank is not None and (
            plain := texts_among(text for text in texts if not _is_json(text))
        ):
            candidates.append((rank, place, name, plain))
    _, _, name, texts = min(candidates, default=(0, 0, "", ()))
    return name, texts


def _is_json(text: str) -> bool:
    return text.lstrip().startswith("{")


def _inside_json(texts: Iterable[str]) -> tuple[int, tuple[str, ...]] | None:
    """The instruction in the first text that holds a JSON object, with its rank."""
    for text in filter(_is_json, texts):
        try:
            content = parse_json(text)
        except ValueError:
            continue
        # Of equal ranks the first one counts
        if instruction := min(_ranked(content, 0), key=itemgetter(0), default=None):
            return instruction
    return None


def _ranked(content: Any, depth: int) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The instructions in an object of JSON, by the names of its fields, each with its rank."""
    if not isinstance(content, dict) or depth >= MAX_DEPTH:
        return
    for name, value in content.items():
        rank = rank_of(str(name))
        if rank is not None and (texts := texts_among([value])):
            yield rank, texts
        yield from _ranked(value, depth + 1)
