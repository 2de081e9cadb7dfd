"""The curve that an editor draws is the one that the next build stores, of our formula and of the published one."""

import pytest

from pipeline.labelled import label_curves
from tests.kits.lake_kit import opened
from tests.kits.made_corpus import Made
from warehouse.lake.corrections import CorrectionError, parsed, save, stored_label

EPISODE = 2
STATED = [
    {},
    {"completed": False, "pace": "mistake"},
    {"completed": False},
]


def changed(own: Made, last: dict, **stated) -> dict:
    """The label that counts, its first boundary moved by three frames, as a person sends it."""
    with opened(own.space, read_only=True) as lake:
        run = lake.rows(f"SELECT label_run FROM active_runs WHERE episode_index = {EPISODE}")[0][0]
        label = stored_label(lake, "tiny", EPISODE, run).model_dump() | stated
    segments = list(label["segments"])
    segments[0] |= {"end_frame": segments[0]["end_frame"] + 3}
    segments[1] |= {"start_frame": segments[1]["start_frame"] + 3}
    segments[-1] |= last
    return label | {"base_label_run": run}


@pytest.mark.parametrize(
    ("last", "stated"), [(STATED[0], {}), (STATED[1], {"final_progress": 0.4}), (STATED[2], {})]
)
def test_what_is_drawn_is_what_the_next_build_stores(own: Made, last: dict, stated: dict):
    label = changed(own, last, **stated)
    run = label.pop("base_label_run")
    with opened(own.space) as lake:
        drawn = label_curves(own.space, "tiny", EPISODE, lake.snapshot(), parsed(label))
        content = lake.rows(
            f"SELECT content_hash FROM episode_content WHERE episode_index = {EPISODE}"
        )[0][0]
        save_options = {
            "base_label_run": run,
            "base_content_hash": content,
            "author": "ada",
            "comment": "",
            "follows": None,
        }
        save(lake, "tiny", EPISODE, parsed(label), **save_options)
    rows_before = own.rows(
        f"SELECT progress FROM active_progress WHERE episode_index = {EPISODE} ORDER BY frame_index"
    )
    own.rebuild()
    built = own.rows(
        "SELECT progress, progress_procvlm FROM progress WHERE label_run = 'human/tiny' "
        f"AND episode_index = {EPISODE} ORDER BY frame_index"
    )
    assert [*zip(drawn["progress"], drawn["progress_procvlm"], strict=True)] == built
    assert [value for (value,) in rows_before] != drawn["progress"]


def test_a_label_that_contradicts_itself_has_no_curve(own: Made):
    label = changed(own, {}, final_progress=0.3)
    label.pop("base_label_run")
    with opened(own.space, read_only=True) as lake:
        snapshot = lake.snapshot()
    with pytest.raises(CorrectionError, match="the run ends at 1"):
        label_curves(own.space, "tiny", EPISODE, snapshot, parsed(label))
