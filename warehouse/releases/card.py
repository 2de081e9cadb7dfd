"""A release's card, Markdown: what it holds, under which licences, made how, and what it cannot do."""

import json

from warehouse.lake import Lake
from warehouse.releases.contents import LOCAL, Contents
from warehouse.releases.licences import classify


def card(lake: Lake, name: str, snapshot: int, config_hash: str, held: Contents) -> str:
    """Of a release that was just made: the lake must be at its snapshot."""
    parts = [
        f"# Release {name}",
        f"Lake snapshot {snapshot}, content {config_hash[:16]}. Read it with `proccorpus sql --release {name}`, "
        f"check it with `proccorpus release verify {name}`.",
        _datasets(lake, held),
        _splits(held),
        "Labels come from these label runs:\n\n" + _runs(lake, held),
        "## Known limits\n\n" + "\n".join(f"- {line}" for line in _limits(lake, name, held)),
    ]
    if held.left_out:
        parts.append("## Left out\n\n" + "\n".join(f"- {x}" for x in held.left_out))
    return "\n\n".join(parts) + "\n"


def _table(head: tuple[str, ...], rows: list[tuple]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(v).replace("|", "\\|").replace("\n", " ") for v in r) + " |" for r in lines)


def _datasets(lake: Lake, held: Contents) -> str:
    rows = lake.dicts(
        "SELECT d.dataset, d.title, d.license, d.source_uri, d.source_revision, c.* EXCLUDE (dataset) FROM coverage c "
        "JOIN datasets d USING (dataset) WHERE list_contains(?, d.dataset) ORDER BY 1",
        [held.datasets],
    )
    head = ("dataset", "title", "licence", "source", "role", "episodes", "quarantined", "frames", "hours", "samples")
    samples = {d: sum(s.samples for s in held.shards if s.dataset == d) for d in held.datasets}
    return _table(
        head,
        [
            (
                r["dataset"],
                r["title"] or "",
                r["license"] or "not stated",
                _source(r["source_uri"], r["source_revision"]),
                r["role"],
                r["ok"],
                r["quarantined"],
                r["frames"],
                f"{r['hours']:.2f}",
                samples[r["dataset"]],
            )
            for r in rows
        ],
    )


def _source(uri: str | None, revision: str | None) -> str:
    """An address; a folder of the machine that built it says nothing to others."""
    if not uri or "://" not in uri:
        return "local files"
    return f"{uri} at {revision}" if revision else uri


def _splits(held: Contents) -> str:
    keys = sorted({(s.dataset, s.split) for s in held.shards})
    rows = []
    for dataset, split in keys:
        here = [s for s in held.shards if (s.dataset, s.split) == (dataset, split)]
        size = sum(s.bytes for s in here) / 1e6
        rows.append(
            (dataset, split, len(here), sum(s.episodes for s in here), sum(s.samples for s in here), f"{size:.1f}")
        )
    return _table(("dataset", "split", "shards", "episodes", "samples", "MB"), rows)


def _runs(lake: Lake, held: Contents) -> str:
    rows = lake.dicts(
        "SELECT a.dataset, r.label_run, r.annotator, r.model, r.code_version, r.params, count(*) AS episodes "
        "FROM active_runs a JOIN label_runs r USING (label_run) WHERE list_contains(?, a.dataset) GROUP BY ALL "
        "ORDER BY 1, 2",
        [held.datasets],
    )
    return "\n".join(
        f"- {r['dataset']}, {r['episodes']} episodes: `{r['label_run']}`, {r['annotator']}"
        f"{' ' + r['model'] if r['model'] else ''}, code {r['code_version']}, "
        f"parameters `{json.dumps(json.loads(r['params']))}`"
        for r in rows
    )


def _limits(lake: Lake, name: str, held: Contents) -> list[str]:
    lines = []
    rows = lake.rows(
        "SELECT d.dataset, concat_ws(' ', d.title, d.robot, d.notes), list_sort(list(DISTINCT r.annotator)) "
        "FROM datasets d JOIN active_runs a USING (dataset) JOIN label_runs r USING (label_run) "
        "WHERE list_contains(?, d.dataset) "
        "GROUP BY ALL ORDER BY 1",
        [held.datasets],
    )
    for dataset, about, annotators in rows:
        if "simulat" in about.lower():
            lines.append(f"{dataset} is simulated: its pictures are not those of a camera in the world.")
        if annotators == ["motion"]:
            lines.append(
                f"Labels of {dataset} are by motion, without a model: steps are where the robot moves or rests."
            )
        if "vlm" in annotators:
            lines.append(f"Labels of {dataset} are a model's, not checked by people except where corrected.")
    licences = lake.rows(
        "SELECT dataset, license FROM datasets WHERE list_contains(?, dataset) ORDER BY 1", [held.datasets]
    )
    why = "this release is for use here alone" if name == LOCAL else "it is here because its user allowed it"
    for dataset, stated in licences:
        licence = classify(stated)
        if licence.restricted:
            lines.append(f"{dataset} is not under an open licence ({stated}): {why}.")
        elif stated is None:
            lines.append(f"The licence of {dataset} is not known: {why}.")
    lines += [
        f"{dataset}: {n} episodes are left out for {reason}."
        for dataset, reason, n in lake.rows(
            "SELECT dataset, reason, count(*) FROM quarantine WHERE list_contains(?, dataset) GROUP BY ALL "
            "ORDER BY ALL",
            [held.datasets],
        )
    ]
    lines += [
        f"{dataset}: {files} files have warnings ({why})."
        for dataset, files, why in lake.rows(
            "SELECT dataset, count(DISTINCT coalesce(file, episode_index::VARCHAR)), "
            "string_agg(DISTINCT reason, ', ' ORDER BY reason) FROM findings WHERE severity = 'warning' "
            "AND list_contains(?, dataset) GROUP BY 1 ORDER BY 1",
            [held.datasets],
        )
    ]
    lines.append(
        "Near-copies across splits are looked for by pictures; other frame rates, mirrors and crops are not found."
    )
    return lines
