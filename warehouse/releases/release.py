"""Releases: a corpus frozen under a name: a lake snapshot, a shard list and a card; and is all of it still so?"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from core.annotators import follows_sql
from core.files import sha256_file, write_file
from core.names import LATEST, did_you_mean
from core.paths import Workspace
from core.tables import TABLES
from core.version import VERSION
from ingest.episode import Finding
from warehouse.lake import Lake, LakeError, content_key
from warehouse.lake.acceptances import counts_by_dataset, in_words
from warehouse.lake.checks import GUARDS, corpus_is_sound
from warehouse.lake.near_duplicates import not_looked_at
from warehouse.lake.outcomes import question
from warehouse.lake.stored import gate_counts
from warehouse.lake.views import UNFINISHED
from warehouse.releases.contents import (
    LOCAL,
    SHARD_COLUMNS,
    Contents,
    ReleaseError,
    ShardFile,
    classify,
    contents,
    freeze_command,
)
from warehouse.shards.check import check_shard, glance


def card(lake: Lake, name: str, snapshot: int, config_hash: str, release_contents: Contents) -> str:
    """Of a release that was just made: the lake must be at its snapshot."""
    parts = [
        f"# Release {name}",
        f"Lake snapshot {snapshot}, content {config_hash[:16]}, by proccorpus {VERSION}. "
        + use_here(name),
        _datasets(lake, release_contents),
        _splits(lake, release_contents),
        "Labels come from these label runs:\n\n" + _label_runs(lake, release_contents),
    ]
    # What to cite for each dataset whose registry entry says it, as it was built
    sql = "SELECT dataset, config FROM build_configs WHERE list_contains(?, dataset) ORDER BY 1"
    citation_texts = [
        (dataset, json.loads(config)["dataset"].get("citation"))
        for dataset, config in lake.rows(sql, [release_contents.datasets])
    ]
    if citations := [
        f"{dataset}: {' '.join(citation.split())}"
        for dataset, citation in citation_texts
        if citation
    ]:
        parts.append("## Citations\n\n" + _bullets(citations))
    parts.append("## Known limits\n\n" + _bullets(_limits(lake, name, release_contents)))
    if release_contents.left_out:
        parts.append("## Left out\n\n" + _bullets(map(str, release_contents.left_out)))
    return "\n\n".join(parts) + "\n"


def use_here(name: str) -> str:
    """How to read and check a release in the workspace that froze it."""
    return f"Read it with `proccorpus sql --release {name}`, check it with `proccorpus release verify {name}`."


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def markdown_table(columns: Collection[str], rows: Iterable[Iterable[Any]]) -> str:
    head, *body_rows = map(_table_line, (columns, *rows))
    return "\n".join([head, f"|{'---|' * len(columns)}", *body_rows])


def _table_line(cells: Iterable[Any]) -> str:
    texts = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells]
    return f"| {' | '.join(texts)} |"


# Common table expressions: the episodes with samples in the shards $1, by the label run that these are of; and the
# chunks that such shards are of, whose other episodes have no samples
HELD = """
WITH held AS (
  SELECT DISTINCT s.dataset, s.episode_index, s.label_run FROM samples s
  JOIN sample_location l USING (dataset, chunk, sample_id) WHERE list_contains($1, l.shard)),
chunks AS (SELECT DISTINCT dataset, chunk FROM shards WHERE list_contains($1, shard))"""
# Per dataset what a release holds, of how many episodes its source lists. A folder of the machine that built it says
# nothing to others
HELD_DATASETS = f"""
{HELD}, counted AS (
  SELECT dataset, count(*) AS episodes, sum(num_frames)::BIGINT AS frames, sum(duration_s) / 3600 AS hours
  FROM episodes SEMI JOIN held USING (dataset, episode_index) GROUP BY dataset)
SELECT dataset, coalesce(d.title, '') AS title, coalesce(d.license, 'not stated') AS licence,
       CASE WHEN contains(d.source_uri, '://') THEN concat_ws(' at ', d.source_uri, d.source_revision)
       ELSE 'local files' END AS source, d.role, c.episodes,
       (SELECT count(*) FROM episode_facts f WHERE f.dataset = d.dataset) AS listed,
       c.frames, format('{{:.2f}}', c.hours) AS hours,
       (SELECT sum(samples)::BIGINT FROM shards s WHERE s.dataset = d.dataset AND list_contains($1, s.shard)) AS samples
FROM counted c JOIN datasets d USING (dataset) ORDER BY 1"""
# Label runs of the episodes that a release holds; followers: labels that came from runs like them
HELD_LABEL_RUNS = f"""
{HELD}
SELECT h.dataset, r.label_run, r.annotator, r.model, r.code_version, r.params, count(*) AS episodes,
       count(*) FILTER ({follows_sql("r.annotator", label="h")}) AS followers
FROM held h JOIN label_runs r USING (label_run) GROUP BY ALL ORDER BY 1, 2"""
# Of how many held episodes the end is assumed, or looks unfinished
HELD_OUTCOMES = f"""
{HELD}
SELECT dataset, count(*), count(*) FILTER (q.end_by = 'assumed'), count(*) FILTER (e.success IS NULL AND {UNFINISHED})
FROM held JOIN episodes e USING (dataset, episode_index)
LEFT JOIN label_quality q USING (dataset, episode_index, label_run) GROUP BY 1 ORDER BY 1"""
# Held runs by check that found a fault in them which nobody accepted
HELD_FAULTS = f"""
{HELD}
SELECT c.dataset, check_name, count(DISTINCT episode_index) AS runs FROM checks c
SEMI JOIN held USING (dataset, episode_index) WHERE NOT is_accepted GROUP BY ALL ORDER BY 1, 3 DESC, 2"""

# Limits are read off what the registry says of a dataset and who labelled the episodes that are held
HELD_ANNOTATORS = f"""
{HELD}
SELECT dataset, concat_ws(' ', d.title, d.robot, d.notes), list_sort(list(DISTINCT r.annotator))
FROM held JOIN datasets d USING (dataset) JOIN label_runs r USING (label_run) GROUP BY ALL ORDER BY 1"""
# What cannot be used of the chunks that are held, or of a dataset as a whole
HELD_QUARANTINE = f"""
{HELD}
SELECT q.dataset, q.reason, count(*) FROM quarantine q JOIN datasets d USING (dataset)
WHERE (q.dataset, (q.episode_index // d.chunk_size)::INTEGER) IN (SELECT (dataset, chunk) FROM chunks)
   OR q.episode_index IS NULL AND q.dataset IN (SELECT dataset FROM chunks)
GROUP BY ALL ORDER BY ALL"""
# Warnings about held episodes, and about files of a dataset as a whole
HELD_WARNINGS = f"""
{HELD}
SELECT f.dataset, count(DISTINCT coalesce(f.file, f.episode_index::VARCHAR)),
       string_agg(DISTINCT f.reason, ', ' ORDER BY f.reason)
FROM open_warnings f
WHERE NOT EXISTS (FROM run_checks k WHERE k.dataset = f.dataset AND k.episode_index = f.episode_index
                  AND k.check_name = f.reason)
  AND ((f.dataset, f.episode_index) IN (SELECT (dataset, episode_index) FROM held)
   OR f.episode_index IS NULL AND f.dataset IN (SELECT dataset FROM chunks))
GROUP BY 1 ORDER BY 1"""


def held_faults(lake: Lake, release_contents: Contents) -> dict[str, dict[str, int]]:
    """By dataset and check in how many of its runs that a release holds nobody accepted what it found."""
    return counts_by_dataset(lake.rows(HELD_FAULTS, [release_contents.shard_names]))


def _datasets(lake: Lake, release_contents: Contents) -> str:
    datasets = lake.dicts(HELD_DATASETS, [release_contents.shard_names])
    return markdown_table(datasets[0], map(dict.values, datasets))


def _splits(lake: Lake, release_contents: Contents) -> str:
    rows = lake.rows(
        "SELECT dataset, split, count(*), sum(episodes), sum(samples), format('{:.1f}', sum(bytes) / 1e6) FROM shards "
        "WHERE list_contains(?, shard) GROUP BY ALL ORDER BY 1, 2",
        [release_contents.shard_names],
    )
    return markdown_table(("dataset", "split", "shards", "episodes", "samples", "MB"), rows)


def _label_runs(lake: Lake, release_contents: Contents) -> str:
    return _bullets(
        f"{run['dataset']}, {run['episodes']} episodes: `{run['label_run']}`, "
        f"{' '.join(filter(None, (run['annotator'], run['model'])))}"
        f"{f', {run["followers"]} like those that it was asked about' if run['followers'] else ''}, "
        f"code {run['code_version']}, "
        f"parameters `{json.dumps(json.loads(run['params']))}`"
        for run in lake.dicts(HELD_LABEL_RUNS, [release_contents.shard_names])
    )


def _limits(lake: Lake, name: str, release_contents: Contents) -> Iterator[str]:
    """What a reader must know before using the release, a sentence each."""
    yield from _limits_of_labels(lake, release_contents)
    # What of the labels is not in the samples, since they were not sure enough or have no names of steps
    for dataset, counts in gate_counts(lake.con, release_contents.shard_names).items():
        yield from (f"{dataset}: {text}." for text in counts.sentences())
    yield from _limits_of_outcomes(lake, release_contents)
    yield from _limits_of_licences(lake, name, release_contents)
    yield from _limits_of_episodes(lake, release_contents)
    for dataset, counts in held_faults(lake, release_contents).items():
        yield f"{dataset}: checks found faults that nobody accepted: {in_words(counts)}."
    yield (
        "Near-copies across splits are looked for by pictures; mirrors, crops, and within one dataset "
        "other frame rates are not found."
    )
    if reason := not_looked_at(lake, release_contents.datasets):
        yield f"Copies of another dataset's runs at another frame rate were not looked for: {reason}."


def _limits_of_labels(lake: Lake, release_contents: Contents) -> Iterator[str]:
    for dataset, about, annotators in lake.rows(HELD_ANNOTATORS, [release_contents.shard_names]):
        if "simulat" in about.lower():
            yield f"{dataset} is simulated: its pictures are not those of a camera in the world."
        if annotators == ["motion"]:
            yield f"Labels of {dataset} are by motion, without a model: steps are where the robot moves or rests."
        if "vlm" in annotators:
            yield f"Labels of {dataset} are a model's, not checked by people except where corrected."


def _limits_of_outcomes(lake: Lake, release_contents: Contents) -> Iterator[str]:
    for dataset, episodes, assumed, unfinished in lake.rows(
        HELD_OUTCOMES, [release_contents.shard_names]
    ):
        if assumed:
            share = f"{assumed} of {episodes} episodes"
            yield f"{dataset}: nothing says how {share} ended; their labels assume that the task was completed."
        if text := question(dataset, unfinished, episodes):
            yield f"{text} before their labels are trusted."


def _limits_of_licences(lake: Lake, name: str, release_contents: Contents) -> Iterator[str]:
    if name == LOCAL:
        reason = "this release is for use here alone"
    else:
        reason = "it is here because its user allowed it"
    sql = "SELECT dataset, license FROM datasets WHERE list_contains(?, dataset) ORDER BY 1"
    for dataset, licence_text in lake.rows(sql, [release_contents.datasets]):
        if classify(licence_text).restricted:
            yield f"{dataset} is not under an open licence ({licence_text}): {reason}."
        elif licence_text is None:
            yield f"The licence of {dataset} is not known: {reason}."


def _limits_of_episodes(lake: Lake, release_contents: Contents) -> Iterator[str]:
    for dataset, reason, episodes in lake.rows(HELD_QUARANTINE, [release_contents.shard_names]):
        yield f"{dataset}: {episodes} episodes are left out for {reason}."
    for dataset, files, reasons in lake.rows(HELD_WARNINGS, [release_contents.shard_names]):
        yield f"{dataset}: {files} files have warnings ({reasons})."


NAME = re.compile(r"^[a-z0-9][a-z0-9._-]*$")


@dataclass(frozen=True)
class Release:
    """`config_hash` is over the shards and the configurations behind them: equal content, equal hash.

    `card_sha256`: None of a release that an earlier version froze.
    """

    name: str
    snapshot: int
    config_hash: str
    shard_list: tuple[ShardFile, ...]
    card_sha256: str | None = None

    @property
    def shard_names(self) -> list[str]:
        return [shard.shard for shard in self.shard_list]

    def shards(self, *splits: str) -> list[ShardFile]:
        """Those of some splits, in order of name."""
        return [s for s in self.shard_list if s.split in splits]

    def paths(self, workspace: Workspace, *splits: str) -> list[Path]:
        return [s.path(workspace) for s in self.shards(*splits)]


def content_hash(lake: Lake, release_contents: Contents) -> str:
    """What a release of these contents holds, whatever its name."""
    configs = lake.rows(
        "SELECT dataset, config_hash FROM build_configs WHERE list_contains(?, dataset) ORDER BY 1",
        [release_contents.datasets],
    )
    shards = [f"{s.shard} {s.sha256}" for s in release_contents.shards]
    return content_key("configs", *chain.from_iterable(configs), "shards", *shards)


def find_release(lake: Lake, name: str | None = None) -> Release | None:
    """A release by name, or the newest one (no name, or `latest`); None when there is none."""
    if name not in (None, "", LATEST):
        condition, values = ("WHERE name = ?", [name])
    else:
        condition, values = ("", [])
    rows = lake.rows(
        f"SELECT name, snapshot, config_hash, card_sha256 FROM releases {condition} ORDER BY created_at DESC LIMIT 1",
        values,
    )
    if not rows:
        return None
    [(release, snapshot, config_hash, card_sha256)] = rows
    shards = lake.rows(
        f"SELECT {SHARD_COLUMNS} FROM release_shards WHERE name = ? ORDER BY shard", [release]
    )
    return Release(
        release, snapshot, config_hash, tuple(ShardFile(*s) for s in shards), card_sha256
    )


# A name that was given to a release; those of earlier versions are known by the models and scores that name them
USED = """
SELECT 1 FROM (SELECT name FROM deleted_releases UNION ALL SELECT release FROM training_runs
               UNION ALL SELECT release FROM eval_runs) WHERE name = ? LIMIT 1"""
EXPORTS = "exports/*/manifest.json"  # in a workspace


def get_release(lake: Lake, name: str | None = None) -> Release:
    """As find_release; raises ReleaseError when there is none."""
    release = find_release(lake, name)
    if release is None:
        if not name or name == LATEST:
            freeze = freeze_command(
                lake.column("SELECT license FROM datasets ORDER BY dataset"), ()
            )
            raise ReleaseError(f"there is no release yet: proccorpus {freeze}")
        names = lake.column("SELECT name FROM releases ORDER BY 1")
        available_releases = f"{', '.join(names) or 'none yet'}{did_you_mean(name, names)}"
        raise ReleaseError(f"there is no release {name!r}; releases: {available_releases}")
    return release


def release_faults(lake: Lake, release: Release) -> dict[str, dict[str, int]]:
    """As `held_faults`, of a release that is frozen."""
    with closing(Lake(lake.workspace, read_only=True, snapshot=release.snapshot).con) as con:
        rows = con.execute(HELD_FAULTS, [release.shard_names]).fetchall()
    return counts_by_dataset(rows)


def local_release(lake: Lake) -> Release:
    """The corpus as it is, whatever its licences, for training and scoring here: named `local`,
    never published.

    Raises ReleaseError.
    """
    release_contents = contents(lake, None)
    existing = find_release(lake, LOCAL)
    if existing and existing.config_hash == content_hash(lake, release_contents):
        return existing
    return create_release(lake, LOCAL, replace=True, release_contents=release_contents)


def create_release(
    lake: Lake,
    name: str,
    *,
    allow: Collection[str] = (),
    replace: bool = False,
    release_contents: Contents | None = None,
) -> Release:
    """Freeze the corpus as it is now under a name; writes the card. Raises ReleaseError.

    Datasets whose licence is not open stay out, unless `allow` names it. The release's snapshot is
    the one that records it. Shards it names are never swept away. `release_contents`: what
    `contents(lake, allow)` said just before.
    """
    if not NAME.match(name):
        raise ReleaseError(f"a release is named with a-z, 0-9, '.', '_' and '-', not {name!r}")
    if name == LATEST:
        raise ReleaseError(
            f"{LATEST} stands for the newest release, whatever its name: choose another name"
        )
    # A release is quoted by its name, so the name keeps its content; only `replace` gives it another
    if not replace and find_release(lake, name):
        raise ReleaseError(
            f"the release {name} exists, and releases do not change: choose another name"
        )
    if not replace and lake.rows(USED, [name]):
        raise ReleaseError(
            f"there was a release {name} before, which models, scores or others may name: choose another name"
        )
    release_contents = release_contents or contents(lake, allow)
    # nothing is frozen that is not whole: the shards' files, the splits, the tables
    _check(lake, release_contents)
    config_hash = content_hash(lake, release_contents)

    # The card names its snapshot, which is known only inside the commit that freezes the release
    def write(snapshot: int) -> dict[str, str]:
        data = card(lake, name, snapshot, config_hash, release_contents).encode()
        write_file(card_path(lake.workspace, name), data)
        return {"card_sha256": hashlib.sha256(data).hexdigest()}

    lake.freeze(
        release={"name": name, "config_hash": config_hash, "created_at": datetime.now(UTC)},
        shards=TABLES["release_shards"].rows(
            [{"name": name} | asdict(s) for s in release_contents.shards]
        ),
        write=write,
        stand_ins=release_contents.stand_ins,
    )
    lake.back_up()
    return get_release(lake, name)


def _check(lake: Lake, release_contents: Contents) -> None:
    """Raises ReleaseError for files that are not as recorded, or test data in training. `contents` left out datasets
    whose rows are against the schema."""
    for s in release_contents.shards:
        path = s.path(lake.workspace)
        if wrong := glance(path, s.bytes):
            raise ReleaseError(
                f"the shard {path} {wrong}: delete it, and build its dataset {s.dataset} again"
            )
    for guard in (guard for guard in GUARDS if guard.run is not corpus_is_sound):
        outcome = guard.run(lake, release_contents.datasets)
        if not outcome.passed:
            raise ReleaseError(guard.refusal.format(outcome.detail))


def hanging_on(lake: Lake, release: Release) -> list[str]:
    """What refers to a release, a sentence each: models that were trained on it, scores, exports in the workspace."""
    models = lake.column(
        "SELECT training_run FROM training_runs WHERE release = ? AND config_hash = ? ORDER BY 1",
        [release.name, release.config_hash],
    )
    scored = lake.column(
        "SELECT DISTINCT model FROM eval_runs WHERE release = ? ORDER BY 1", [release.name]
    )
    exports = [
        path.parent.name
        for path in sorted(lake.workspace.root.glob(EXPORTS))
        if _is_of(path, release)
    ]
    sentences = [
        (models, "models were trained on it, and cannot be published without it"),
        (scored, "models and baselines were scored on it"),
        (exports, "exports in exports/ were made of it"),
    ]
    return [f"{len(names)} {text}: {', '.join(names)}" for names, text in sentences if names]


def _is_of(manifest: Path, release: Release) -> bool:
    """Is it the manifest of an export of a release?"""
    facts = json.loads(manifest.read_text())
    return (facts.get("release"), facts.get("content")) == (release.name, release.config_hash)


def delete_release(lake: Lake, name: str) -> Release:
    """Forget a release and its card, but not its name; the next gc frees what nothing else names. Raises
    ReleaseError."""
    release = get_release(lake, name)
    row = {"name": name, "config_hash": release.config_hash, "deleted_at": datetime.now(UTC)}
    lake.upsert(f"name of release {name}", deleted_releases=TABLES["deleted_releases"].rows([row]))
    lake.remove(f"delete release {name}", "name = ?", [name], "releases", "release_shards")
    card_path(lake.workspace, name).unlink(missing_ok=True)
    return release


def card_path(workspace: Workspace, name: str) -> Path:
    return workspace.root / "releases" / name / "card.md"


# Sentences on shards (names $1, their hashes and numbers of samples $2 and $3) that the lake has otherwise
OTHERWISE = """
SELECT if(s.sha256 IS DISTINCT FROM r.sha256, 'the lake does not list ' || shard || ' as the release does',
          format('the lake has {} samples of {}, the release {}', coalesce(l.samples, 0), shard, r.samples))
FROM (SELECT unnest($1) AS shard, unnest($2) AS sha256, unnest($3) AS samples) r LEFT JOIN shards s USING (shard)
LEFT JOIN (SELECT shard, count(*) AS samples FROM sample_location GROUP BY 1) l USING (shard)
WHERE s.sha256 IS DISTINCT FROM r.sha256 OR coalesce(l.samples, 0) <> r.samples ORDER BY shard"""


def damage(file: str, wrong: str) -> Finding:
    """A file of a release, or a snapshot of the lake, that is not as it was recorded."""
    return Finding("unreadable_data", wrong, file=file)


def verify_release(lake: Lake, release: Release) -> list[Finding]:
    """Everything about a release that is not as it was recorded; reads all of its bytes."""
    failures = []
    for shard in release.shard_list:
        path = shard.path(lake.workspace)
        failures += [
            damage(str(path), wrong) for wrong in check_shard(path, shard.sha256, shard.bytes)
        ]
    if wrong := card_fault(lake.workspace, release):
        failures.append(damage(str(card_path(lake.workspace, release.name)), wrong))
    return failures + list(_lake_failures(lake, release))


def card_fault(workspace: Workspace, release: Release) -> str | None:
    """What is wrong with a release's card; None: it is as it was frozen."""
    path = card_path(workspace, release.name)
    if not path.exists():
        return "the card is missing"
    if release.card_sha256 not in (None, sha256_file(path)):
        return "the card was changed since the release was frozen"
    return None


def file_failure(path: Path, size: int, sha256: str) -> Finding | None:
    """The problem with one file's bytes; None: there is none."""
    wrong = glance(path, size)
    if not wrong and sha256_file(path) != sha256:
        wrong = "its bytes are not those that were written (sha256 differs)"
    if wrong:
        return damage(str(path), wrong)
    return None


def _lake_failures(lake: Lake, release: Release) -> Iterator[Finding]:
    """Does the lake, as it was at the release's snapshot, list the same shards with as many samples?"""
    location = f"snapshot {release.snapshot}"
    try:
        release_lake = Lake(lake.workspace, read_only=True, snapshot=release.snapshot)
    except LakeError as e:
        yield damage(location, str(e))
        return
    with closing(release_lake.con):
        lists = zip(
            *((shard.shard, shard.sha256, shard.samples) for shard in release.shard_list),
            strict=True,
        )
        wrong = release_lake.column(OTHERWISE, [*map(list, lists)])
        frozen = set(
            release_lake.column("SELECT shard FROM release_shards WHERE name = ?", [release.name])
        )
    # The release's list and the lake at its snapshot were written together, so they have to agree
    yield from (damage(location, sentence) for sentence in wrong)
    if frozen != set(release.shard_names):
        yield damage(location, "the release listed other shards there than it does now")
