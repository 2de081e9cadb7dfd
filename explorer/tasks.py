"""The tasks of a dataset: which runs show how they go, and how many others are labelled like them."""

from typing import Any

from core.files import queries_of
from explorer.access import LakeReader
from explorer.episode import build_config
from explorer.site import Visit
from warehouse.lake.references import SHOWN_BY, stated_annotator

MOST_TASKS = 20  # of a dataset, and datasets, that are listed to be labelled by showing
MOST_LISTED = 50  # runs of a task that follow no reference, by number

[TASKS_SQL] = queries_of(__file__)


def shown_tasks(reader: LakeReader, dataset: str) -> list[dict[str, Any]]:
    """The tasks of a dataset, that of most runs first."""
    return reader.dicts(TASKS_SQL, dataset, MOST_LISTED)


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
