"""Spoiling JSON, JSON lines and CSV, which readers parse."""

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.kits.mutate_files import Site


def wild_values(site: Site) -> list[Any]:
    """What no reader expects; a string stands for itself, so that it can be Python's or JSON's idea of text."""
    secret = str(site.outside / "secret.mp4")
    return [
        None, -1, 0, 1e308, 2**70, -(2**63), float("nan"), float("inf"), 1e-320, True, "0", "", "x" * 200_000, [],
        {}, [[]],
        {"a": {"b": [None]}}, "\u202e../", "../../outside/secret.mp4", secret, "a\0b", "\ud800", "{0.__class__}",
        "{episode_index:999999999d}", "{video_key.__class__.__mro__}", "{", 10**400, [1, "a", None], "NaN",
    ]  # fmt: skip


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a tree."""
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from places(node[key])


def edit_tree(site: Site, edit: Callable[[Any, Any], str | None]) -> str | None:
    """Change one place of a JSON file, or of one line of it."""
    path = site.file()
    lines = path.read_text().split("\n") if path.suffix == ".jsonl" else [path.read_text()]
    at = site.rng.choice([k for k, line in enumerate(lines) if line.strip()])
    root = [json.loads(lines[at])]
    known = list(places(root))
    texts = [(c, k) for c, k in known if isinstance(c[k], str)]
    shallow = [(c, k) for c, k in known if c is not root][:12]
    container, key = site.rng.choice(site.rng.choice([x for x in (known, texts, shallow) if x]))
    said = edit(container, key)
    lines[at] = json.dumps(root[0]) if root else ""
    path.write_text("\n".join(lines))
    return f"{site.shown(path)} {key!r} {said}"


def json_value(site: Site) -> str | None:
    value = site.rng.choice(wild_values(site))

    def edit(container: Any, key: Any) -> str:
        container[key] = value
        return repr(value)[:60]

    return edit_tree(site, edit)


def json_path(site: Site) -> str:
    """Names and path templates that lead out."""
    out = site.outside
    value = site.rng.choice([
        f"{os.path.relpath(out, site.root)}/secret.mp4", f"{out}/secret.mp4", f"{out}/secret.parquet",
        "../../outside/secret.json", "{episode_index:999999999d}", "{episode_index!r:>999999999}", "{0.__class__}",
        "../{video_key}/{episode_index}.mp4", "{video_key.__init__.__globals__}",
        "data/../../../outside/secret.parquet",
        "{DATASET.__class__}", "%s" * 99,
    ])  # fmt: skip
    path = site.file()
    text = path.read_text()
    found = re.findall(r'"[^"\\]*[/{.][^"\\]*"(?!\s*:)', text)
    before = site.rng.choice(found or re.findall(r'"[^"\\]*"(?!\s*:)', text))
    path.write_text(text.replace(before, json.dumps(value)))
    return f"{site.shown(path)} {before[:60]} is {value[:60]}"


def json_without(site: Site) -> str | None:
    def edit(container: Any, key: Any) -> str:
        del container[key]
        return "is gone"

    return edit_tree(site, edit)


def json_nested(site: Site) -> str | None:
    """So deep that a reader that calls itself runs out of stack; or so wide."""
    mark, depth = "\u2603mark", site.rng.choice([900, 100_000])
    deep = site.rng.choice(["[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" + "0," * depth + "0]"])

    def edit(container: Any, key: Any) -> str:
        container[key] = mark
        return f"{depth} deep"

    path = site.file()
    site.pattern = site.shown(path)
    said = edit_tree(site, edit)
    for changed in site.files():
        changed.write_text(changed.read_text().replace(json.dumps(mark), deep))
    return said


def text_encoding(site: Site) -> str:
    path = site.file()
    text, how = path.read_text(), site.rng.choice(["utf-16", "utf-8-sig", "latin-1", "nul", "cr", "no newline"])
    match how:
        case "latin-1":
            path.write_bytes(text.replace("e", "é").encode("latin-1"))
        case "nul":
            path.write_text(text.replace("e", "\0"))
        case "cr":
            path.write_text(text.replace("\n", "\r"), newline="")
        case "no newline":
            path.write_text(text.replace("\n", ""))
        case _:
            path.write_text(text, encoding=how)
    return f"{site.shown(path)} {how}"


def json_line_order(site: Site) -> str:
    path = site.file()
    lines = path.read_text().splitlines()
    how = site.rng.choice(["twice", "backwards", "joined", "none"])
    order = {"twice": lines * 2, "backwards": lines[::-1], "joined": ["".join(lines)], "none": []}
    path.write_text("\n".join(order[how]) + "\n")
    return f"{site.shown(path)} lines {how}"


def csv_cell(site: Site) -> str:
    path = site.file()
    rows = list(csv.reader(io.StringIO(path.read_text())))
    row = site.rng.choice(rows)
    value = site.rng.choice([
        str(v).encode("utf-8", "replace").decode() for v in (*wild_values(site), '"', '"\n' * 3,
        f"{site.outside}/secret.mp4")
    ])  # fmt: skip
    row[site.rng.randrange(len(row))] = value
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    path.write_text(out.getvalue())
    return f"{site.shown(path)} {value[:60]!r}"


JSON = (json_value, json_path, json_without, json_nested, text_encoding)
JSON_LINES = (json_line_order,)
CSV = (csv_cell, text_encoding)
