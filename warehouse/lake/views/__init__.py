"""The views of the lake: SQL over its tables (core/tables), a file each.

Their text is stored in each lake, and counts as schema. A file begins with comments: what a row is, then
`column: what it holds` for columns that are not those of a table, and an empty line. `${NAME}` stands for a threshold
or a condition of `VALUES` below. What people said is in the table `statements` beside the lake (warehouse.lake.words).
"""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from core.annotators import FROM_THE_SOURCE, follows_sql, made_by_sql
from core.demonstration_quality import SQL_VALUES
from core.names import FORMER_REASONS
from warehouse.lake.words import OF_LABELS

FOLDER = Path(__file__).parent
INDENT = " " * 8  # of the stored text

# From where on a label is odd enough for a person to look at it
MAX_JUMP = 0.5  # change of progress within half a second
MIN_CONFIDENCE = 0.6  # dips of the speed alone, hardly better than chance, give 0.55
MAX_ORDER_RARITY = 0.8  # share of the task's runs whose steps follow each other otherwise
MAX_MEAN_DIFFERENCE = 0.1  # mean difference to the progress of another label run
MAX_LENGTH_Z = 3  # robust standard deviations of the log duration from the task's median
MIN_STEP_S = 0.3  # nothing is done in a shorter step
FAULTY = "a check found a fault"  # the sign, which stands first and gives way to the words of what was found
MOST_FAULTS = 3  # of a run, in words
# How odd a run's end is whose outcome nobody says (p_failure)
LOOKS_UNFINISHED = 0.5
MAY_BE_UNFINISHED = 0.2

MOMENTS = 8  # evenly spread over a run: by them other runs are like it
MOST_WITH_STEPS = 20  # references among the runs of a task that bring their own steps
MIN_ROWS_OF_COPY = 8  # different rows of a run that may be told to be a copy by them

# Views of what people said, with the columns by which their rows are ordered
SAID = {
    "corrections": ("correction_id",),
    "outcomes": ("import_id", "episode_index"),
    "reference_marks": ("mark_id",),
    "episode_marks": ("mark_id",),
    "acceptances": ("acceptance_id",),
    "joined_tasks": ("join_id", "task"),
}

# Of label_quality as q: nobody says how the run ended, and its label or the other runs of its task say that it failed
UNFINISHED = f"(q.p_failure >= {LOOKS_UNFINISHED} OR q.end_by = 'label' AND q.end_progress < 1)"

# For each moment of a run the picture that is nearest to it, as columns m0, m1, ...: one pass over all other pictures
# then needs only these in memory
MOMENT_PICTURES = ", ".join(
    "arg_min(e.embedding::FLOAT[256], "
    f"(abs(e.frame_index - {(k + 0.5) / MOMENTS} * c.num_frames), e.frame_index)) AS m{k}"
    for k in range(MOMENTS)
)
MOMENTS_MET = " + ".join(
    f"max(array_cosine_similarity(a.m{k}, b.embedding::FLOAT[256]))::DOUBLE" for k in range(MOMENTS)
)

VALUES = {
    **SQL_VALUES,
    "FAULTY": FAULTY,
    "FORMER_REASONS": ", ".join(map(repr, FORMER_REASONS.items())),
    "FOLLOWS_OTHERS": follows_sql("r.annotator", label=""),
    "FROM_THE_SOURCE": FROM_THE_SOURCE,
    "LOOKS_UNFINISHED": LOOKS_UNFINISHED,
    "MADE_BY": made_by_sql("annotator", "steps_from", "follows"),
    "MAX_JUMP": MAX_JUMP,
    "MAX_LENGTH_Z": MAX_LENGTH_Z,
    "MAX_MEAN_DIFFERENCE": MAX_MEAN_DIFFERENCE,
    "MAX_ORDER_RARITY": MAX_ORDER_RARITY,
    "MAY_BE_UNFINISHED": MAY_BE_UNFINISHED,
    "MIN_CONFIDENCE": MIN_CONFIDENCE,
    "MIN_ROWS_OF_COPY": MIN_ROWS_OF_COPY,
    "MIN_STEP_S": MIN_STEP_S,
    "MOMENTS": MOMENTS,
    "MOMENTS_MET": MOMENTS_MET,
    "MOMENT_PICTURES": MOMENT_PICTURES,
    "MOST_FAULTS": MOST_FAULTS,
    "MOST_WITH_STEPS": MOST_WITH_STEPS,
    "OF_LABELS": OF_LABELS,
    "UNFINISHED": UNFINISHED,
}


@dataclass(frozen=True)
class View:
    """One view; `columns` says what its own columns hold, the others are those of the tables it reads."""

    name: str
    comment: str
    sql: str
    columns: Mapping[str, str]


def read_view(name: str, file: str = "", **values: str) -> View:
    """The view `name` of the file of its name, or of `file`.sql, which `values` fill as well."""
    text = Template((FOLDER / f"{file or name}.sql").read_text()).substitute(VALUES, **values)
    header, sql = text.split("\n\n", 1)
    header = header.replace("\n--   ", " ")
    comment, *columns = (line.removeprefix("-- ") for line in header.splitlines())
    described = dict(column.split(": ", 1) for column in columns)
    # As lakes store it
    stored = "\n" + textwrap.indent(sql.rstrip("\n"), INDENT)
    return View(name, comment, stored, described)


# In an order in which each reads only tables and views before it
IN_ORDER = (
    "current_acceptances",
    "run_checks",
    "checks",
    "open_warnings",
    "current_takedowns",
    "pending_takedowns",
    "active_segments",
    "active_progress",
    "active_outcomes",
    "frame_embeddings",
    "similar_frames",
    "similar_runs",
    "review_queue",
    "current_corrections",
    "pending_corrections",
    "current_outcomes",
    "pending_outcomes",
    "current_tags",
    "current_assignments",
    "words_in_review",
    "copies",
    "current_joined_tasks",
    "current_references",
    "demonstration_quality",
    "coverage",
    "cost_by_run",
    "leaderboard",
    "label_agreement",
)
VIEWS = (
    read_view("episodes"),
    read_view("quarantine"),
    *map(read_view, (*SAID, "takedowns")),
    *(
        read_view(f"located_{table}", "located", TABLE=table)
        for table in ("statements", "corrections", "outcomes")
    ),
    *map(read_view, ("standing_statements", "current_statements")),
    *map(read_view, IN_ORDER),
)
