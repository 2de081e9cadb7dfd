"""The tasks of a dataset: which runs show how they go, and how many others are labelled like them."""

from typing import Any

from explorer.access import LakeReader
from explorer.episode import build_config
from explorer.site import Visit
from warehouse.lake.references import SHOWN_BY, stated_annotator

MOST_TASKS = 20  # of a dataset, and datasets, that are listed to be labelled by showing
MOST_LISTED = 50  # runs of a task that follow no reference, by number

# Runs with a usable content, by the text that stands for their task. references: runs that show the others how it goes;
# others: how many are none; followed: of those, how many have a label that follows a reference; no_fit: those that
# follow none; by_source: the source brings steps of all runs; can_be_shown: could a run be labelled like another?
TASKS_SQL = f"""
    WITH listed AS (
      SELECT f.episode_index, coalesce(j.same_as, f.task) AS task, coalesce(len(f.steps), 0) > 0 AS has_steps
      FROM episode_facts f LEFT JOIN current_joined_tasks j ON j.dataset = f.dataset AND j.task = f.task
      WHERE f.dataset = $1 AND f.episode_index IN (SELECT episode_index FROM episode_content WHERE dataset = $1)
        AND f.episode_index NOT IN (SELECT episode_index FROM findings
          WHERE dataset = $1 AND severity = 'unusable' AND episode_index IS NOT NULL)),
    shown AS (SELECT episode_index FROM current_references WHERE dataset = $1 AND content_hash IS NOT NULL),
    followed AS (SELECT a.episode_index FROM active_runs a JOIN label_runs r USING (label_run)
      WHERE a.dataset = $1 AND r.annotator = 'transfer'),
    no_fit AS (SELECT episode_index FROM findings WHERE dataset = $1 AND reason = 'transfer_no_fit'),
    counted AS (
      SELECT task, count(*) AS runs,
             coalesce(list(episode_index ORDER BY episode_index) FILTER (episode_index IN (FROM shown)), [])
               AS "references",
             count(*) FILTER (episode_index NOT IN (FROM shown)) AS others,
             count(*) FILTER (episode_index NOT IN (FROM shown) AND episode_index IN (FROM followed)) AS followed,
             coalesce(list(episode_index ORDER BY episode_index) FILTER (
               episode_index NOT IN (FROM shown) AND episode_index IN (FROM no_fit)), []) AS no_fit,
             bool_and(has_steps) AS by_source
      FROM listed GROUP BY 1)
    SELECT * REPLACE (no_fit[:{MOST_LISTED}] AS no_fit), len(no_fit) AS num_no_fit,
           runs > 1 AND NOT by_source AS can_be_shown FROM counted ORDER BY runs DESC, task"""


def shown_tasks(reader: LakeReader, dataset: str) -> list[dict[str, Any]]:
    """The tasks of a dataset, that of most runs first."""
    return reader.dicts(TASKS_SQL, dataset)


def listed_tasks(visit: Visit, dataset: str) -> list[dict[str, Any]]:
    """The tasks of a dataset whose runs can be labelled like others; counted once for each index."""
    tasks = visit.index.once(("tasks", dataset), lambda: shown_tasks(visit.reader, dataset))
    return [task for task in tasks if task["can_be_shown"]]


def why_unused(reader: LakeReader, dataset: str) -> str | None:
    """Why a build of the dataset, as it is kept, would not follow references; None: it does."""
    config = build_config(reader, dataset)
    if config is None:
        return (
            f"the lake does not know the source of {dataset}: build it once with proccorpus build"
        )
    annotator = stated_annotator(config)
    if annotator in SHOWN_BY:
        return None
    return (
        f"{dataset} is built with the annotator {annotator}, which follows no references: "
        f"proccorpus build --dataset {dataset} --annotator transfer"
    )
