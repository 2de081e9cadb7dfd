"""The step `release`: the corpus frozen under a name, unless it is frozen as it is already."""

from collections.abc import Collection
from dataclasses import replace

from annotate.label_gate import LabelGate
from core.figures import COLOURS, new_figure, render
from pipeline.outcome import Outcome
from warehouse.lake import Lake
from warehouse.releases import Release, card_path, content_hash, create_release, find_release
from warehouse.releases.contents import contents

DEMO_RELEASE = "demo"


def release_step(
    lake: Lake, name: str = DEMO_RELEASE, allow: Collection[str] = (), gate: LabelGate | None = None
) -> Outcome:
    """Freeze the corpus under a name; a release of that name with other content is replaced. Raises ReleaseError.

    `allow`: licences that are not open, of datasets that are to be in it all the same. `gate`: how sure labels have to
    be, beside what the samples were built to ask.
    """
    held = contents(lake, allow, gate)
    release = find_release(lake, name)
    is_new = release is None or release.config_hash != content_hash(lake, held)
    if is_new or release is None:
        release = create_release(lake, name, allow=allow, replace=True, held=held)
    outcome = release_outcome(lake, release, is_new)
    if held.left_out:
        return replace(outcome, numbers={**outcome.numbers, "left_out": "; ".join(map(str, held.left_out))})
    return outcome


def release_outcome(lake: Lake, release: Release, is_new: bool = False) -> Outcome:
    """What there is to show of a release, made now or found."""
    numbers = {
        "release": release.name,
        "snapshot": release.snapshot,
        "shards": len(release.shard_list),
        "samples": sum(shard.samples for shard in release.shard_list),
        "bytes": sum(shard.bytes for shard in release.shard_list),
    }
    files = (card_path(lake.workspace, release.name),)
    return Outcome("release", release.config_hash, is_new, numbers, _split_picture(lake), files)


def _split_picture(lake: Lake) -> bytes:
    """Episodes of each split, as bars."""
    rows = lake.rows("SELECT split, count(*) FROM splits GROUP BY 1 ORDER BY 1")
    figure, axes = new_figure(height=2.0)
    axes[0, 0].barh([split for split, _ in rows], [count for _, count in rows], color=COLOURS[0])
    axes[0, 0].set_xlabel("episodes")
    return render(figure)
