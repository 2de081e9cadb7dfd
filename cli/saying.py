"""What people say of episodes, in words of a command line: `say KIND`, and `undo ID`.

A kind is a typed function below; its parameters are what `say KIND` takes, by order, or by name with `--set`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator
from typer import Argument

from cli.lakes import WriteLake
from cli.options import (
    DONE,
    FAILED,
    AuthorOption,
    CommentOption,
    Facts,
    Result,
    SetOption,
    command,
    episode_list,
    stale_lines,
    warn,
)
from cli.output import progress
from core.errors import UserError
from core.names import did_you_mean, whoami
from core.settings import arguments_of
from warehouse.exports.corrections import (
    from_lines,
    from_opensarm,
    from_tasks,
)
from warehouse.lake import (
    Lake,
    acceptances,
    corrections,
    outcomes,
    recordings,
    references,
)
from warehouse.lake.statements import (
    known_episodes,
    mark,
    read_text,
    take_back,
)

Episodes = Annotated[tuple[int, ...] | None, BeforeValidator(episode_list)]
NEW = (
    "SELECT statement_id, kind, dataset, episode_index, subject, value, comment, author FROM statements "
    "WHERE number > ? ORDER BY number"
)


def acceptance(
    lake: Lake,
    dataset: str,
    check: str,
    episodes: Episodes = None,
    is_accepted: bool = True,
    *,
    author: str,
    comment: str,
) -> None:
    """A known oddity: faults that a check found, of some runs or all. They are not told again;
    --comment says why."""
    if is_accepted and not comment.strip():
        raise UserError("an acceptance needs --comment TEXT: who looks for the fault reads it")
    words = {"why": comment, "author": author, "is_accepted": is_accepted}
    acceptances.accept(lake, dataset, check, episodes, **words)


def assigned(
    lake: Lake,
    dataset: str,
    episode: int,
    value: str,
    is_on: bool = True,
    *,
    author: str,
    comment: str,
) -> None:
    """Who is to look at an episode."""
    mark(lake, [(dataset, episode)], "assigned", value, author=author, is_on=is_on)


def correction(
    lake: Lake,
    file: Path,
    form: Literal["jsonl", "label-studio", "opensarm"] = "jsonl",
    dataset: str | None = None,
    *,
    author: str,
    comment: str,
) -> Facts:
    """Corrected labels of a file: lines of `show correction_lines`, Label Studio's tasks,
    opensarm's results."""
    if dataset is not None and form != "opensarm":
        raise UserError("dataset needs form=opensarm: other forms name the dataset themselves")
    if form == "opensarm":
        read = from_opensarm(lake, file, author, dataset)
    else:
        read = (from_lines if form == "jsonl" else from_tasks)(lake, read_text(file), author)
    # What can be used is saved even where other rows are refused; the exit code tells of those
    with progress() as report:
        report("corrections", 0, len(read.rows))
        new = corrections.add_rows(
            lake, read.rows, lambda done: report("corrections", done, len(read.rows))
        )
    warn(read.refused, "left out")
    warn(read.waiting, "for review")
    return {
        "new": new,
        "known": len(read.rows) - new,
        "for_review": len(read.waiting),
        "refused": len(read.refused),
    }


def joined_task(
    lake: Lake,
    dataset: str,
    text: str,
    same_as: str | None = None,
    *,
    author: str,
    comment: str,
) -> None:
    """Two texts that mean the same task; with one text alone: it is a task of its own again."""
    if same_as is None:
        references.part_task(lake, dataset, text, author=author)
    else:
        references.join_tasks(lake, dataset, text, same_as, author=author)


def outcome(
    lake: Lake,
    dataset: str,
    episode: int | None = None,
    success: bool | None = None,
    file: Path | None = None,
    *,
    author: str,
    comment: str,
) -> Facts:
    """How a run ended; or file=FILE, CSV with a header or JSON lines, says it of many. Columns:
    episode, episode_index or source_id; success; optional note and by. It overrules the source and
    earlier files; a bad line refuses it all.
    """
    name = outcomes.BY_COMMAND
    if file is not None:
        name = file.name
        read = outcomes.read_outcomes(lake, dataset, file, author)
    elif episode is None or success is None:
        raise UserError("an outcome needs EPISODE and SUCCESS, or file=FILE")
    elif episode not in known_episodes(lake, dataset):
        raise UserError(f"{dataset} has no episode {episode}")
    else:
        read = [outcomes.StatedOutcome(episode, success, comment or None, author)]
    import_id, new = outcomes.add_outcomes(lake, dataset, name, read)
    succeeded = sum(row.success for row in read)
    return {
        "dataset": dataset,
        "import_id": import_id,
        "outcomes": len(read),
        "succeeded": succeeded,
        "failed": len(read) - succeeded,
        "new": new,
    }


def recording(
    lake: Lake,
    dataset: str,
    episode: int,
    is_same: bool,
    *,
    author: str,
    comment: str,
) -> Facts:
    """Whether an episode is the recording that it resembles; if so, all that was said of that one
    is in force."""
    former = recordings.decide(lake, dataset, episode, is_same=is_same, author=author)
    return {"dataset": dataset, "episode_index": episode, "is_same": is_same, "recording": former}


def reference(
    lake: Lake,
    dataset: str,
    episode: int,
    label_run: str | None = None,
    is_reference: bool = True,
    *,
    author: str,
    comment: str,
) -> None:
    """A run whose label you vouch for, the active one or that of label_run: others of its task are
    labelled like it."""
    run = {"label_run": label_run, "is_reference": is_reference}
    references.vouch(lake, dataset, episode, author=author, **run)


def tag(
    lake: Lake,
    dataset: str,
    episode: int,
    value: str,
    is_on: bool = True,
    *,
    author: str,
    comment: str,
) -> None:
    """A tag on an episode."""
    mark(lake, [(dataset, episode)], "tag", value, author=author, is_on=is_on)


KINDS: dict[str, Callable[..., Facts | None]] = {
    function.__name__: function
    for function in (
        acceptance,
        assigned,
        correction,
        joined_task,
        outcome,
        recording,
        reference,
        tag,
    )
}


def _help() -> str:
    """The help of the command: each kind, and what it takes."""
    paragraphs = ["Say something of episodes. It counts at once; the next build applies it. Kinds:"]
    for name, function in KINDS.items():
        names = [*function.__annotations__][1:-3]
        paragraphs.append(
            f"{name} {' '.join(names).upper()}: {' '.join(str(function.__doc__).split())}"
        )
    return "\n\n".join(paragraphs)


@command("say", help=_help())
def say(
    lake: WriteLake,
    kind: Annotated[str, Argument(help="See above.", autocompletion=lambda: [*KINDS])],
    words: Annotated[
        list[str] | None, Argument(metavar="[WORDS]...", help="What the kind takes, in order.")
    ] = None,
    settings: SetOption = None,
    author: AuthorOption = None,
    comment: CommentOption = "",
) -> Result:
    if kind not in KINDS:
        hint = did_you_mean(kind, KINDS) or f"; there are {', '.join(KINDS)}"
        raise UserError(f"there is no kind {kind!r} of what people say{hint}")
    values = arguments_of(KINDS[kind], words or (), settings or ())
    former = _newest(lake)
    facts = KINDS[kind](lake, *values, author=author or whoami(), comment=comment)
    if facts is None:
        return _new(lake, former)
    code = FAILED if facts.get("refused") else DONE
    return Result(facts, lines=stale_lines(outcomes.chunks_to_build(lake)), code=code)


def _newest(lake: Lake) -> int:
    """The number of the newest statement."""
    return lake.column("SELECT coalesce(max(number), 0) FROM statements")[0]


def _new(lake: Lake, former: int) -> Result:
    """What was said after the statement of a number."""
    lines = stale_lines(outcomes.chunks_to_build(lake))
    rows = lake.dicts(NEW, [former])
    return Result(rows, empty="Nothing new: it was said before.", hidden=["value"], lines=lines)


@command("undo")
def undo(
    lake: WriteLake,
    statement: Annotated[
        str, Argument(metavar="ID", help="A statement_id, correction_id or import_id, see show.")
    ],
    author: AuthorOption = None,
    comment: CommentOption = "",
) -> Result:
    """Take back what was said: what was in force before it is so again. Nothing is deleted."""
    former = _newest(lake)
    take_back(lake, statement, author=author or whoami(), comment=comment)
    return _new(lake, former)
