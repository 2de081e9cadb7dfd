"""What `make docs` lets a page leave out of an output, and that it lets it say nothing else."""

import pytest

from tests.kits.docs_output import OutputError, check_lines, check_shown

PRINTED = """\
dataset   episodes   ok   labels
────────────────────────────────────────────
arm             12   11   motion: 11 of 12 episodes
Next: look at it   proccorpus explore
"""


def test_a_page_may_show_some_columns_and_lines_of_what_is_printed() -> None:
    check_lines("dataset  ok  labels\narm  8  motion: 8 of 9 episodes\nNext: look at it\n", PRINTED)


@pytest.mark.parametrize(
    "page_text",
    [
        "dataset  ok  labels\narm  8  native: 8 of 9 episodes",
        "dataset  ok  labels\nleg  8  motion: 8 of 9 episodes",
        "dataset  labels  ok\narm  motion: 8 of 9 episodes  8",
        "dataset  ok  shards\narm  8  7",
        "arm  8  motion: 8 of 9 episodes",
        "Next: build it",
    ],
)
def test_a_page_shows_no_other_values_columns_or_lines(page_text: str) -> None:
    with pytest.raises(OutputError, match="the page shows"):
        check_lines(page_text, PRINTED)


def test_dots_stand_for_a_part_of_notes_and_of_an_output() -> None:
    notes = "note: 7 runs have no stages (a step done twice): arm 2, arm 3\nnote: 1 is long\n"
    check_shown(
        "note: 3 runs have no stages (...\nkind  out\n...\n", "kind  out\nlerobot  d1\n", notes
    )
    check_shown("note: 2 is long\nkind  out\n", "kind  out\n", notes)
    for page_text in ("kind  out\n", "note: 3 runs have stages ...\nkind  out\n..."):
        with pytest.raises(OutputError, match="the page shows"):
            check_shown(page_text, "kind  out\nlerobot  d1\n", notes)
