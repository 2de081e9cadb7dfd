"""The card of a release counts what the release holds, and is compared with what was frozen.

Also: what differs between releases and between label runs; what the free texts of licences come to.
"""

import io
import json
import re
import tarfile
from collections import Counter
from typing import Any

import duckdb
import pytest

from core.domain.label_run import LabelGate
from tests.kits.cli_kit import run_here
from tests.kits.lake_kit import say
from tests.kits.made_corpus import CHUNK_SIZE, Made
from tests.kits.tiny_lerobot import LENGTHS
from warehouse.lake import Lake
from warehouse.lake.corrections import reject_label
from warehouse.lake.recordings import withdraw
from warehouse.releases.contents import ReleaseError, classify, contents
from warehouse.releases.diff import MOVES, diff_runs
from warehouse.releases.publish import publish
from warehouse.releases.release import Release, card_path, create_release, verify_release

ANY = ("unknown",)
WARNED = """
INSERT INTO findings BY NAME
SELECT 'tiny' AS dataset, $1::BIGINT AS episode_index, ($1 // 2)::INTEGER AS chunk, 'frames' AS stage,
       'timestamp_drift' AS reason, 'they are' AS detail, 'warning' AS severity"""


def motion_run(lake: Lake) -> str:
    return lake.rows("SELECT label_run FROM label_runs WHERE annotator = 'motion'")[0][0]


def card_text(lake: Lake, release: Release) -> str:
    return card_path(lake.workspace, release.name).read_text()


def table(text: str, first_column: str) -> list[dict[str, str]]:
    """The rows of the card's table that begins with two column names."""
    lines = text[text.index(f"| {first_column} |") :].split("\n\n")[0].splitlines()
    names, _, *rows = (list(map(str.strip, line.strip("|").split("|"))) for line in lines)
    return [dict(zip(names, row, strict=True)) for row in rows]


def samples_in(lake: Lake, release: Release) -> list[dict[str, Any]]:
    """The samples in a release's tars, read by tarfile alone, each with its split and tar."""
    samples = []
    for shard in release.shard_list:
        with tarfile.open(shard.path(lake.workspace)) as tar:
            for member in tar:
                if member.name.endswith(".samples.json"):
                    rows = json.load(io.TextIOWrapper(tar.extractfile(member) or io.BytesIO()))
                    samples += [row | {"split": shard.split, "shard": shard.shard} for row in rows]
    return samples


# Which episodes are withdrawn, corrected, have a rejected label or a warning; the least confidence that is asked for;
# and whether a build follows
STATES: list[tuple[set[int], set[int], set[int], set[int], float | None, bool]] = [
    ({0}, set(), set(), {0, 1}, None, False),
    ({2}, {1}, {4}, {3}, 0.3, False),
    ({1, 4}, {3}, {0}, {0, 1, 2}, None, True),
    (set(), {0}, {2}, {2}, 0.3, True),
]


@pytest.mark.parametrize(
    ("withdrawn", "corrected", "rejected", "warned", "least", "is_built"), STATES
)
def test_card_shards_and_tables_say_the_same(
    own, withdrawn, corrected, rejected, warned, least, is_built
):
    lake = Lake(own.space)
    for episode in corrected:
        say(lake, [{"name": "Push it", "start_frame": 0, "end_frame": LENGTHS[episode]}], episode)
    for episode in rejected:
        reject_label(lake, "tiny", episode, motion_run(lake), author="ada", follows=None)
    if withdrawn:
        withdraw(lake, "tiny", sorted(withdrawn), "asked by the person shown")
    if is_built:
        own.rebuild()
    for episode in warned:
        lake.con.execute(WARNED, [episode])
    gate = LabelGate(least, 0.0) if least else None
    release = create_release(lake, "r1", release_contents=contents(lake, ANY, gate))
    check_card(own, lake, release, withdrawn, rejected, warned, is_built)


def check_card(
    own_corpus: Made,
    lake: Lake,
    release: Release,
    withdrawn: set[int],
    rejected: set[int],
    warned: set[int],
    is_built: bool,
) -> None:
    """Its figures against the tars, the tables of its snapshot and those that are published."""
    text = card_text(lake, release)
    samples = samples_in(lake, release)
    shown_episodes = {sample["episode_index"] for sample in samples}
    assert shown_episodes.isdisjoint(withdrawn)
    frames = sum(LENGTHS[episode] for episode in shown_episodes)
    [dataset] = table(text, "dataset | title")
    assert {name: int(dataset[name]) for name in ("episodes", "frames", "listed", "samples")} == {
        "episodes": len(shown_episodes), "frames": frames, "listed": 5, "samples": len(samples)
    }  # fmt: skip
    for row in table(text, "dataset | split"):
        of_split = [sample for sample in samples if sample["split"] == row["split"]]
        assert int(row["samples"]) == len(of_split)
        assert int(row["shards"]) == len({sample["shard"] for sample in of_split})
    episode_runs = {(sample["episode_index"], sample["label_run"]) for sample in samples}
    runs = Counter(run for _, run in episode_runs)
    assert {
        run: int(count) for count, run in re.findall(r"- tiny, (\d+) episodes: `(.*?)`", text)
    } == runs
    assert {
        total for _, total in re.findall(r"nothing says how (\d+) of (\d+) episodes", text)
    } <= {str(len(shown_episodes))}

    # Limits count what is held: not what was rejected, withdrawn or left out as unsure. Where a run of its task was
    # corrected, a build labels an episode like that one in place of the label that was rejected
    relabelled = rejected & shown_episodes if is_built else set()
    assert not {(episode, motion_run(lake)) for episode in relabelled} & episode_runs
    doubtful = (warned | relabelled) & shown_episodes
    warned_files = re.findall(r"- tiny: (\d+) files have warnings", text)
    assert warned_files == [str(len(doubtful))] * bool(doubtful)
    chunks = {shard.chunk for shard in release.shard_list}
    left_out = withdrawn | (rejected - relabelled)
    removed = {episode for episode in left_out if is_built and episode // CHUNK_SIZE in chunks}
    counts = re.findall(r"- tiny: (\d+) episodes are left out for", text)
    assert sum(map(int, counts)) == len(removed)
    assert {total for _, total in re.findall(r"- tiny: (\d+) of (\d+) labels", text)} <= {
        str(len(shown_episodes))
    }

    released_lake = Lake(lake.workspace, read_only=True, snapshot=release.snapshot)
    stored = "SELECT sample_id FROM sample_location WHERE list_contains(?, shard)"
    assert sorted(released_lake.column(stored, [[s.shard for s in release.shard_list]])) == sorted(
        s["sample_id"] for s in samples
    )
    publish(lake, release, str(own_corpus.source.parent / "out"))
    query = f"SELECT DISTINCT episode_index FROM '{own_corpus.source.parent}/out/labels/progress.parquet'"
    assert {episode for (episode,) in duckdb.sql(query).fetchall()} == shown_episodes


def test_an_edited_card_is_named_and_not_published(released, tmp_path):
    lake, release = released
    path = card_path(lake.workspace, "r1")
    path.write_text(path.read_text() + "All errors removed.\n")
    [failure] = verify_release(lake, release)
    assert (failure.file, failure.detail) == (
        str(path),
        "the card was changed since the release was frozen",
    )
    with pytest.raises(ReleaseError, match="the card was changed"):
        publish(lake, release, str(tmp_path / "out"))


def test_what_a_published_card_says_works_on_a_copy(released, tmp_path, monkeypatch):
    publish(*released, str(tmp_path / "out"))
    copy = (tmp_path / "out").rename(tmp_path / "elsewhere")
    monkeypatch.chdir(copy)
    commands = re.findall(r"`(proccorpus [^`]+|duckdb [^`]+)`", (copy / "README.md").read_text())
    assert [command.split()[0] for command in commands] == ["proccorpus", "duckdb"]
    assert run_here(*commands[0].split()[1:]) == 0
    query = commands[1].split('"')[1]
    assert len(duckdb.sql(query).fetchall()) == 5


@pytest.mark.parametrize(
    ("a", "b", "moves"),
    [
        ([], [], []),
        ([10, 20], [12, 20], [2, 0]),
        ([10, 20], [22, 30], [12, 10]),  # in order of time, not to the nearest
        ([10], [8, 30], [2, 2, 20]),
        ([10], [], []),
    ],
)
def test_boundaries_that_belong_together(a, b, moves):
    sql = f"SELECT {MOVES} FROM (SELECT $1::INTEGER[] AS at_a, $2::INTEGER[] AS at_b)"
    assert duckdb.execute(sql, [a, b]).fetchall() == [(moves,)]


def test_two_label_runs(corpus):
    run = corpus.rows("SELECT label_run FROM label_runs")[0][0]
    for table in ("label_runs", "episode_labels", "segments", "progress"):
        corpus.con.execute(
            f"INSERT INTO {table} SELECT * REPLACE ('other' AS label_run) FROM {table}"
        )
    corpus.con.execute("DELETE FROM episode_labels WHERE label_run = 'other' AND episode_index = 0")
    corpus.con.execute(
        "UPDATE progress SET progress = 0 WHERE label_run = 'other' AND episode_index = 2"
    )
    run_diff = diff_runs(corpus, run[:6], "oth")
    assert run_diff.removed == [("tiny", 0)]
    assert {c["run_b"] for c in run_diff.relabelled} == {"other"}
    assert run_diff.worst[0]["episode_index"] == 2
    assert {c["episode_index"]: c["progress_difference"] for c in run_diff.relabelled}[1] == 0
    with pytest.raises(ReleaseError, match="there is no label run 'zz'"):
        diff_runs(corpus, run, "zz")


def test_the_flag_that_it_names_is_the_one_that_lets_it_in():
    for text in (
        "cc-by-nc-4.0",
        None,
        "other",
        "mit (default)",
        "mit (data: cc-by-nc-4.0)",
        "cc-by-nc-4.0, proprietary",
    ):
        licence = classify(text)
        names = [w for w in licence.flag.split() if w != "--allow-licence"]
        assert licence.allowed(names), text
