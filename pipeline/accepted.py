"""What `inspect` finds in a dataset that is built here, without the oddities that people accepted."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.paths import Workspace
from core.values import grouped
from ingest.sources.types import address_below
from pipeline.config import stored_build
from warehouse.lake.acceptances import listed
from warehouse.lake.lake import lake_to_read

Findings = Sequence[dict[str, Any]]


def set_apart(result: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    """A result of `inspect_source` whose `findings` are without accepted ones; these are `accepted`, with who and why.

    Datasets are known by their source, episodes by their numbers of now. Raises LakeError: the workspace's lake cannot
    be read.
    """
    lake = lake_to_read(workspace)
    by_dataset = grouped((row["dataset"], row) for row in listed(lake))
    builds = [stored_build(lake, name) for name in by_dataset]
    lake.con.close()
    by_source = {build.dataset.source: by_dataset[build.name] for build in builds if build}
    path = result["path"] if "://" in result["path"] else str(Path(result["path"]).resolve())
    unaccepted, accepted = _parted(path, result["findings"], by_source)
    rows = [
        row | {"findings": _parted(path, row["findings"], by_source)[0]}
        for row in result.get("datasets", [])
    ]
    pictured = _without(
        result.get("pictured", []), {(f["reason"], f["episode_index"]) for f in accepted}
    )
    changed = {"findings": unaccepted, "accepted": accepted, "pictured": pictured}
    return result | changed | ({"datasets": rows} if rows else {})


def _without(pictured: Findings, accepted: Collection[tuple[str, int | None]]) -> Findings:
    """Runs with the stretches that nobody accepted; none that has no other."""
    runs = []
    for run in pictured:
        stretches = [
            s for s in run["stretches"] if (s["check_name"], run["episode_index"]) not in accepted
        ]
        if stretches:
            runs.append(run | {"stretches": stretches})
    return runs


def _parted(
    path: str, findings: Findings, by_source: Mapping[str, Findings]
) -> tuple[Findings, Findings]:
    """Findings that nobody accepted, and those that somebody did."""
    unaccepted = []
    accepted = []
    for finding in findings:
        of_dataset = by_source.get(
            address_below(path, finding["folder"]) if finding.get("folder") else path, []
        )
        word = next((word for word in of_dataset if _is_of(word, finding)), None)
        if word is None:
            unaccepted.append(finding)
        else:
            accepted.append(finding | {"accepted_by": word["author"], "accepted_why": word["why"]})
    return unaccepted, accepted


def _is_of(word: Mapping[str, Any], finding: Mapping[str, Any]) -> bool:
    is_its_run = word["episode_index"] in (None, finding["episode_index"])
    return (
        is_its_run and finding["severity"] == "warning" and word["check_name"] == finding["reason"]
    )
