"""Which episode is which: indices that stick, copies, known-bad episodes, gaps, the instruction that counts."""

from typing import Any

import pytest

from core.domain.label import EpisodeFrame
from ingest.episode import EpisodeRecord, Finding, Listing
from ingest.episodes import settle, with_numbers
from ingest.registry import DatasetConfig


def listing(ids: list[str], *findings: Finding, **fields: Any) -> Listing:
    records = tuple(
        EpisodeRecord(i, name, 10.0, **{"task": None, **fields}) for i, name in enumerate(ids)
    )
    return Listing("rlds", 10.0, None, (), records, findings, numbered=False)


def config(**fields: Any) -> DatasetConfig:
    return DatasetConfig(name="toy", source="/nowhere", **fields)


def indices(settled: Listing) -> dict[str, int]:
    return {r.source_id: r.episode_index for r in settled.records}


def test_a_number_is_never_given_twice():
    def numbers(names: list[str], known: dict[str, int]) -> dict[str, int]:
        return indices(with_numbers(listing(names), known, len(known)))

    known = {"a": 0, "b": 1, "c": 2}
    assert numbers(["a", "b"], {}) == {"a": 0, "b": 1}, "a first build counts as the source does"
    assert list(numbers(["d", "a"], known).items()) == [("a", 0), ("d", 3)]
    assert numbers(["c", "a"], known) == {"a": 0, "c": 2}


def test_a_record_has_both_numbers_where_they_differ():
    compared = [EpisodeFrame(6, 3), EpisodeFrame(4, 1), None]
    records = tuple(
        EpisodeRecord(i, f"episode_{i}", 10.0, None, as_far_as=frame)
        for i, frame in zip((1, 2, 6), compared, strict=True)
    )
    own_listing = Listing("lerobot_v2.1", 10.0, None, (), records, ())
    numbered = with_numbers(own_listing, {"episode_1": 1, "episode_2": 3, "episode_6": 2}, 4)
    assert [(r.episode_index, r.source_index, r.number_in_source) for r in numbered.records] == [
        (1, None, 1),
        (2, 6, 6),
        (3, 2, 2),
    ]
    assert [r.as_far_as for r in numbered.records] == [EpisodeFrame(2, 3), None, None]


def test_findings_follow_their_episode():
    findings_made = Finding("no_task", "x", "warning", 0), Finding("stray_file", "y", "warning")
    numbered = with_numbers(listing(["a", "b"], *findings_made), {"b": 0}, 1)
    assert indices(numbered) == {"b": 0, "a": 1}
    assert [(f.reason, f.episode_index) for f in numbered.findings] == [
        ("no_task", 1),
        ("stray_file", None),
    ]


def test_indices_of_the_source_stay_and_gaps_are_told():
    records = tuple(EpisodeRecord(i, f"episode_{i}", 10.0, None) for i in (1, 2, 6))
    own_listing = Listing("lerobot_v2.1", 10.0, None, (), records, ())
    settled = settle(own_listing, config())
    assert [r.episode_index for r in settled.records] == [1, 2, 6]
    assert [(f.reason, f.severity, f.detail) for f in settled.findings] == [
        ("no_data", "warning", "no episode 0"),
        ("no_data", "warning", "no episode 3-5"),
    ]


def test_a_copy_is_quarantined_under_an_index_of_its_own():
    settled = settle(listing(["a", "b", "a", "a"]), config())
    assert indices(settled) == {"a": 0, "b": 1, "a#2": 2, "a#3": 3}
    assert [(f.reason, f.severity, f.episode_index) for f in settled.findings] == [
        ("duplicate_episode", "unusable", 2),
        ("duplicate_episode", "unusable", 3),
    ]


def test_episodes_that_the_registry_names_as_broken():
    settled = settle(listing(["a", "b"]), config(bad_episodes={"b": "robot fell", "z": "not here"}))
    (finding,) = settled.findings
    assert (finding.reason, finding.severity, finding.episode_index) == ("known_bad", "unusable", 1)
    assert finding.detail == "the registry says: robot fell"


TEXTS = ("pick it", "take it", "grab it")


def test_one_of_several_paraphrases_by_hash_of_the_episode():
    paraphrased = listing([f"e{i}" for i in range(60)], task=TEXTS[0], tasks=TEXTS)
    settled = settle(paraphrased, config(instruction="paraphrases"))
    chosen = {r.source_id: r.task for r in settled.records}
    assert set(chosen.values()) == set(TEXTS)
    assert all(r.tasks == TEXTS for r in settled.records)
    later = settle(
        listing(["e7", "e3"], task=TEXTS[0], tasks=TEXTS), config(instruction="paraphrases")
    )
    assert {r.source_id: r.task for r in later.records} == {k: chosen[k] for k in ("e3", "e7")}


@pytest.mark.parametrize(
    ("policy", "task"), [("given", "pick it"), ("timed_steps", "pick it"), ("uninformative", None)]
)
def test_other_instruction_policies(policy, task):
    settled = settle(listing(["a"], task=TEXTS[0], tasks=TEXTS), config(instruction=policy))
    assert (settled.records[0].task, settled.records[0].tasks) == (task, TEXTS)
    assert [f.reason for f in settled.findings] == (["no_task"] if task is None else [])


@pytest.mark.parametrize(("published", "told"), [(None, 0), (10.0, 0), (10.1, 0), (20.0, 1)])
def test_a_copy_with_another_rate_than_published(published, told):
    settled = settle(listing(["a"]), config(published={"fps": published}))
    assert [(f.reason, f.severity, f.episode_index) for f in settled.findings] == [
        ("frame_rate", "warning", None)
    ] * told
    assert settled.fps == 10.0
