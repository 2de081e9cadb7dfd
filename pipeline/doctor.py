"""All of a workspace's health: what the warehouse's doctor sees, what a build would do, replies, servers, versions."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain, islice, product
from operator import itemgetter

import httpx

from annotate.model_client.calls import VlmError
from annotate.model_client.responses import ResponseStore
from core.paths import Workspace
from core.values import grouped
from ingest.episode import Finding
from ingest.sources.types import SourceError
from pipeline.config import DatasetBuild, last_builds, present_builds
from pipeline.plan import CURRENT, MISSING, STALE, plan
from pipeline.stage import failed_input
from pipeline.stages import Step, stage_specs
from warehouse.lake import Lake
from warehouse.lake.doctor import ERROR, WARNING, examine, rows_are_lost, trouble
from warehouse.lake.schema import checked_version

ANSWER_S = 3.0  # for a server to answer in
MOST_BLOCKED = 20  # chunks of a dataset that are looked at


def diagnose(workspace: Workspace, *, hashes: bool = False) -> list[Finding]:
    """Everything that is wrong, errors first. Changes nothing. Raises LakeError: no workspace, no usable catalog."""
    lake = Lake(workspace, read_only=True)
    with closing(lake.con):
        checked_version(lake.con, workspace)
        troubles = examine(lake, hashes=hashes)
        # A plan reads tables: no file of theirs may be lost
        if not rows_are_lost(troubles):
            troubles += [*stale(lake), *servers(lake)]
    if hashes:
        troubles += replies(workspace)
    return sorted(troubles, key=lambda t: t.severity != ERROR)


def stale(lake: Lake) -> Iterator[Finding]:
    """Datasets of which a build would do something, by the configuration that each was last built with."""
    for name, build in present_builds(lake).items():
        try:
            fingerprint = build.source(lake.workspace.sources).fingerprint()
        except (SourceError, OSError) as e:
            remedy = "built data stays usable; repair the source to continue"
            yield trouble(WARNING, "source", name, f"its source cannot be read: {e}", remedy)
            continue

        planned = plan(lake, {name: stage_specs(build)}, {name: fingerprint})
        steps = [step for step in planned if step.status != CURRENT]
        if not steps:
            continue
        # One finding a dataset, however many of its partitions are stale
        chunks = len({step.chunk for step in steps})
        counts = sorted(Counter(step.status for step in steps).items())
        kinds = ", ".join(f"{count} {status}" for status, count in counts)
        detail = f"not up to date: {len(steps)} stages of {chunks} partitions ({kinds})"
        remedy = "build it again with its last configuration"
        yield trouble(WARNING, "stale partitions", name, detail, remedy)
        yield from blocked(lake, build, steps)


def blocked(lake: Lake, build: DatasetBuild, steps: Sequence[Step]) -> Iterator[Finding]:
    """Chunks of which a build makes no more, since a check fails; `steps`: those of the dataset that are outdated."""
    outdated = (s for s in reversed(steps) if s.chunk is not None and s.status in (MISSING, STALE))
    first_steps = {step.chunk: step for step in outdated}
    for chunk, step in islice(sorted(first_steps.items(), key=itemgetter(0)), MOST_BLOCKED):
        if failed := failed_input(lake, build, step, {}):
            reason, remedy = failed
            yield trouble(ERROR, "blocked", f"{build.name} chunk {chunk}", reason, remedy)


def servers(lake: Lake) -> Iterator[Finding]:
    """Servers of models that builds of this workspace ask. (Catalog and bucket have answered by now.)"""
    asking = [build.stages.vlm for build in last_builds(lake).values() if build.annotator == "vlm"]
    pairs = chain.from_iterable(product(vlm.endpoints, vlm.models) for vlm in asking)
    for url, models in sorted(grouped(pairs).items()):
        try:
            answer = httpx.get(f"{url}/models", timeout=ANSWER_S, trust_env=False).json()
            served = {m["id"] for m in answer["data"]}
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as e:
            detail = f"does not answer: {' '.join(str(e).split()) or type(e).__name__}"
            remedy = "start it (proccorpus vlm serve) before the next build that asks it"
            yield trouble(WARNING, "model server", url, detail, remedy)
            continue
        if missing := sorted({*models} - served):
            detail = f"serves {', '.join(sorted(served))}, not {', '.join(missing)}"
            yield trouble(
                WARNING,
                "model server",
                url,
                detail,
                "serve that model, or name the one that is served",
            )


def replies(workspace: Workspace) -> Iterator[Finding]:
    """Stored replies of models that are damaged; reads them all."""
    if not workspace.responses.exists():
        return
    # The store notes what is damaged as it reads
    try:
        with closing(ResponseStore(workspace.responses)) as store:
            for _ in store.replies():
                pass
    except VlmError as e:
        yield trouble(
            ERROR,
            "replies",
            str(workspace.responses),
            str(e),
            "as it says; a build asks for what is gone",
        )
        return
    if store.damaged:
        detail = f"{len(store.damaged)} damaged, such as: {store.damaged[0]}"
        remedy = "nothing: the next build that needs these replies asks the model again"
        yield trouble(WARNING, "replies", str(workspace.responses), detail, remedy)
