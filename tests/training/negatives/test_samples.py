"""Changed samples: pictures, question, answer and progress fit one another."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from annotate.samples.procvqa import progress_answer, progress_question
from tests.kits.labelled import relabelled
from tests.kits.negatives_kit import STEPS, TASKS, runs, write_shards
from tests.kits.training_kit import killed_and_resumed, recipe
from training.data import Unread, unread
from training.folder import read_card
from training.negatives.samples import Labels, SampleNegatives
from training.negatives.windows import Instructions
from training.recipe import KINDS, OTHER_TASK, NegativesConfig
from training.train import train
from warehouse.shards.loader import Loader, LoaderConfig
from warehouse.shards.shard import Sample

RUNS = runs()


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[Sample]:
    shards = write_shards(tmp_path_factory.mktemp("negatives"), RUNS)
    return list(Loader(shards, LoaderConfig(families=("procvqa_c",))))


@pytest.fixture
def changed(samples: list[Sample]) -> Callable[..., list[tuple[Sample, Unread]]]:
    def made(kind: str, labels: Labels = RUNS) -> list[tuple[Sample, Unread]]:
        change = SampleNegatives(NegativesConfig(**{kind: 1}), labels)
        rng = np.random.default_rng(0)
        pairs = [(s, change([unread(s)], rng)[0]) for s in samples]
        return [(s, u) for s, u in pairs if u.row["negative"] == kind]

    return made


def label(row: Any, frame: int) -> float:
    return float(RUNS[row["dataset"], row["episode_index"]].label.progress[frame])


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_question_answer_and_progress_fit(kind, changed, samples):
    changed_pairs = changed(kind)
    assert len(changed_pairs) > 0.5 * len(samples)
    for original, changed_sample in changed_pairs:
        row = changed_sample.row
        assert len(changed_sample.pictures()) == len(changed_sample.sizes()) == len(row["frames"])
        assert f"<progress>{100 * row['progress']:.2f}%</progress>" in row["answer"]
        by_name = dict(original.entry)
        assert changed_sample.pictures() == tuple(by_name[name] for name in row["pictures"])
        if kind != OTHER_TASK:
            assert row["question"] == original.row["question"]
            assert row["progress"] == pytest.approx(label(row, row["frames"][-1]))
            e = RUNS[row["dataset"], row["episode_index"]]
            assert row["answer"] == progress_answer(e, row["frames"][-1])


def test_rewound_ends_with_less(changed):
    fallen = 0
    for original, changed_sample in changed("rewound"):
        assert changed_sample.row["progress"] <= original.row["progress"]
        fallen += changed_sample.row["progress"] < original.row["progress"]
    assert fallen > 10


@pytest.mark.parametrize("unnamed", [None, TASKS[0]])
def test_a_wrong_instruction_is_worth_nothing(unnamed, changed):
    labels = {key: relabelled(e, sure_of_names=e.label.task != unnamed) for key, e in RUNS.items()}
    assert changed(OTHER_TASK, labels)
    for original, changed_sample in changed(OTHER_TASK, labels):
        row = changed_sample.row
        own_task = TASKS[original.row["episode_index"] % 3]
        named_task = next(line for line in row["question"].splitlines() if "task:" in line).split(
            "task: "
        )[1]
        assert own_task not in row["question"]
        assert row["question"] == progress_question(named_task, len(row["frames"]))
        assert row["progress"] == 0.0
        assert row["frames"] == original.row["frames"]
        assert row["answer"].count("\n") == 3
        first, second = STEPS[TASKS.index(named_task)]
        assert f"1. {first}\n2. {second}\n" in row["answer"]


def test_other_speeds_show_the_same_moment_and_others_before_it(changed):
    steps = []
    for original, changed_sample in changed("other_speed"):
        assert changed_sample.row["frames"][-1] == original.row["frames"][-1]
        assert changed_sample.row["frames"] == sorted(changed_sample.row["frames"])
        steps.append(
            np.diff(changed_sample.row["frames"]).mean() / np.diff(original.row["frames"]).mean()
        )
    assert min(steps) < 0.7
    assert max(steps) > 1.4


def test_what_cannot_be_told_wrong_stays_as_it_was(samples, changed):
    nameless = {key: relabelled(e, task=None) for key, e in RUNS.items()}
    one_task = {key: relabelled(e, task=TASKS[0]) for key, e in RUNS.items()}
    assert not any(changed(OTHER_TASK, labels) for labels in (nameless, one_task, {}))
    # Without a label there is no progress to fall
    assert changed("rewound", {}) == []
    change = SampleNegatives(NegativesConfig(rewound=1), {})
    row = change([unread(samples[0])], np.random.default_rng(0))[0].row
    assert row["negative"] == "as_recorded"


def test_other_families_are_left_alone(tmp_path):
    shards = write_shards(tmp_path, RUNS)
    change = SampleNegatives(NegativesConfig(other_task=1), RUNS)
    rng = np.random.default_rng(0)
    other_samples = list(Loader(shards, LoaderConfig(families=("procvqa_b",))))
    assert other_samples
    for s in other_samples:
        assert change([unread(s)], rng)[0].row == s.row


def test_where_no_other_instruction_differs_none_is_made_up():
    cup = "Put the red cup away."
    drawer = "Open the green drawer."
    rng = np.random.default_rng(0)
    assert Instructions([cup, cup]).other(cup, rng) is None
    assert Instructions([cup, drawer]).other("", rng) is None
    assert Instructions([]).other(cup, rng) is None
    assert Instructions([cup, drawer], {cup: drawer}).other(cup, rng) is None, "people joined them"


def test_a_run_counts_what_it_was_shown(released):
    rates = {"rewound": 0.3, "stood_still": 0.4}
    run_recipe = recipe(data={"negatives": rates}, train={"steps": 4, "batch": 4, "save_every": 2})
    whole = train(*released, run_recipe)
    negatives_made = read_card(whole.checkpoint)["negatives"]
    assert sum(negatives_made.values()) == whole.samples == 16
    assert negatives_made.keys() <= {"as_recorded", *rates}
    assert len(negatives_made) > 1

    resumed_run = killed_and_resumed(*released, run_recipe, kill_step=3)
    assert read_card(resumed_run.checkpoint)["negatives"] == negatives_made
    assert [p.loss for p in resumed_run.curve] == pytest.approx(
        [p.loss for p in whole.curve], abs=1e-6
    )
