"""Samples and shards."""

from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer

from cli.options import DEFAULT_WORKSPACE, FAILED, FormatOption, WorkspaceOption, open_release, say, space_at
from cli.output import show
from core.errors import UserError
from warehouse.lake import Lake
from warehouse.releases import get_release
from warehouse.shards import check_shard
from warehouse.shards.profiles import PROFILES, draw

app = typer.Typer()
samples_app = typer.Typer(help="Draw samples: questions with pictures and answers.", no_args_is_help=True)
app.add_typer(samples_app, name="samples")


@samples_app.command("draw")
def samples_draw(
    profile: Annotated[str, typer.Argument(help="progresslm_sft (25 K samples) or progresslm_rl (20 K).")],
    release: Annotated[str | None, typer.Option("--release", help="Release to draw from; default: the newest.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another number draws other samples.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Parquet file for the samples drawn.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Draw a training set of published size from a release's train split; lists the samples and their shards."""
    if profile not in PROFILES:
        raise UserError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    space, _, frozen = open_release(workspace, release)
    drawn = draw(space, frozen, profile, seed)
    show([dict(k) for k in drawn.kinds], format)
    if out:
        pq.write_table(drawn.samples, out)
        say(f"{drawn.samples.num_rows} samples in {out}")


shards_app = typer.Typer(help="Check WebDataset shards.", no_args_is_help=True)
app.add_typer(shards_app, name="shards")


@shards_app.command("verify")
def shards_verify(
    release: Annotated[
        str | None, typer.Option("--release", help="Check this release's shards; default: the corpus's.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    format: FormatOption = "table",
) -> None:
    """Check every shard: its hash, its index, and the pictures of each sample. Exits 1 if one is damaged."""
    space = space_at(workspace)
    lake = Lake(space, read_only=True)
    # Refuses a name that is no release, whose list of shards would be empty and so whole
    if release:
        release = get_release(lake, release).name
    source, values = ("release_shards WHERE name = ?", [release]) if release else ("shards", [])
    rows = lake.rows(
        f"SELECT split, shard, store, sha256, bytes, samples FROM {source} ORDER BY shard",
        values,
    )
    damaged, num_samples = [], 0
    for split, shard, store, sha256, size, samples in rows:
        num_samples += samples
        problems = check_shard(space.shard(split, shard, store), sha256, size)
        damaged += [{"shard": shard, "split": split, "problem": problem} for problem in problems]
    whole = f"{len(rows)} shards with {num_samples} samples are whole."
    show(damaged, format, empty=whole if rows else "No shards yet: build first.")
    if damaged:
        raise typer.Exit(FAILED)
