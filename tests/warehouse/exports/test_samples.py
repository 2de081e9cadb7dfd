"""Exports of samples, as those who read them do: LLaMA-Factory's documented layout, EasyR1 and verl, `datasets`."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from core.errors import UserError
from tests.kits.made_corpus import Made
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.options import Selection
from warehouse.exports.samples import shown_path
from warehouse.lake import Lake
from warehouse.lake.statements import take_down
from warehouse.releases.release import Release, create_release
from warehouse.shards.progresslm import ground_truth
from warehouse.shards.shard import Sample, ShardError, read_samples

ANY = ("unknown",)


KINDS = {kind: EXPORT_KINDS[kind].export for kind in ("llamafactory", "easyr1", "datasets")}


@dataclass(frozen=True)
class Frozen:
    lake: Lake
    release: Release
    samples: dict[str, Sample]  # what the shards hold, by id
    folder: Path  # with an export of each kind, of all of the release

    @property
    def selection(self) -> Selection:
        return Selection(release=self.release.name, allow=ANY)


@pytest.fixture(scope="module")
def frozen(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Frozen]:
    folder = tmp_path_factory.mktemp("exports")
    lake = Lake(made.copy(folder).space)
    release = create_release(lake, "r1", allow=ANY)
    tars = [s.path(lake.workspace) for s in release.shard_list]
    frozen_release = Frozen(
        lake, release, {s.row["sample_id"]: s for s in read_samples(tars)}, folder
    )
    for kind, export in KINDS.items():
        export(lake, frozen_release.selection, folder / kind)
    yield frozen_release
    lake.con.close()


def think(samples: dict[str, Sample]) -> dict[str, Sample]:
    return {i: s for i, s in samples.items() if s.row["form"] == "think"}


# EasyR1 and verl


def test_a_ground_truth_that_contradicts_itself_is_an_error(frozen: Frozen):
    sample = next(s for s in think(frozen.samples).values() if s.row["reference"])
    ground = ground_truth(sample)
    assert ground["ref"] == str(sample.row["reference"])
    assert float(ground["score_percent"]) == pytest.approx(100 * float(ground["score_fraction"]))
    assert {"score_text", "demo_count"} < set(ground)
    assert ground["target_response"] == sample.row["answer"]
    for change in ({"reference": 99}, {"reference": None}, {"question": "What now?"}):
        with pytest.raises(ShardError, match="do not go together"):
            ground_truth(Sample({**sample.row, **change}, sample.pictures))


# What goes for all


def test_a_profile_is_what_draw_draws(frozen: Frozen, tmp_path: Path):
    from warehouse.shards.progresslm import PROFILES, draw

    assert sum(PROFILES["progresslm_sft"].counts.values()) == 25_248, (
        "as published; the other's is in the note"
    )
    options = EXPORT_KINDS["easyr1"].read_options({"profile": "progresslm_rl"})
    exported = KINDS["easyr1"](frozen.lake, frozen.selection, tmp_path / "out", options)
    drawn = (
        draw(frozen.lake.workspace, frozen.release, "progresslm_rl")
        .samples["sample_id"]
        .to_pylist()
    )
    rows = pq.read_table(tmp_path / "out/train", columns=["extra_info"])["extra_info"].to_pylist()
    assert sorted(r["sample_id"] for r in rows) == sorted(drawn)
    assert (
        exported.notes[-1]
        == f"the profile progresslm_rl wants 20428 samples, and there are {len(drawn)}"
    )


def test_families_and_forms_are_chosen(frozen: Frozen, tmp_path: Path):
    def export(folder: str, **options: Any) -> set[str]:
        KINDS["datasets"](
            frozen.lake,
            frozen.selection,
            tmp_path / folder,
            EXPORT_KINDS["datasets"].read_options(options),
        )
        return set(
            chain.from_iterable(
                pq.read_table(p)["sample_id"].to_pylist()
                for p in (tmp_path / folder / "samples").rglob("*.parquet")
            )
        )

    text = {i for i, s in frozen.samples.items() if s.row["family"] == "progresslm_text"}
    assert export("text", families=["progresslm_text"]) == text
    assert export("all", forms=["think"]) == {
        i for i, s in frozen.samples.items() if s.row["form"] != "no_think"
    }
    assert (
        export("both", families=["progresslm_text"], forms=["think"])
        == text & think(frozen.samples).keys()
    )
    for options, reason in (
        (
            {"families": ["procvqa_z"]},
            "there is no sample of a family 'procvqa_z'; families here: ",
        ),
        (
            {"profile": "progresslm_rl", "forms": ["think"]},
            "says which families and forms: leave --family and --form",
        ),
    ):
        with pytest.raises(UserError, match=reason):
            export("none", **options)


def test_what_shows_an_episode_taken_down_since_is_left_out(
    corpus: Lake, own: Made, tmp_path: Path
):
    lake = corpus
    create_release(lake, "r1", allow=ANY)
    counts: dict[int, set[str]] = {}  # samples that show an episode
    for s in read_samples([Path(p) for p in own.space.root.glob("shards/*/*.tar")]):
        for e in {int(shown_path(s.row, p).split("/")[1]) for p in s.row["pictures"]} | {
            s.row["episode_index"]
        }:
            counts.setdefault(e, set()).add(s.row["sample_id"])
    removed_episode = max(counts, key=lambda e: len(counts[e]))
    export_before = KINDS["datasets"](lake, Selection(release="r1", allow=ANY), tmp_path / "before")
    take_down(lake, "tiny", [removed_episode], "withdrawn")
    exported = KINDS["datasets"](lake, Selection(release="r1", allow=ANY), tmp_path / "after")
    assert exported.left_out == (f"tiny: episodes {removed_episode} taken down",)
    assert exported.samples is not None
    assert export_before.samples is not None
    assert exported.samples == export_before.samples - len(counts[removed_episode])
    for path in (tmp_path / "after/samples").rglob("*.parquet"):
        for row in pq.read_table(path, columns=["images", "episode_index"]).to_pylist():
            assert row["episode_index"] != removed_episode
            assert not any(f"/{removed_episode:06d}/" in i["path"] for i in row["images"])


def test_names_of_pictures_are_read_as_they_are_written():
    from warehouse.shards.shard import picture_name

    for episode, camera, frame, edit in [
        (7, "observation.images.front", 3, ""),
        (7, "cam.000001", 12, "occluded-5b9525f6"),
        (1234567, "c", 9999999, ""),
        (8, "e000007x", 0, "edited-aa"),
    ]:
        name = picture_name(
            7, {"episode_index": episode, "camera": camera, "frame_index": frame, "edit": edit}
        )
        path = shown_path({"dataset": "d", "episode_index": 7, "sample_id": "s"}, name)
        assert path == f"d/{episode:06d}/{camera}/{frame:06d}{'.' * bool(edit)}{edit}.jpg"
    with pytest.raises(ShardError, match="no picture's name"):
        shown_path({"dataset": "d", "episode_index": 7, "sample_id": "s"}, "samples.json")


def test_a_corpus_whose_shards_are_behind_is_refused(corpus: Lake, tmp_path: Path):
    corpus.con.execute("DELETE FROM lake.sample_location WHERE chunk = 0")
    with pytest.raises(
        UserError, match=r"tiny has \d+ samples that are in no shard yet: build it again"
    ):
        KINDS["datasets"](corpus, Selection(allow=ANY), tmp_path / "out")
