"""Sources that are exchanged while a build, an export or a model reads them: nothing of another recording is stored."""

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from annotate.config import EmbeddingsConfig, SamplesConfig
from annotate.model_client.calls import VlmError
from core.errors import UserError
from core.paths import Workspace
from eval.reward.open import ScorerConfig
from eval.reward.video import frames
from pipeline.build import SILENT, BuildListener, run_build
from pipeline.config import DatasetBuild, source_build
from pipeline.episode_rewards import episode_clip, score_selection
from pipeline.stage import StageContext, StageMoment
from pipeline.stages import Step, stage_named
from pipeline.vlm_chunk import albums
from tests.kits import small_sources as sources
from tests.kits.made_corpus import restored, stage_output, with_stages
from tests.kits.reward_kit import make_checkpoint
from warehouse.exports import EXPORT_KINDS
from warehouse.exports.options import Selection
from warehouse.lake import Lake
from warehouse.lake.outcomes import StatedOutcome, add_outcomes
from warehouse.lake.statements import take_down
from warehouse.shards.shard import named_picture, read_samples

RUNS = [sources.Recording(serial, 40) for serial in range(1, 8)]
SWAPPED = (2, 5)  # episodes that change places
OTHERS = {0, 1, 3, 4, 6}
OWN = {episode: {episode + 1} for episode in OTHERS}  # serials by episode
ANY = Selection(allow=("unknown",))
# How a source is written, and which of its files are exchanged
FORMS = {
    "rows and videos": (sources.write_v2, "*"),
    "videos beside rows": (sources.write_v2, "*.mp4"),
    "videos alone": (sources.write_videos, "*.mp4"),
    "rows with pictures": (sources.write_hdf5, "*"),
}
FIRST, *OTHER_FORMS = FORMS
SLOW = [pytest.param(form, marks=pytest.mark.slow) for form in OTHER_FORMS]
EACH_FORM = pytest.mark.parametrize("form", [FIRST, *SLOW])


def swap(root: Path, files: str = "*") -> None:
    """The files of two episodes change places; what is in them, and their times, stay."""
    first, second = (f"{episode:03d}" for episode in SWAPPED)
    for path in sorted(root.rglob(files)):
        if path.stem.endswith(first):
            partner = path.with_stem(path.stem.removesuffix(first) + second)
            aside = path.rename(path.with_suffix(".aside"))
            partner.rename(path)
            aside.rename(partner)


class At(BuildListener):
    """Does something once, when a stage of a build begins."""

    def __init__(self, stage: str, action: Callable[[], None]) -> None:
        self.actions = {stage: action}

    def moment(self, moment: StageMoment) -> None:
        self.actions.pop(moment.stage, lambda: None)()


def dataset_build(source: Path, samples: int = 4) -> DatasetBuild:
    config = SamplesConfig(progress_per_episode=samples)
    build = source_build(source, "arm", None, None)
    return with_stages(build, embeddings=EmbeddingsConfig(when="never"), samples=config)


def built(space: Workspace, source: Path, samples: int = 4, listener: BuildListener = SILENT):
    report = run_build(space, [dataset_build(source, samples)], 1, listener, accept_changes=True)
    assert report.failed == []
    return [(run.run.stage, run.run.chunk) for run in report.done]


def rows(space: Workspace, sql: str) -> list[tuple]:
    return Lake(space, read_only=True).rows(sql)


def changes(space: Workspace) -> list[tuple]:
    changed = "reason = 'changed_during_build' AND file IS NOT NULL"
    return rows(
        space, f"SELECT episode_index, stage, severity FROM findings WHERE {changed} ORDER BY 1"
    )


def serials_in_shards(space: Workspace) -> dict[int, set[int | None]]:
    """By episode the serials that its pictures show, whichever samples show them."""
    shards = rows(space, "SELECT split, shard, store FROM shards ORDER BY 2")
    serials: dict[int, set[int | None]] = defaultdict(set)
    for sample in read_samples([Lake(space, read_only=True).workspace.shard(*s) for s in shards]):
        for name, jpeg in zip(sample.row["pictures"], sample.pictures, strict=True):
            shown = named_picture(sample.row["episode_index"], name) or {}
            # Patches may cover the strip
            if not shown["edit"]:
                serials[shown["episode_index"]].add(sources.serial_in(sources.decoded(jpeg)))
    return serials


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("measured")


def measured(place: Path, form: str) -> tuple[Workspace, Path, str]:
    """A corpus, its source, and a pattern of the files that are exchanged."""
    write, files = FORMS[form]

    def make(folder: Path) -> None:
        built(Workspace(folder / "workspace"), write(folder / "source", RUNS))

    folder = restored(place / form, make)
    return Workspace(folder / "workspace"), folder / "source", files


@EACH_FORM
def test_shards_hold_no_picture_of_another_recording(place, form):
    space, source, files = measured(place, form)
    built(space, source, 12, At("shards", lambda: swap(source, files)))
    assert changes(space) == [(episode, "shards", "unusable") for episode in SWAPPED]
    assert serials_in_shards(space) == OWN

    # Back as it was: the shards alone are made again
    swap(source, files)
    assert built(space, source, 12) == [("shards", 0)]
    assert changes(space) == []
    assert serials_in_shards(space) == OWN | {2: {3}, 5: {6}}


# The test before this one has the first half of the second
STAGES = [
    ("frames", {2: {6}, 5: {3}}),
    pytest.param("shards", {2: {3}, 5: {6}}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("stage", "swapped"), STAGES)
def test_the_next_build_takes_the_source_as_it_is_then(place, tmp_path, stage, swapped):
    space, source, files = measured(place, "rows and videos")
    if stage == "frames":
        space = Workspace(tmp_path / "unmeasured")
    built(space, source, 12, At(stage, lambda: swap(source, files)))
    assert changes(space) == [(episode, stage, "unusable") for episode in SWAPPED]
    assert serials_in_shards(space) == OWN
    built(space, source, 12)
    assert changes(space) == []
    # A number is that of the recording that was measured under it, wherever that stands in the source
    assert serials_in_shards(space) == OWN | swapped


def test_words_stay_with_recordings_that_move_behind_the_listing(place):
    space, source, files = measured(place, "rows and videos")
    withdrawn, failed = SWAPPED
    lake = Lake(space)
    take_down(lake, "arm", [withdrawn], "she asked for it")
    add_outcomes(lake, "arm", "ends.csv", [StatedOutcome(failed, False, None, "ada")])
    lake.con.close()
    built(space, source, 12, At("frames", lambda: swap(source, files)))
    assert serials_in_shards(space) == OWN
    built(space, source, 12)
    assert serials_in_shards(space) == OWN | {failed: {failed + 1}}
    words = "SELECT kind, episode_index FROM current_statements WHERE kind <> 'build' ORDER BY 1"
    assert rows(space, words) == [("outcome", failed), ("takedown", withdrawn)]


@pytest.mark.parametrize("kind", ["lerobot", pytest.param("rerun", marks=pytest.mark.slow)])
@EACH_FORM
def test_an_export_is_refused(place, tmp_path, form, kind):
    space, source, files = measured(place, form)
    export = EXPORT_KINDS[kind].export
    for path in source.rglob("*.*"):
        os.utime(path, (1, 1))  # copied anew, which makes no other recording of it
    export(Lake(space, read_only=True), ANY, tmp_path / "before")
    swap(source, files)
    with pytest.raises(UserError, match=r"arm episode [25] ha.* changed: build the dataset again"):
        export(Lake(space, read_only=True), ANY, tmp_path / "out")
    with pytest.raises(UserError, match="arm episode 2 has changed"):
        list(frames(episode_clip(space, "arm", 2)[0], partial=True))


def test_a_model_scores_only_what_was_measured(place, tmp_path):
    space, source, files = measured(place, "videos beside rows")
    config = ScorerConfig(make_checkpoint(tmp_path / "bars"))
    swap(source, files)
    with pytest.raises(UserError, match=r"frame 0 of .* is not the one that was measured"):
        score_selection(Lake(space), config, ANY, 2.5)
    assert rows(space, "FROM eval_predictions") == []
    swap(source, files)
    assert score_selection(Lake(space), config, ANY, 2.5).scored_now == len(RUNS)


def test_encoders_and_models_are_shown_only_what_was_measured(place):
    space, source, files = measured(place, "videos beside rows")
    swap(source, files)
    lake = Lake(space)
    build = with_stages(
        dataset_build(source), embeddings=EmbeddingsConfig(when="always", encoder="grey")
    )
    output = stage_output(stage_named("embeddings"), lake, build, 0)
    assert output.findings is not None
    found = [(f.reason, f.episode_index) for f in output.findings]
    assert found == [("changed_during_build", episode) for episode in SWAPPED]
    assert {*output.tables["embeddings"]["episode_index"].to_pylist()} == OTHERS

    step = Step(stage_named("segments").spec(build), "arm", 0, "stale", "in")
    context = StageContext(lake, build, step, build.source(space.sources))
    of_episode = {
        signals.episode_index: album for signals, album in albums(context, context.signals())
    }
    for episode in OTHERS:
        assert of_episode[episode].load([7]).keys() == {7}
    for episode in SWAPPED:
        with pytest.raises(VlmError, match="is not the one that was measured") as error:
            of_episode[episode].load([7])
        assert error.value.reason == "changed_during_build"
        assert of_episode[episode].rows == []
