"""A release's card, Markdown: what it holds, under which licences, made how, and what it cannot do."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from core.version import VERSION
from warehouse.lake import Lake
from warehouse.lake.labels import gate_counts
from warehouse.lake.near_duplicates import not_looked_at
from warehouse.lake.outcomes import question
from warehouse.releases.contents import LOCAL, Contents, ShardFile
from warehouse.releases.licences import classify


def card(lake: Lake, name: str, snapshot: int, config_hash: str, held: Contents) -> str:
    """Of a release that was just made: the lake must be at its snapshot."""
    parts = [
        f"# Release {name}",
        f"Lake snapshot {snapshot}, content {config_hash[:16]}, by proccorpus {VERSION}. "
        f"Read it with `proccorpus sql --release {name}`, check it with `proccorpus release verify {name}`.",
        _datasets(lake, held),
        _splits(held),
        "Labels come from these label runs:\n\n" + _label_runs(lake, held),
    ]
    # What to cite for each dataset whose registry entry says it, as it was built
    sql = "SELECT dataset, config FROM build_configs WHERE list_contains(?, dataset) ORDER BY 1"
    stated = [(dataset, json.loads(config)["dataset"].get("citation")) for dataset, config in _rows(lake, held, sql)]
    if citations := [f"{dataset}: {' '.join(citation.split())}" for dataset, citation in stated if citation]:
        parts.append("## Citations\n\n" + _bullets(citations))
    parts.append("## Known limits\n\n" + _bullets(_limits(lake, name, held)))
    if held.left_out:
        parts.append("## Left out\n\n" + _bullets(map(str, held.left_out)))
    return "\n\n".join(parts) + "\n"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def markdown_table(columns: Collection[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells] for cells in (columns, *rows)]
    head, *rest = (f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([head, f"|{'---|' * len(columns)}", *rest])


def _rows(lake: Lake, held: Contents, sql: str) -> list[tuple]:
    """The rows of a query with the names of the datasets as its one parameter."""
    return lake.rows(sql, [held.datasets])


def _datasets(lake: Lake, held: Contents) -> str:
    datasets = lake.dicts(
        "SELECT d.dataset, coalesce(d.title, '') AS title, coalesce(d.license, 'not stated') AS licence, "
        # An address; a folder of the machine that built it says nothing to others
        "CASE WHEN contains(d.source_uri, '://') THEN concat_ws(' at ', d.source_uri, d.source_revision) "
        "ELSE 'local files' END AS source, c.role, c.ok AS episodes, c.quarantined, c.frames, "
        "format('{:.2f}', c.hours) AS hours FROM coverage c "
        "JOIN datasets d USING (dataset) WHERE list_contains(?, d.dataset) ORDER BY 1",
        [held.datasets],
    )
    samples = Counter[str]()
    for shard in held.shards:
        samples[shard.dataset] += shard.samples
    return markdown_table((*datasets[0], "samples"), [(*d.values(), samples[d["dataset"]]) for d in datasets])


def _splits(held: Contents) -> str:
    shards_of: dict[tuple[str, str], list[ShardFile]] = {}
    for shard in held.shards:
        shards_of.setdefault((shard.dataset, shard.split), []).append(shard)
    rows = []
    for (dataset, split), shards in sorted(shards_of.items()):
        episodes, samples = sum(s.episodes for s in shards), sum(s.samples for s in shards)
        megabytes = sum(s.bytes for s in shards) / 1e6
        rows.append((dataset, split, len(shards), episodes, samples, f"{megabytes:.1f}"))
    return markdown_table(("dataset", "split", "shards", "episodes", "samples", "MB"), rows)


def _label_runs(lake: Lake, held: Contents) -> str:
    runs = lake.dicts(
        "SELECT a.dataset, r.label_run, r.annotator, r.model, r.code_version, r.params, count(*) AS episodes, "
        "count(*) FILTER (r.annotator = 'vlm' AND (a.dataset, a.episode_index, a.label_run) IN "
        "(SELECT (dataset, episode_index, label_run) FROM alignments)) AS followers "
        "FROM active_runs a JOIN label_runs r USING (label_run) WHERE list_contains(?, a.dataset) GROUP BY ALL "
        "ORDER BY 1, 2",
        [held.datasets],
    )
    return _bullets(
        f"{run['dataset']}, {run['episodes']} episodes: `{run['label_run']}`, "
        f"{' '.join(filter(None, (run['annotator'], run['model'])))}"
        f"{f', {run["followers"]} like those that it was asked about' if run['followers'] else ''}, "
        f"code {run['code_version']}, "
        f"parameters `{json.dumps(json.loads(run['params']))}`"
        for run in runs
    )


def _limits(lake: Lake, name: str, held: Contents) -> Iterator[str]:
    """What a reader must know before using the release, a sentence each."""
    yield from _limits_of_labels(lake, held)
    # What of the labels is not in the samples, since they were not sure enough or have no names of steps
    for dataset, counts in gate_counts(lake.con).items():
        yield from (f"{dataset}: {text}." for text in counts.sentences() if dataset in held.datasets)
    yield from _limits_of_outcomes(lake, held)
    yield from _limits_of_licences(lake, name, held)
    yield from _limits_of_episodes(lake, held)
    yield (
        "Near-copies across splits are looked for by pictures; mirrors, crops, and within one dataset "
        "other frame rates are not found."
    )
    if why := not_looked_at(lake, held.datasets):
        yield f"Copies of another dataset's runs at another frame rate were not looked for: {why}."


def _limits_of_labels(lake: Lake, held: Contents) -> Iterator[str]:
    # Limits are read off what the registry says of a dataset and who labelled it
    sql = (
        "SELECT d.dataset, concat_ws(' ', d.title, d.robot, d.notes), list_sort(list(DISTINCT r.annotator)) "
        "FROM datasets d JOIN active_runs a USING (dataset) JOIN label_runs r USING (label_run) "
        "WHERE list_contains(?, d.dataset) GROUP BY ALL ORDER BY 1"
    )
    for dataset, about, annotators in _rows(lake, held, sql):
        if "simulat" in about.lower():
            yield f"{dataset} is simulated: its pictures are not those of a camera in the world."
        if annotators == ["motion"]:
            yield f"Labels of {dataset} are by motion, without a model: steps are where the robot moves or rests."
        if "vlm" in annotators:
            yield f"Labels of {dataset} are a model's, not checked by people except where corrected."


def _limits_of_outcomes(lake: Lake, held: Contents) -> Iterator[str]:
    sql = (
        "SELECT dataset, ok, assumed_complete, look_unfinished FROM coverage WHERE list_contains(?, dataset) ORDER BY 1"
    )
    for dataset, episodes, assumed, unfinished in _rows(lake, held, sql):
        if assumed:
            share = f"{assumed} of {episodes} episodes"
            yield f"{dataset}: nothing says how {share} ended; their labels assume that the task was completed."
        if text := question(dataset, unfinished, episodes):
            yield f"{text} before their labels are trusted."


def _limits_of_licences(lake: Lake, name: str, held: Contents) -> Iterator[str]:
    why = "this release is for use here alone" if name == LOCAL else "it is here because its user allowed it"
    sql = "SELECT dataset, license FROM datasets WHERE list_contains(?, dataset) ORDER BY 1"
    for dataset, stated in _rows(lake, held, sql):
        if classify(stated).restricted:
            yield f"{dataset} is not under an open licence ({stated}): {why}."
        elif stated is None:
            yield f"The licence of {dataset} is not known: {why}."


def _limits_of_episodes(lake: Lake, held: Contents) -> Iterator[str]:
    sql = "SELECT dataset, reason, count(*) FROM quarantine WHERE list_contains(?, dataset) GROUP BY ALL ORDER BY ALL"
    for dataset, reason, episodes in _rows(lake, held, sql):
        yield f"{dataset}: {episodes} episodes are left out for {reason}."
    sql = (
        "SELECT dataset, count(DISTINCT coalesce(file, episode_index::VARCHAR)), "
        "string_agg(DISTINCT reason, ', ' ORDER BY reason) FROM findings WHERE severity = 'warning' "
        "AND list_contains(?, dataset) GROUP BY 1 ORDER BY 1"
    )
    for dataset, files, reasons in _rows(lake, held, sql):
        yield f"{dataset}: {files} files have warnings ({reasons})."
