"""What is compared of an output that a page shows, and that every command of the docs has something to say."""

import re

import pytest

from tests.docs.test_docs_pages import ELSEWHERE, ONLY_LOOKED_UP, SEEN_TO, SERVERS
from tests.kits.docs_output import SAYS, OutputError, check_lines, check_shown, masked
from tests.kits.pages_kit import PAGES, blocks, words

TABLE = "kind   out   bytes\n──────\nrabc   d3    68.1 kB\n"


def test_figures_ids_and_rules_are_masked_and_words_are_not():
    assert masked("run 0db2bc68a5bd4107  4,216 frames  1.5 MB\n────\n  laptop-demo-9f9b4249 ok\n") == [
        "run ID # frames # BYTES",
        "MODEL ok",
    ]


@pytest.mark.parametrize(
    ("shown", "out", "err"),
    [
        (TABLE, "kind      out   bytes\n────\nrabc   d3    3 B\n", ""),
        (TABLE, TABLE, "note: a page need not show this\n"),
        ("note: 3 left\n...", TABLE, "note: 12 left\n"),
        ('{"a": 1, "b": ...}', '{\n "a": 0.25,\n "b": {"c": [1, 2]}\n}\n', ""),
    ],
)
def test_equal_but_for_figures(shown: str, out: str, err: str):
    check_shown(shown, out, err)


@pytest.mark.parametrize(
    ("shown", "out", "err"),
    [
        (TABLE, TABLE.replace("bytes", "size"), ""),
        (TABLE, TABLE.replace("rabc", "lerobot"), ""),
        (TABLE, f"{TABLE}one more line\n", ""),
        ("note: 3 left\n...", TABLE, ""),
        ("No findings.", "", ""),
    ],
)
def test_anything_else_is_told(shown: str, out: str, err: str):
    with pytest.raises(OutputError):
        check_shown(shown, out, err)


def test_lines_among_others():
    check_lines("sim_long   18", "dataset  n\nsim_long   3   ok\n")
    with pytest.raises(OutputError):
        check_lines("sim_short   18", "dataset  n\nsim_long   3   ok\n")


def test_of_every_command_that_is_run_somebody_says_what_it_prints():
    unknown = []
    for page in PAGES:
        for command in [c for b in blocks(page) if b.kind == "sh" for c in b.commands]:
            said = [word.removeprefix(".venv/bin/") for word in words(command)]
            if page.stem in SEEN_TO or said[0] != "proccorpus" or said[1] in {"sql", *SERVERS, *ELSEWHERE}:
                continue
            if any(re.search(pattern, command) for pattern in ONLY_LOOKED_UP):
                continue
            if not any(re.match(rf"{start}\b", " ".join(said[1:])) for start in SAYS):
                unknown.append(command)
    assert unknown == []
