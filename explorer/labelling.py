"""Labelling the other runs of a task like those that people labelled: their dataset is built as it was last."""

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from core.paths import Workspace
from explorer.access import LakeReader
from explorer.jobs import ChildJob, in_words
from warehouse.lake import LakeConnection
from warehouse.lake.references import SHOWN_BY, pending_chunks, stated_annotator

ERROR = re.compile(r"^error: (.+)$", re.MULTILINE)  # as the command line words what went wrong
BROKEN_OFF = "it was stopped before it finished"
MOST_LISTED = 50  # runs of a task that follow no reference, by number

# Runs with a usable content, by the text that stands for their task
TASKS_SQL = """
    WITH listed AS (
      SELECT f.episode_index, coalesce(j.same_as, f.task) AS task, coalesce(len(f.steps), 0) > 0 AS has_steps
      FROM episode_facts f LEFT JOIN current_joined_tasks j ON j.dataset = f.dataset AND j.task = f.task
      WHERE f.dataset = $1 AND f.episode_index IN (SELECT episode_index FROM episode_content WHERE dataset = $1)
        AND f.episode_index NOT IN (SELECT episode_index FROM findings
          WHERE dataset = $1 AND severity = 'unusable' AND episode_index IS NOT NULL)),
    shown AS (SELECT episode_index FROM current_references WHERE dataset = $1 AND content_hash IS NOT NULL),
    followed AS (SELECT a.episode_index FROM active_runs a JOIN label_runs r USING (label_run)
      WHERE a.dataset = $1 AND r.annotator = 'transfer'),
    no_fit AS (SELECT episode_index FROM findings WHERE dataset = $1 AND reason = 'transfer_no_fit')
    SELECT task, count(*) AS runs,
           coalesce(list(episode_index ORDER BY episode_index) FILTER (episode_index IN (FROM shown)), [])
             AS "references",
           count(*) FILTER (episode_index NOT IN (FROM shown)) AS others,
           count(*) FILTER (episode_index NOT IN (FROM shown) AND episode_index IN (FROM followed)) AS followed,
           coalesce(list(episode_index ORDER BY episode_index) FILTER (
             episode_index NOT IN (FROM shown) AND episode_index IN (FROM no_fit)), []) AS no_fit,
           bool_and(has_steps) AS by_source
    FROM listed GROUP BY 1 ORDER BY runs DESC, task"""
TASK_OF_SQL = """
    SELECT coalesce(j.same_as, f.task) FROM episode_facts f
    LEFT JOIN current_joined_tasks j ON j.dataset = f.dataset AND j.task = f.task
    WHERE f.dataset = ? AND f.episode_index = ?"""

DONE_SQL = """
    SELECT count(*), arg_max(stage, finished_at) FROM stage_runs
    WHERE dataset = ? AND chunk >= 0 AND stage <> 'episodes' AND finished_at >= ?"""


@dataclass(frozen=True)
class TaskRuns:
    """The usable runs of a task.

    references: runs that show the others how it goes; others: how many runs are none. followed: of those, how many have
    a label that follows a reference. no_fit: those that follow none. by_source: the source brings steps of all runs.
    """

    task: str | None
    runs: int
    references: list[int]
    others: int
    followed: int
    no_fit: list[int]
    by_source: bool

    @property
    def can_be_shown(self) -> bool:
        """Is there a run that could be labelled like another?"""
        return self.runs > 1 and not self.by_source

    def facts(self) -> dict[str, Any]:
        return asdict(self) | {"no_fit": self.no_fit[:MOST_LISTED], "num_no_fit": len(self.no_fit)}


def knows_references(reader: LakeReader) -> bool:
    """Is the lake of a version that knows corrections, and references made of them?"""
    return reader.has_view("current_references") and reader.has_view("pending_corrections")


def shown_tasks(reader: LakeReader, dataset: str) -> list[TaskRuns]:
    """The tasks of a dataset, that of most runs first; none of a lake of before references."""
    if not knows_references(reader):
        return []
    return [TaskRuns(**row) for row in reader.dicts(TASKS_SQL, dataset)]


def task_of(reader: LakeReader, dataset: str, episode_index: int) -> str | None:
    """The text that stands for the task of an episode."""
    row = reader.row(TASK_OF_SQL, dataset, episode_index)
    return row[0] if row else None


def why_unused(reader: LakeReader, dataset: str) -> str | None:
    """Why a build of the dataset, as it is kept, would not follow references; None: it does."""
    row = reader.row("SELECT config FROM build_configs WHERE dataset = ?", dataset)
    if row is None:
        return f"the lake does not know the source of {dataset}: build it once with proccorpus build"
    stated = stated_annotator(row[0])
    if stated in SHOWN_BY:
        return None
    return (
        f"{dataset} is built with the annotator {stated}, which follows no references: "
        f"proccorpus build --dataset {dataset} --annotator transfer"
    )


def num_unbuilt(reader: LakeReader, dataset: str) -> int:
    """How many runs of a dataset people judged since its last build."""
    rows = reader.rows("SELECT count(DISTINCT episode_index) FROM pending_corrections WHERE dataset = ?", dataset)
    return rows[0][0]


def num_waiting(space: Workspace, reader: LakeReader, dataset: str) -> int:
    """How many chunks of a dataset the next build labels anew."""
    return len(pending_chunks(LakeConnection(space, reader.con), dataset))


@dataclass
class Labelling:
    """The one build that pages of this workspace start. For use by several threads."""

    space: Workspace
    job: ChildJob

    def start(self, dataset: str) -> None:
        """Build a dataset of the lake as it was built last. Raises PageError: one is running."""
        of = self.job.about().get("dataset", "another dataset")
        arguments = [*command(self.space, dataset), f"--events={self.job.file('events')}"]
        about = {"dataset": dataset, "started_at": datetime.now(UTC).isoformat()}
        self.job.start(arguments, about, f"runs of {of} are being labelled: one build at a time")

    def state(self, reader: LakeReader) -> dict[str, Any]:
        """How far the newest one is, whoever started it; `dataset` None: there was none.

        stages: of the build's plan; None before it is made. done: those in the lake by now; last: the newest of them.
        error: why it failed, in words.
        """
        # Whether it runs is asked first: what it writes at its end is there once it does not
        running = self.job.running
        about = self.job.about()
        if not about:
            return {"dataset": None, "running": False}
        events = self.job.events()
        ends = [e["exit_code"] for e in events if e["event"] == "end"]
        started_at = datetime.fromisoformat(about["started_at"])
        done, last = reader.rows(DONE_SQL, about["dataset"], started_at)[0]
        return {
            "dataset": about["dataset"],
            "running": running,
            "seconds": (datetime.now(UTC) - started_at).total_seconds(),
            "stages": next((e["stages"] for e in events if e["event"] == "plan"), None),
            "done": done,
            "last": last,
            "error": None if running or ends == [0] else self._error(),
            "command": in_words(command(self.space, about["dataset"])),
        }

    def _error(self) -> str:
        return "; ".join(ERROR.findall(self.job.log())) or BROKEN_OFF


def command(space: Workspace, dataset: str) -> list[str]:
    """The arguments of `proccorpus`."""
    return ["build", f"--dataset={dataset}", f"--workspace={space.root}"]
