"""ProgressLM samples: true to the label, of pictures that may be compared, n/a where nothing fits."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from annotate.samples import edits, samples_stage
from annotate.samples.config import SamplesConfig
from annotate.samples.labelled_episode import LabelledEpisode
from annotate.samples.progresslm import CROSS_VIEW, TEXT, VISUAL
from annotate.samples.unanswerable import UNANSWERABLE
from annotate.segments import IDLE, Segment
from tests.kits.labelled import STEPS, episode

CONFIG = SamplesConfig()
OTHER = ("Open the drawer", "Close the drawer")
THINK = re.compile(
    r"<ref_think>(.+)</ref_think>\n<ref>(.+)</ref>\n<score_think>(.+)</score_think>\n<score>(.+)</score>", re.S
)


def rows(*episodes: LabelledEpisode, config: SamplesConfig = CONFIG) -> list[dict]:
    found = samples_stage(episodes, config).to_pylist()
    return [r for r in found if r["family"].startswith("progresslm")]


def corpus() -> list[LabelledEpisode]:
    """Ten runs of a task, the odd ones unfinished; five of another; two cameras where the index divides by 3."""
    runs = [
        episode(i, finished=i % 2 == 0, cameras=("front", "wrist") if i % 3 == 0 else ("front",)) for i in range(10)
    ]
    return runs + [episode(i, task="Use the drawer", steps=OTHER) for i in range(10, 15)]


def shown(r: dict) -> list[tuple[int, str, int, str]]:
    return [(p["episode_index"], p["camera"], p["frame_index"], p["edit"]) for p in r["pictures"]]


def test_quotas_forms_and_pictures():
    found = rows(*corpus())
    by_family = Counter((r["episode_index"], r["family"]) for r in found)
    assert {by_family[i, TEXT] for i in range(15)} == {3}
    assert {by_family[i, CROSS_VIEW] for i in range(15)} == {3}
    assert {by_family[i, UNANSWERABLE] for i in range(15)} == {2}
    assert [by_family[i, VISUAL] for i in range(15)] == [3, 0] * 5 + [3] * 5  # a demonstration is of a whole run
    assert {r["form"] for r in found} == {"think", "no_think"}
    assert 0.3 < sum(r["form"] == "think" for r in found) / len(found) < 0.7
    for r in found:
        assert r["question"].count("<image>") == len(r["pictures"]) == len(r["frames"])
        assert r["frames"] == [p["frame_index"] for p in r["pictures"]]
        assert r["camera"] == r["pictures"][-1]["camera"]
        assert (r["progress"] is None) == (r["reference"] is None) == (r["reason"] is not None)


def test_answers_are_the_label():
    by_index = {e.episode_index: e for e in corpus()}
    for r in rows(*corpus()):
        if r["reason"]:
            continue
        e, now = by_index[r["episode_index"]], r["frames"][-1]
        assert r["progress"] == pytest.approx(float(e.progress[now]))
        score = THINK.fullmatch(r["answer"])[4] if r["form"] == "think" else r["answer"]  # type: ignore[index]
        assert float(score.removesuffix("%")) == pytest.approx(100 * r["progress"], abs=0.0051)
        if r["form"] == "think":
            assert THINK.fullmatch(r["answer"])[2] == str(r["reference"])  # type: ignore[index]


def test_a_demonstration_in_words():
    e = episode()
    config = SamplesConfig(text_demo_per_episode=60)
    found = [r for r in rows(e, config=config) if r["family"] == TEXT]
    assert len(found) == 60
    for r in found:
        assert "1. Grasp the cup\nafter it: 50%\n2. Place the cup\nafter it: 100%\n" in r["question"]
        now = r["frames"][-1]
        assert shown(r) == [(0, "front", now, "")]
        assert r["reference"] == (1 if now < 59 else 2)
    unfinished = [r for r in rows(episode(finished=False), config=config) if r["family"] == TEXT]
    assert all("after it: 50%\n2. Place the cup\nafter it: 100%" in r["question"] for r in unfinished)


def test_a_demonstration_in_pictures():
    e = episode()
    found = [r for r in rows(e, config=SamplesConfig(visual_demo_per_episode=60)) if r["family"] == VISUAL]
    parts = 0
    for r in found:
        *demonstration, last = shown(r)
        assert last == (0, "front", r["frames"][-1], "")
        shares = [float(share) / 100 for share in re.findall(r"<image> (\d+)%", r["question"])]
        nearest = int(np.abs(e.progress[[d[2] for d in demonstration]] - r["progress"]).argmin())
        assert r["reference"] == nearest + 1
        if len(demonstration) == 3 and [d[2] for d in demonstration] == [0, 59, 179]:
            assert demonstration == [(0, "front", f, "") for f in (0, 59, 179)]
            assert shares == [0, 0.5, 1]
        else:  # it shows a part of the run, and so does the state
            parts += 1
            assert shares[0] >= 0.4 or shares[-1] <= 0.6
            first, end = (float(e.progress[demonstration[k][2]]) for k in (0, -1))
            assert first <= r["progress"] <= end
    assert 3 < parts < 30


def test_pictures_are_of_every_camera_and_mostly_of_the_preferred_one():
    e = episode(cameras=("front", "left", "wrist"))
    found = [r for r in rows(e, config=SamplesConfig(visual_demo_per_episode=60)) if r["family"] == VISUAL]
    assert all(len({p["camera"] for p in r["pictures"]}) == 1 for r in found)
    counts = Counter(r["camera"] for r in found)
    assert counts.keys() == {"front", "left", "wrist"}
    assert counts["front"] > max(counts["left"], counts["wrist"])


def test_cross_view_compares_cameras_or_runs_of_one_task():
    variants = Counter()
    by_index = {e.episode_index: e for e in corpus()}
    for r in (r for r in rows(*corpus()) if r["family"] == CROSS_VIEW):
        variants[r["variant"]] += 1
        *demonstration, last = shown(r)
        own, other = by_index[r["episode_index"]], by_index[demonstration[0][0]]
        assert last[0] == own.episode_index
        assert len({d[:2] for d in demonstration}) == 1
        if r["variant"] == "cameras":
            assert other is own
            assert demonstration[0][1] != last[1]
        else:
            assert other is not own
            assert (other.task, other.finished) == (own.task, True)
    assert variants.keys() == {"cameras", "episodes"}
    alone = [r for r in rows(episode()) if r["family"] == CROSS_VIEW]
    assert alone == []  # one camera, and no other run


def test_pictures_of_another_split_are_never_shown():
    episodes = [replace(e, split="val" if e.episode_index % 4 == 1 else "train") for e in corpus()]
    split = {e.episode_index: e.split for e in episodes}
    found = rows(*episodes)
    assert any(p["episode_index"] != r["episode_index"] for r in found for p in r["pictures"])
    for r in found:
        assert {split[p["episode_index"]] for p in r["pictures"]} == {r["split"]}


def test_without_text_or_whole_run_there_is_nothing_to_compare_with():
    assert rows(episode(task=None)) == []
    never = replace(episode(finished=False), segments=[Segment("rest", 0, 200, IDLE)], plan=())
    assert rows(never) == []


def test_samples_do_not_depend_on_the_order_of_episodes():
    def by_id(found: list[dict]) -> dict[str, dict]:
        return {r["sample_id"]: r for r in found}

    assert by_id(rows(*corpus())) == by_id(rows(*reversed(corpus())))


# Edits


def test_an_editor_is_an_entry_point_and_must_edit():
    with pytest.raises(edits.EditError, match=r"no installed package has the proccorpus.image_editors entry point 'x'"):
        edits.load_editor("x")
    rgb = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(edits.EditError, match="left a picture as it was, although told: take the cup away"):
        edits.edited(rgb, "take the cup away", 1, lambda rgb, instruction, seed: rgb, "still")
    with pytest.raises(edits.EditError, match=r"did not return an array uint8 \[h, w, 3\]"):
        edits.edited(rgb, "take the cup away", 1, lambda rgb, instruction, seed: rgb / 2, "half")
    made = edits.edited(rgb, "", 3, lambda rgb, instruction, seed: rgb + np.uint8(seed), "lamp")
    assert (made == 3).all()
    config = SamplesConfig(image_editor="lamp", unanswerable_per_episode=20)
    asked = [r for r in rows(*corpus(), config=config) if r["reason"] == "edited"]
    assert asked
    assert all(r["edit_instruction"].startswith("Take away, or replace by something else,") for r in asked)
    assert {r["edit_instruction"] for r in rows(*corpus(), config=config) if r["reason"] != "edited"} == {None}


def test_labels_without_names_demonstrate_in_pictures_alone():
    """Every fifth run of both tasks has names: all others are named nowhere, whatever asks about them."""
    named = {0, 5, 10}
    found = rows(*(replace(e, named=e.episode_index in named) for e in corpus()))
    of_families = Counter((r["family"], r["episode_index"] in named) for r in found)
    assert of_families[TEXT, False] == 0 < of_families[TEXT, True]
    assert all(of_families[name, False] for name in (VISUAL, CROSS_VIEW, UNANSWERABLE))
    for r in found:
        shows_names = any(step in r["question"] + r["answer"] for step in (*STEPS, *OTHER))
        # Once the task is done, thoughts on pictures name no step
        assert r["names_steps"] or not shows_names
        if r["episode_index"] not in named and r["family"] != UNANSWERABLE:
            assert not shows_names
    thoughts = [r["answer"] for r in found if r["family"] == VISUAL and r["episode_index"] not in named]
    assert any("shows the state that is nearest" in answer for answer in thoughts)


def test_an_editor_is_told_the_task_where_steps_have_no_names():
    config = SamplesConfig(image_editor="blur", unanswerable_per_episode=20)
    found = [r for r in rows(replace(episode(), named=False), config=config) if r["edit_instruction"]]
    assert found
    assert all(r["edit_instruction"].endswith("needed to: Put the cup away") for r in found)
