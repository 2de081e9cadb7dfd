"""Samples and shards, releases, takedowns, and what nothing names any more."""

from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
from rich.filesize import decimal
from typer import Argument, Option

from cli.lakes import ReadLake, WriteLake, lake_at, lake_to_read
from cli.options import (
    AS_JSON,
    DONE,
    FAILED,
    EpisodesOption,
    Facts,
    MinConfidenceOption,
    MinNameConfidenceOption,
    PrivateOption,
    ReleaseOption,
    ReplaceOption,
    Result,
    SentDryRunOption,
    Space,
    YesOption,
    command,
    confirm,
    counted,
    note,
    say,
    tell_sent,
    warn,
)
from cli.output import show
from core.domain.label_run import LabelGate
from core.errors import UserError
from ingest.recordings import Likeness
from warehouse.lake import Lake
from warehouse.lake.acceptances import in_words
from warehouse.lake.gc import GRACE_S, collect, merge, small_files
from warehouse.lake.recordings import withdraw
from warehouse.lake.statements import takedown_marks
from warehouse.lake.statements import undo_takedown as take_back
from warehouse.releases.contents import LOCAL, contents
from warehouse.releases.diff import diff_releases, diff_runs
from warehouse.releases.publish import publish, verify_published
from warehouse.releases.release import (
    card_path,
    create_release,
    delete_release,
    get_release,
    hanging_on,
    release_faults,
    verify_release,
)
from warehouse.shards.progresslm import PROFILES, draw


@command("release create")
def release_create(
    lake: WriteLake,
    name: str,
    allow_licence: Annotated[
        list[str] | None,
        Option(
            help="Include datasets with this licence, such as cc-by-nc-4.0 or unknown; repeatable."
        ),
    ] = None,
    min_confidence: MinConfidenceOption = None,
    min_name_confidence: MinNameConfidenceOption = None,
    without: Annotated[
        list[str] | None,
        Option(
            help="Leave out runs with a fault that this check found, but accepted ones; repeatable."
        ),
    ] = None,
    without_unbuilt: Annotated[bool, Option(help="Leave out unbuilt data.")] = False,
) -> Result:
    """Freeze the corpus as it is: a snapshot, its shards and a card. Read it later with --release NAME.

    Datasets whose licence is not open stay out unless allowed. A leak between splits blocks the release. With
    --min-confidence or --min-name-confidence, it leaves out shards with samples of less confident labels. It says in
    how many runs checks found faults that nobody accepted.
    """
    if name == LOCAL:
        raise UserError(
            f"proccorpus train uses the name {LOCAL} for the corpus as it is: choose another name"
        )
    is_gated = min_confidence is not None or min_name_confidence is not None
    gate = LabelGate(min_confidence or 0.0, min_name_confidence or 0.0) if is_gated else None
    # Found once, for the release and for the list of what it leaves out
    release_contents = contents(
        lake, allow_licence or (), gate, without or (), without_unbuilt=without_unbuilt
    )
    release = create_release(lake, name, release_contents=release_contents)
    facts = {
        "release": release.name,
        "snapshot": release.snapshot,
        "content": release.config_hash,
        "shards": len(release.shard_list),
        "card": str(card_path(lake.workspace, name)),
        "left_out": [exclusion.__dict__ for exclusion in release_contents.left_out],
        "faults": release_faults(lake, release),
    }
    remedy = (
        "look at them (proccorpus show faults), leave them out (--without CHECK), or accept them"
    )
    warn(
        [f"{name}: {in_words(counts)}; {remedy}" for name, counts in facts["faults"].items()],
        "faults",
    )
    warn([str(exclusion) for exclusion in release_contents.left_out], "left out")
    return Result(facts, hidden=["left_out", "faults"])


@command("release verify")
def release_verify(
    space: Space,
    name: Annotated[
        str | None, Argument(help="A release of the workspace; default: the newest.")
    ] = None,
    published: Annotated[
        str | None, Option("--at", help="Address of a published release; needs no workspace.")
    ] = None,
) -> Result:
    """Read every byte of a release and compare it with the frozen hashes. Exits 1 on a difference,
    and names it."""
    # A published release is verified from its own manifest, a workspace's from the lake
    if published is not None:
        if name is not None:
            raise UserError("give either NAME or --at URI")
        manifest, failures = verify_published(published)
        sizes = [f["bytes"] for f in manifest["files"]]
        facts = {"release": manifest["release"], "snapshot": manifest["snapshot"]}
    else:
        lake = lake_to_read(space)
        release = get_release(lake, name)
        failures = verify_release(lake, release)
        sizes = [s.bytes for s in release.shard_list]
        facts = {"release": release.name, "snapshot": release.snapshot}
    facts |= {"files": len(sizes), "bytes": sum(sizes), "failures": len(failures)}
    rows = [{"what": f.file, "wrong": f.detail} for f in failures]
    code = FAILED if failures else DONE
    if AS_JSON.get():
        return Result(facts | {"failures": rows}, code=code)
    show(facts)
    return Result(rows, empty="All as it was frozen.", code=code)


@command("release diff")
def release_diff(
    lake: ReadLake,
    a: Annotated[
        str, Argument(help="A release, or with --runs the beginning of a label run's id.")
    ],
    b: Annotated[str, Argument(help="Another release or label run.")],
    runs: Annotated[bool, Option(help="Compare two label runs of the corpus as it is.")] = False,
) -> Result:
    """Show what changed from release A to release B: episodes, labels, and how far boundaries and
    progress moved."""
    diff = (diff_runs if runs else diff_releases)(lake, a, b)
    changes = Result(diff.datasets, empty="Neither holds an episode.", whole=diff.facts())
    if AS_JSON.get() or not diff.relabelled:
        return changes
    show(diff.datasets)
    say(f"The {len(diff.worst)} of {len(diff.relabelled)} relabelled episodes that moved most:")
    return Result(diff.worst)


@command("release delete")
def release_delete(lake: WriteLake, name: str, yes: YesOption = False) -> None:
    """Delete a release and its card; says what refers to it. Its name is not given again.

    `proccorpus gc` then deletes the files that nothing else uses.
    """
    release = get_release(lake, name)
    warn(hanging_on(lake, release), f"release {release.name}")
    confirm(
        f"Forget release {release.name} ({counted(len(release.shard_list), 'shard')}) for good?",
        yes=yes,
    )
    deleted = delete_release(lake, release.name)
    say(
        f"{deleted.name} is deleted; its {len(deleted.shard_list)} shards go with the next gc where nothing else "
        "names them."
    )


@command("release publish")
def release_publish(
    lake: ReadLake,
    name: str,
    to: Annotated[str, Option(help="hf://datasets/OWNER/NAME, s3://..., gs://... or a folder.")],
    dry_run: SentDryRunOption = False,
    private: PrivateOption = False,
    replace: ReplaceOption = False,
) -> Facts:
    """Publish a release: shards, card, labels as Parquet, a manifest. Run it again to resume an
    interrupted upload.

    Afterwards the place holds this release alone. A place with other files, or another release, is
    refused.
    """
    release = get_release(lake, name)
    upload = publish(
        lake, release, to, dry_run=dry_run, private=private, replace=replace, on_file=tell_sent
    )
    return {"release": name} | upload.__dict__ | {"dry_run": dry_run}


# What a takedown does with a run that looks alike
OF_ALIKE = {
    Likeness.SAME: "is the same recording: it is taken down, too; build {} as well",
    Likeness.PROBABLE: "may be the same recording, and is not used until you decide (say recording); build {} as well",
    Likeness.OTHER: "looks like it, and stays: its rows and pictures are another recording's",
}


@command("takedown")
def takedown(
    lake: WriteLake,
    dataset: Annotated[str, Argument(help="The dataset's name in the corpus.")],
    episodes: EpisodesOption = None,
    reason: Annotated[str | None, Option(help="Reason; the quarantine shows it.")] = None,
    undo: Annotated[bool, Option(help="Take a takedown back.")] = False,
) -> Result:
    """Take data out of use, in releases, builds and files.

    Releases leave it out at once, the next build drops it, gc deletes its files.
    """
    if not undo and not (reason or "").strip():
        raise UserError(
            "takedown needs --reason TEXT: the quarantine shows it to people who miss the data"
        )
    # Nothing is deleted yet: the build makes chunks without the data, gc deletes the bytes
    if undo:
        marks = take_back(lake, dataset, episodes)
        note(f"{marks.total()} marks taken back; build {', '.join(sorted(marks))} to use it again.")
    else:
        for name, episode, degree in withdraw(lake, dataset, episodes, reason or ""):
            note(f"episode {episode} of {name} {OF_ALIKE[degree].format(name)}.")
        note(f"Build {dataset} to make its chunks without it, then run gc to delete the bytes.")
    return Result(takedown_marks(lake, dataset), empty=f"Nothing of {dataset} is taken down.")


@command("gc")
def gc(
    space: Space,
    dry_run: Annotated[bool, Option(help="List what would be deleted; delete nothing.")] = False,
    keep_days: Annotated[
        float, Option(min=0, help="Keep lake snapshots that are younger than this.")
    ] = 7,
    yes: YesOption = False,
) -> Result:
    """Delete files that neither the corpus nor a release uses, and merge small files. Cannot run
    during a build."""
    lake = (lake_to_read if dry_run else lake_at)(space)
    if not dry_run and not yes:
        _confirm_collection(lake, keep_days)
    rows = [f.__dict__ for f in collect(lake, keep_days, dry_run=dry_run)]
    files, into = (small_files(lake), None) if dry_run else merge(lake)
    say("Would be deleted:" if dry_run else "Deleted:")
    whole = [*rows, {"what": "small files merged", "files": files, "bytes": 0}]
    small = counted(files, "small file")
    if dry_run:
        merged = f"Would merge up to {small} of rows"
    else:
        merged = f"Merged {small} of rows into {into}"
    sentence = f"{merged}. The next build or gc deletes what was merged, once it is {GRACE_S / 60:.0f} minutes old."
    return Result(rows, whole=whole, lines=[sentence] if files else [])


def _confirm_collection(lake: Lake, keep_days: float) -> None:
    to_go = collect(lake, keep_days, dry_run=True)
    files = sum(f.files for f in to_go)
    num_bytes = sum(f.bytes for f in to_go)
    if files:
        confirm(
            f"Delete {counted(files, 'file')} ({decimal(num_bytes)}) of {lake.workspace.root}?",
            yes=False,
        )


@command("samples draw")
def samples_draw(
    lake: WriteLake,
    profile: Annotated[
        str, Argument(help="progresslm_sft (25 K samples) or progresslm_rl (20 K).")
    ],
    release: ReleaseOption = None,
    seed: Annotated[int, Option(help="Another number draws other samples.")] = 0,
    out: Annotated[Path | None, Option(help="Parquet file for the samples drawn.")] = None,
) -> Result:
    """Draw a training set of published size from a release's train split; lists the samples and
    their shards."""
    if profile not in PROFILES:
        raise UserError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    drawn = draw(lake.workspace, get_release(lake, release), profile, seed)
    written = []
    if out:
        pq.write_table(drawn.samples, out)
        written.append(f"{drawn.samples.num_rows} samples in {out}")
    return Result([dict(k) for k in drawn.kinds], lines=written)
