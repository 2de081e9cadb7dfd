"""Samples and shards."""

from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer
from typer import Argument, Option

from cli.lakes import lake_at, lake_to_read
from cli.options import At, ReleaseOption, say
from cli.output import show
from cli.terminal import FAILED
from core.errors import UserError
from warehouse.releases.release import get_release
from warehouse.shards.check import check_shard
from warehouse.shards.progresslm import PROFILES, draw

app = typer.Typer()
samples_app = typer.Typer(help="Draw samples: questions with pictures and answers.", no_args_is_help=True)
shards_app = typer.Typer(help="Check WebDataset shards.", no_args_is_help=True)
app.add_typer(samples_app, name="samples")
app.add_typer(shards_app, name="shards")


@samples_app.command("draw")
def samples_draw(
    profile: Annotated[str, Argument(help="progresslm_sft (25 K samples) or progresslm_rl (20 K).")],
    release: ReleaseOption = None,
    seed: Annotated[int, Option(help="Another number draws other samples.")] = 0,
    out: Annotated[Path | None, Option(help="Parquet file for the samples drawn.")] = None,
    at: At = At(),
) -> None:
    """Draw a training set of published size from a release's train split; lists the samples and their shards."""
    if profile not in PROFILES:
        raise UserError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    lake = lake_at(at.workspace)
    drawn = draw(lake.workspace, get_release(lake, release), profile, seed)
    show([dict(k) for k in drawn.kinds], at.format)
    if out:
        pq.write_table(drawn.samples, out)
        say(f"{drawn.samples.num_rows} samples in {out}")


@shards_app.command("verify")
def shards_verify(
    release: Annotated[str | None, Option(help="Check this release's shards; default: the corpus's.")] = None,
    at: At = At(),
) -> None:
    """Check every shard: its hash, its index, and the pictures of each sample. Exits 1 if one is damaged."""
    lake = lake_to_read(at.workspace)
    # Refuses a name that is no release, whose list of shards would be empty and so whole
    name = get_release(lake, release).name if release else None
    source, values = ("release_shards WHERE name = ?", [name]) if name else ("shards", [])
    sql = f"SELECT split, shard, store, sha256, bytes, samples FROM {source} ORDER BY shard"
    rows = lake.rows(sql, values)
    damaged = [
        {"shard": shard, "split": split, "problem": problem}
        for split, shard, store, sha256, size, _ in rows
        for problem in check_shard(lake.workspace.shard(split, shard, store), sha256, size)
    ]
    whole = f"{len(rows)} shards with {sum(row[-1] for row in rows)} samples are whole."
    show(damaged, at.format, empty=whole if rows else "No shards yet: build first.")
    if damaged:
        raise typer.Exit(FAILED)
