"""What commands of the documentation print: as the page shows it, else what each command has to say.

Figures depend on the corpus, which is smaller in tests: numbers, ids, models' names and paths are masked before what is
shown and what is printed are compared. All else, such as columns, words and names, is equal.
"""

import re
from itertools import pairwise
from pathlib import Path

from tests.kits.pages_kit import words


class OutputError(AssertionError):
    """A command ran, and printed something else than the page says."""


# Each is sought in turn: what stands in the output of these commands, at least, when they did what the page says
SAYS = {
    r"build": r"\d+ stages run, \d+ were up to date\.|Everything is up to date",
    r"inspect": r"\d+ of \d+ episodes usable.*Next: ",
    r"status": r"dataset +episodes +ok +quarantined(.|\n)*\n(sim_|mine)",
    r"quarantine": r"Nothing is quarantined|dataset +episode_index",
    r"datasets": r"dataset +title(.|\n)*\n\s*my_arm",
    r"schema episodes": r"episodes +episode_index +BIGINT",
    r"schema": r"\n\s*episodes +",
    r"doctor --json": r'"errors": 0',
    r"doctor": r"is whole\.",
    r"recover": r"is whole\.",
    r"dry-run": r"USD|GPU|no requests to a model|seconds|minutes",
    r"corrections list": r"correction_id|Nobody corrected|dataset +episode_index",
    r"corrections export": r"rows? written|corrections|tasks|file",
    r"corrections import": r"corrections|new|read",
    r"corrections undo": r"takes \w+ back; the next build makes its chunk anew",
    r"references list": r"No reference yet|dataset +",
    r"references suggest": r"task|label",
    r"references": r"sim_short",
    r"outcomes import": r"import_id +outcomes +succeeded|dataset +import_id",
    r"outcomes": r"dataset +",
    r"annotators compare": r"against (the truth|label run|the label that counts)(.|\n)*error of progress",
    r"like": r"dataset +episode_index",
    r"release create": r"release +snapshot +content +shards +card",
    r"release verify": r"All as it was frozen\.",
    r"release diff": r"dataset +in_both +added +removed",
    r"release list": r"name +snapshot +config_hash +shards",
    r"release delete": r"is deleted; its \d+ shards go with the next gc",
    r"takedown \S+ --undo": r"marks taken back",
    r"takedown": r"Build \S+ to make its chunks without it, then run gc",
    r"train": r"checkpoint(.|\n)*Next: score it",
    r"adapt": r"training_run(.|\n)*checkpoint",
    r"eval compare": r"metric|difference",
    r"eval": r"benchmark|metric|voc",
    r"model list": r"laptop-(demo|local)",
    r"model calibrate": r"threshold|value",
    r"model": r"checkpoint|model|No adapter is left to merge",
    r"reward": r'"progress": |frames scored|progress',
    r"samples draw": r"kind +wanted +there +drawn(.|\n)* samples in ",
    r"export": r"kind +out +episodes",
    r"import": r"dataset +label_run +form +episodes +segments",
}
# Answers that say that there was nothing to show
NOTHING = re.compile(r"^(No rows\.|No \w+ yet.*|Nobody said .*|Neither holds an episode\.)$", re.MULTILINE)
MASKS = (
    (r"\x1b\[[0-9;]*m", ""),
    (r"^[─\s]*$", ""),  # rules and empty lines
    (r"\b(tiny_cpu|laptop)-\w+-[0-9a-f]{8}\b", "MODEL"),
    (r"(?<![\w.])(?=[0-9a-f]*\d)(?=[0-9]*[a-f])[0-9a-f]{12,64}\b", "ID"),
    (r"(?<![\w.])-?\d[\d,]*(\.\d+)?(e[+-]?\d+)?\b", "#"),
    (r"# (B|kB|MB|GB)\b", "# BYTES"),
)


def masked(text: str) -> list[str]:
    """The lines of an output without what differs from corpus to corpus, and without how they are set."""
    for pattern, by in MASKS:
        text = re.sub(pattern, by, text, flags=re.MULTILINE)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def check_shown(shown: str, out: str, err: str) -> None:
    """Raises OutputError where a page shows other output than was printed; `...` stands for anything.

    Of what went to standard error (notes, progress) a page may show a part.
    """
    expected = _tight(masked(shown))
    notes = [line for line in masked(err) if _tight([line]) in expected]
    found = _tight([*notes, *masked(out)])
    pattern = ".*?".join(re.escape(part.strip()) for part in expected.split("..."))
    if not re.fullmatch(pattern, found):
        raise OutputError(f"the page shows\n{expected}\nand it printed\n{found}")


def _tight(lines: list[str]) -> str:
    """As one line, without the spaces that JSON may have."""
    return re.sub(r"\s*([{}\[\],:])\s*", r"\1", " ".join(lines))


def check_lines(shown: str, printed: str) -> None:
    """Raises OutputError where a line that a page shows, among others, begins none that was printed."""
    found = masked(printed)
    missing = [line for line in masked(shown) if not any(f"{other} ".startswith(f"{line} ") for other in found)]
    if missing:
        raise OutputError(f"the page shows {missing}, and it printed\n" + "\n".join(found))


def check_said(arguments: list[str], printed: str, folder: Path) -> None:
    """Raises OutputError where a command whose output no page shows did not say, or write, what it has to."""
    command = " ".join(arguments)
    if out := next((v for n, v in pairwise(arguments) if n == "--out"), None):
        written = folder / out
        files = [p for p in written.rglob("*") if p.is_file()] if written.is_dir() else [written]
        _expect(bool(files), command, "wrote nothing")
        _expect(any(p.stat().st_size > 0 for p in files), command, "wrote empty files")
        if written.suffix == ".csv":
            _expect(len(written.read_text().splitlines()) > 1, command, "wrote no rows")
        if not printed.strip():
            return
    _expect(not NOTHING.search(printed), command, f"said:\n{printed}")
    if arguments[0] == "sql":
        _expect(len(masked(printed)) > 1, command, f"said:\n{printed}")
        return
    known = [pattern for start, pattern in SAYS.items() if re.match(rf"{start}\b", command)]
    assert known, f"nobody says what {command} prints: tests/kits/docs_output.py"
    _expect(bool(re.search(known[0], printed, re.DOTALL)), command, f"did not say {known[0]!r}:\n{printed}")


def _expect(is_so: bool, command: str, what: str) -> None:
    if not is_so:
        raise OutputError(f"{command}: {what}")


def console_parts(text: str) -> list[tuple[str, str]]:
    """(command, output shown below it) of a console block."""
    parts: list[tuple[str, str]] = []
    for line in text.replace("\\\n", " ").splitlines(keepends=True):
        if line.startswith("$ "):
            parts.append((line[2:].strip(), ""))
        else:
            command, shown = parts[-1]
            parts[-1] = (command, shown + line)
    assert all(words(command) for command, _ in parts)
    return parts
