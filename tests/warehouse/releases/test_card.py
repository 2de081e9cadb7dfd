"""The card of a release counts what the release holds, and is compared with what was frozen."""

import io
import json
import re
import tarfile
from pathlib import Path

import duckdb
import pytest

from tests.kits.cli_kit import run_here
from tests.kits.made_corpus import Made
from warehouse.lake import Lake
from warehouse.lake.recordings import withdraw
from warehouse.releases.contents import ReleaseError
from warehouse.releases.publish import publish
from warehouse.releases.release import Release, card_path, create_release, verify_release

ANY = ("unknown",)


def card_text(lake: Lake, release: Release) -> str:
    return card_path(lake.workspace, release.name).read_text()


def table(text: str, first_column: str) -> list[dict[str, str]]:
    """The rows of the card's table that begins with two column names."""
    lines = text[text.index(f"| {first_column} |") :].split("\n\n")[0].splitlines()
    names, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(names, row, strict=True)) for row in rows]


def episodes_in(lake: Lake, release: Release) -> set[int]:
    """Episodes of the samples in a release's tars, read by tarfile alone."""
    episodes = set[int]()
    for path in release.paths(lake.workspace, "train", "val", "test_id", "test_ood"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".samples.json"):
                    samples = json.load(io.TextIOWrapper(tar.extractfile(member) or io.BytesIO()))
                    episodes |= {sample["episode_index"] for sample in samples}
    return episodes


@pytest.mark.parametrize("withdrawn", [[], [0], [1, 4], [2, 3]])
def test_the_card_counts_what_the_release_holds(own: Made, withdrawn: list[int]) -> None:
    lake = Lake(own.space)
    if withdrawn:
        withdraw(lake, "tiny", withdrawn, "asked by the person shown")
    release = create_release(lake, "r1", allow=ANY)
    text = card_text(lake, release)
    held = episodes_in(lake, release)
    assert held.isdisjoint(withdrawn)
    [dataset] = table(text, "dataset | title")
    frames = lake.rows("SELECT sum(num_frames) FROM episodes WHERE list_contains(?, episode_index)", [sorted(held)])
    assert (int(dataset["episodes"]), int(dataset["frames"])) == (len(held), frames[0][0])
    assert int(dataset["listed"]) == 5
    assert int(dataset["samples"]) == sum(shard.samples for shard in release.shard_list)
    assert sum(int(row["samples"]) for row in table(text, "dataset | split")) == int(dataset["samples"])
    labelled = re.findall(r"- tiny, (\d+) episodes: `", text)
    assert sum(map(int, labelled)) == len(held)
    assumed = re.findall(r"nothing says how (\d+) of (\d+) episodes", text)
    assert [int(number) for _, number in assumed] == [len(held)] * len(assumed)


def test_an_edited_card_is_named_and_not_published(own: Made, tmp_path: Path) -> None:
    lake = Lake(own.space)
    release = create_release(lake, "r1", allow=ANY)
    path = card_path(lake.workspace, "r1")
    path.write_text(path.read_text() + "All errors removed.\n")
    [failure] = verify_release(lake, release)
    assert (failure.what, failure.wrong) == (str(path), "the card was changed since the release was frozen")
    with pytest.raises(ReleaseError, match="the card was changed"):
        publish(lake, release, str(tmp_path / "out"))


def test_what_a_published_card_says_works_on_a_copy(own: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(own.space)
    publish(lake, create_release(lake, "r1", allow=ANY), str(tmp_path / "out"))
    copy = (tmp_path / "out").rename(tmp_path / "elsewhere")
    monkeypatch.chdir(copy)
    commands = re.findall(r"`(proccorpus [^`]+|duckdb [^`]+)`", (copy / "README.md").read_text())
    assert [command.split()[0] for command in commands] == ["proccorpus", "duckdb"]
    assert run_here(*commands[0].split()[1:]) == 0
    query = commands[1].split('"')[1]
    assert len(duckdb.sql(query).fetchall()) == 5
