"""A reply read as a person would read it: the JSON object in a text, its values as the schema has them.

What is read past: fences and words around the object, thinking before it, keys that nobody asked
for, capitals of keys and choices, numbers and truth values as text, quotation marks and dashes of
typography, thoughts that are too long or lack. What a label is made of is never guessed: a choice
that is none of the list, or a number beyond it, is a problem.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from core.errors import without_secrets

type Schema = Mapping[str, Any]

THOUGHT = "a thought"  # description of a text that nothing is made of: it may be missing
MOST_STARTS = 500  # braces at which an object may begin, from the end of a text
TYPOGRAPHY = str.maketrans('‘’‚“”„′″–—−‐‑\\"', "''''''''-----/'")
TRUTH_VALUES = {"true": True, "yes": True, "false": False, "no": False}
DECLINED = re.compile(
    r"\s*(i'?m sorry|i am sorry|sorry\b|i can(no|')t\b|i'?m unable|i am unable|as an ai\b)", re.I
)


class UnreadableError(ValueError):
    """No object in a text fits the schema; in a line, what is wrong with the one that comes nearest."""


def read_reply(text: str, schema: Schema) -> dict[str, Any]:
    """The last object in a text that fits the schema: a model thinks first. Raises UnreadableError."""
    problem = None
    for value in json_objects(text):
        fitted = fitted_value(value, schema)
        problem_here = problem_of(fitted, schema)
        if problem_here is None:
            return fitted
        problem = problem or f"the reply breaks the schema: {problem_here}"
    if problem is None:
        problem = (
            f"the reply is no JSON (does the server honour response_format?): {one_line(text)}"
        )
    raise UnreadableError(problem)


def is_refusal(text: str) -> bool:
    """Does a reply without any object say that the model will not answer?"""
    return "{" not in text and DECLINED.match(text.translate(TYPOGRAPHY)) is not None


def json_objects(text: str) -> list[Any]:
    """The JSON objects in a text, none of them within another one; the last one first."""
    values = []
    end = 0
    for start in [match.start() for match in re.finditer(r"\{", text)][-MOST_STARTS:]:
        if start < end:
            continue
        try:
            value, end = DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        values.append(value)
    return values[::-1]


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse_constant)


def fitted_value(value: Any, schema: Schema) -> Any:
    """A value with all that can be read in one way only written as the schema wants it."""
    if "enum" in schema:
        return _meant_choice(value, schema["enum"])
    match schema.get("type"):
        case "object":
            return _fitted_object(value, schema)
        case "array":
            entries = [value] if isinstance(value, dict) else value
            if isinstance(entries, list):
                return [fitted_value(entry, schema["items"]) for entry in entries]
            return value
        case "boolean":
            if isinstance(value, str):
                return TRUTH_VALUES.get(plain_name(value), value)
            return value
        case "integer":
            number = _number_in(value)
            if number is None:
                return value
            return number
        case "string":
            return _fitted_text(value, schema)
    return value


def _fitted_object(value: Any, schema: Schema) -> Any:
    properties = schema["properties"]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    # An object that is wrapped in another one, as {"answer": {...}}
    if (
        isinstance(value, dict)
        and len(value) == 1
        and not set(map(plain_name, value)) & set(map(plain_name, properties))
    ):
        [value] = value.values()
    if not isinstance(value, dict):
        return value
    by_plain_name = {plain_name(name): inner for name, inner in value.items()}
    fitted = {}
    for name, inner_schema in properties.items():
        if name in value or plain_name(name) in by_plain_name:
            inner = value[name] if name in value else by_plain_name[plain_name(name)]
            fitted[name] = fitted_value(inner, inner_schema)
        elif _is_thought(inner_schema):
            fitted[name] = ""
    return fitted


def _meant_choice(value: Any, choices: Sequence[Any]) -> Any:
    """The one of the choices that is meant; the value itself where none is."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        by_plain_text = {
            plain_name(choice): choice for choice in choices if isinstance(choice, str)
        }
        if plain_name(value) in by_plain_text:
            return by_plain_text[plain_name(value)]
    # "Picture 13", "step 2" and 13.0 name a number of the list
    by_number = {str(choice): choice for choice in choices}
    return by_number.get(str(_number_in(value)), value)


def _number_in(value: Any) -> int | None:
    """The only whole number that a value is or names; None of a time, a fraction and a negative one."""
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    if isinstance(value, str):
        number_match = re.fullmatch(r"[^\d-]*(\d{1,9})(\.0+)?[^\d.:]*", value)
    else:
        number_match = None
    if number_match:
        return int(number_match[1])
    return None


def _fitted_text(value: Any, schema: Schema) -> Any:
    if value is None and _is_thought(schema):
        return ""
    if not isinstance(value, str) or "pattern" not in schema:
        return value
    line = printable_line(unicodedata.normalize("NFKC", value).translate(TYPOGRAPHY))
    if len(line) <= max_chars(schema):
        return line
    return line[: max_chars(schema) - 3].rstrip() + "..."


def _is_thought(schema: Schema) -> bool:
    return schema.get("description") == THOUGHT


def plain_name(text: str) -> str:
    """A name or a choice without capitals, blanks, dashes and quotation marks."""
    return re.sub(
        r"[\s_'`.-]+", "", unicodedata.normalize("NFKC", text).translate(TYPOGRAPHY).casefold()
    )


def max_chars(text: Schema) -> int:
    """How many characters a text of a schema may have, by its pattern."""
    return 1 + sum(map(int, re.findall(r"\{0,(\d+)\}", text["pattern"])))


def problem_of(value: Any, schema: Schema | None) -> str | None:
    """The first thing that is wrong with a fitted value, in a line; None without a schema."""
    if schema is None:
        error = None
    else:
        # Its import takes a tenth of the start of a command that reads no reply
        validator = import_module("jsonschema").Draft202012Validator(_loose_schema(schema))
        error = next(validator.iter_errors(value), None)
    if error is None:
        return None
    return one_line(f"{error.json_path}: {error.message}")


def _loose_schema(schema: Schema) -> dict[str, Any]:
    """The schema with texts in any writing: patterns keep a decoder within ASCII, people read more."""
    if "pattern" in schema:
        return {
            "type": "string",
            "minLength": 0 if _is_thought(schema) else 1,
            "maxLength": max_chars(schema),
        }
    loose = dict(schema)
    if "properties" in schema:
        loose["properties"] = {
            name: _loose_schema(inner) for name, inner in schema["properties"].items()
        }
    if "items" in schema:
        loose["items"] = _loose_schema(schema["items"])
    return loose


def reply_form(schema: Schema) -> str:
    """The form of a reply for a prompt: an object as JSON, with what may stand in place of each value.

    Example: {"seen": "text, at most 100 characters", "picture": the number of a picture, from 15 to
    300}
    """
    if "enum" in schema:
        return _choices_in_words(schema["enum"])
    match schema["type"]:
        case "object":
            return "{" + ", ".join(_properties_in_words(schema["properties"])) + "}"
        case "array":
            return (
                f"[{schema['minItems']} to {schema['maxItems']} of {reply_form(schema['items'])}]"
            )
        case "boolean":
            return "true or false"
    return f'"text, at most {max_chars(schema)} characters"'


def _properties_in_words(properties: Mapping[str, Schema]) -> Iterator[str]:
    previous_name = ""
    for name, schema in properties.items():
        is_repeated = (
            previous_name and schema == properties[previous_name] and schema["type"] == "object"
        )
        yield f'"{name}": ' + (f'as "{previous_name}"' if is_repeated else reply_form(schema))
        previous_name = name


def _choices_in_words(choices: Sequence[Any]) -> str:
    if isinstance(choices[0], int):
        is_range = choices[-1] - choices[0] == len(choices) - 1
        words = "a whole number" if is_range else "the number of a picture,"
        return f"{words} from {choices[0]} to {choices[-1]}"
    # Numbers of steps as a range
    digits = [choice for choice in choices if choice.isdecimal()]
    steps = [f'"{digits[0]}" to "{digits[-1]}"'] if digits else []
    return " or ".join(
        [*steps, *(json.dumps(choice) for choice in choices if not choice.isdecimal())]
    )


def printable_line(text: str) -> str:
    """A model's text on one line, without invisible characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def one_line(text: str, chars: int = 200) -> str:
    """As one line of bounded length, for a message."""
    line = without_secrets(" ".join(text[: 4 * chars].split()))
    if len(line) <= chars:
        return line
    return line[: chars - 3] + "..."
