"""Samples and shards, releases, takedowns, and what nothing names any more."""

from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer
from rich.filesize import decimal
from typer import Argument, Option

from cli.lakes import lake_at, lake_to_read
from cli.options import (
    At,
    EpisodesOption,
    Here,
    MinConfidenceOption,
    MinNameConfidenceOption,
    PrivateOption,
    ReleaseOption,
    ReplaceOption,
    SentDryRunOption,
    YesOption,
    confirm,
    counted,
    episode_list,
    say,
    tell_sent,
    warn,
)
from cli.output import show, show_facts
from cli.terminal import FAILED, note
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

app = typer.Typer(rich_markup_mode=None)
release_app = typer.Typer(
    help="Freeze, compare and publish the corpus.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(release_app, name="release")
samples_app = typer.Typer(
    help="Draw samples: questions with pictures and answers.", no_args_is_help=True
)
app.add_typer(samples_app, name="samples")


@release_app.command("create")
def release_create(
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
    common: At = At(),
) -> None:
    """Freeze the corpus as it is: a snapshot, its shards and a card. Read it later with --release NAME.

    Datasets whose licence is not open stay out unless allowed. A leak between splits blocks the release. With
    --min-confidence or --min-name-confidence, it leaves out shards with samples of less confident labels. It says in
    how many runs checks found faults that nobody accepted.
    """
    if name == LOCAL:
        raise UserError(
            f"proccorpus train uses the name {LOCAL} for the corpus as it is: choose another name"
        )
    lake = lake_at(common.workspace)
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
    show_facts(facts, common.format, hidden=["left_out", "faults"])


@release_app.command("verify")
def release_verify(
    name: Annotated[
        str | None, Argument(help="A release of the workspace; default: the newest.")
    ] = None,
    published: Annotated[
        str | None, Option("--at", help="Address of a published release; needs no workspace.")
    ] = None,
    common: At = At(),
) -> None:
    """Read every byte of a release and compare it with the frozen hashes. Exits 1 on a difference, and names it."""
    # A published release is verified from its own manifest, a workspace's from the lake
    if published is not None:
        if name is not None:
            raise UserError("give either NAME or --at URI")
        manifest, failures = verify_published(published)
        sizes = [f["bytes"] for f in manifest["files"]]
        facts = {"release": manifest["release"], "snapshot": manifest["snapshot"]}
    else:
        lake = lake_to_read(common.workspace)
        release = get_release(lake, name)
        failures = verify_release(lake, release)
        sizes = [s.bytes for s in release.shard_list]
        facts = {"release": release.name, "snapshot": release.snapshot}
    facts |= {"files": len(sizes), "bytes": sum(sizes), "failures": len(failures)}
    rows = [{"what": f.file, "wrong": f.detail} for f in failures]
    show([facts], common.format, whole=facts | {"failures": rows})
    if common.format == "table":
        show(rows, "table", empty="All as it was frozen.")
    if failures:
        raise typer.Exit(FAILED)


@release_app.command("diff")
def release_diff(
    a: Annotated[
        str, Argument(help="A release, or with --runs the beginning of a label run's id.")
    ],
    b: Annotated[str, Argument(help="Another release or label run.")],
    runs: Annotated[bool, Option(help="Compare two label runs of the corpus as it is.")] = False,
    common: At = At(),
) -> None:
    """Show what changed from release A to release B: episodes, labels, and how far boundaries and progress moved."""
    diff = (diff_runs if runs else diff_releases)(lake_to_read(common.workspace), a, b)
    show(diff.datasets, common.format, empty="Neither holds an episode.", whole=diff.facts())
    if diff.relabelled and common.format == "table":
        say(f"The {len(diff.worst)} of {len(diff.relabelled)} relabelled episodes that moved most:")
        show(diff.worst, "table")


@release_app.command("delete")
def release_delete(name: str, yes: YesOption = False, common: Here = Here()) -> None:
    """Delete a release and its card; says what refers to it. Its name is not given again.

    `proccorpus gc` then deletes the files that nothing else uses.
    """
    lake = lake_at(common.workspace)
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


@release_app.command("publish")
def release_publish(
    name: str,
    to: Annotated[str, Option(help="hf://datasets/OWNER/NAME, s3://..., gs://... or a folder.")],
    dry_run: SentDryRunOption = False,
    private: PrivateOption = False,
    replace: ReplaceOption = False,
    common: At = At(),
) -> None:
    """Publish a release: shards, card, labels as Parquet, a manifest. Run it again to resume an interrupted upload.

    Afterwards the place holds this release alone. A place with other files, or another release, is refused.
    """
    lake = lake_to_read(common.workspace)
    release = get_release(lake, name)
    upload = publish(
        lake, release, to, dry_run=dry_run, private=private, replace=replace, on_file=tell_sent
    )
    show_facts({"release": name} | upload.__dict__ | {"dry_run": dry_run}, common.format)


# What a takedown does with a run that looks alike
OF_ALIKE = {
    Likeness.SAME: "is the same recording: it is taken down, too; build {} as well",
    Likeness.PROBABLE: "may be the same recording, and is not used until you decide (say recording); build {} as well",
    Likeness.OTHER: "looks like it, and stays: its rows and pictures are another recording's",
}


@app.command()
def takedown(
    dataset: Annotated[str, Argument(help="The dataset's name in the corpus.")],
    episodes: EpisodesOption = None,
    reason: Annotated[str | None, Option(help="Reason; the quarantine shows it.")] = None,
    undo: Annotated[bool, Option(help="Take a takedown back.")] = False,
    common: At = At(),
) -> None:
    """Take data out of use, in releases, builds and files.

    Releases leave it out at once, the next build drops it, gc deletes its files.
    """
    selected = episode_list(episodes)
    if not undo and not (reason or "").strip():
        raise UserError(
            "takedown needs --reason TEXT: the quarantine shows it to people who miss the data"
        )
    lake = lake_at(common.workspace)
    # Nothing is deleted yet: the build makes chunks without the data, gc deletes the bytes
    if undo:
        marks = take_back(lake, dataset, selected)
        note(f"{marks} marks taken back; build {dataset} to use it again.")
    else:
        for name, episode, degree in withdraw(lake, dataset, selected, reason or ""):
            note(f"episode {episode} of {name} {OF_ALIKE[degree].format(name)}.")
        note(f"Build {dataset} to make its chunks without it, then run gc to delete the bytes.")
    show(takedown_marks(lake, dataset), common.format, empty=f"Nothing of {dataset} is taken down.")


@app.command()
def gc(
    dry_run: Annotated[bool, Option(help="List what would be deleted; delete nothing.")] = False,
    keep_days: Annotated[
        float, Option(min=0, help="Keep lake snapshots that are younger than this.")
    ] = 7,
    yes: YesOption = False,
    common: At = At(),
) -> None:
    """Delete files that neither the corpus nor a release uses, and merge small files. Cannot run during a build."""
    lake = lake_to_read(common.workspace) if dry_run else lake_at(common.workspace)
    if not dry_run and not yes:
        _confirm_collection(lake, keep_days)
    rows = [f.__dict__ for f in collect(lake, keep_days, dry_run=dry_run)]
    files, into = (small_files(lake), None) if dry_run else merge(lake)
    say("Would be deleted:" if dry_run else "Deleted:")
    show(
        rows,
        common.format,
        whole=[*rows, {"what": "small files merged", "files": files, "bytes": 0}],
    )
    if files:
        small = counted(files, "small file")
        if dry_run:
            merged = f"Would merge up to {small} of rows"
        else:
            merged = f"Merged {small} of rows into {into}"
        say(
            f"{merged}. The next build or gc deletes what was merged, once it is {GRACE_S / 60:.0f} minutes old."
        )


def _confirm_collection(lake: Lake, keep_days: float) -> None:
    to_go = collect(lake, keep_days, dry_run=True)
    files = sum(f.files for f in to_go)
    num_bytes = sum(f.bytes for f in to_go)
    if files:
        confirm(
            f"Delete {counted(files, 'file')} ({decimal(num_bytes)}) of {lake.workspace.root}?",
            yes=False,
        )


@samples_app.command("draw")
def samples_draw(
    profile: Annotated[
        str, Argument(help="progresslm_sft (25 K samples) or progresslm_rl (20 K).")
    ],
    release: ReleaseOption = None,
    seed: Annotated[int, Option(help="Another number draws other samples.")] = 0,
    out: Annotated[Path | None, Option(help="Parquet file for the samples drawn.")] = None,
    common: At = At(),
) -> None:
    """Draw a training set of published size from a release's train split; lists the samples and their shards."""
    if profile not in PROFILES:
        raise UserError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    lake = lake_at(common.workspace)
    drawn = draw(lake.workspace, get_release(lake, release), profile, seed)
    show([dict(k) for k in drawn.kinds], common.format)
    if out:
        pq.write_table(drawn.samples, out)
        say(f"{drawn.samples.num_rows} samples in {out}")
