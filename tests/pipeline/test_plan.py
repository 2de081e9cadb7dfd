"""What is up to date: missing, stale, waiting or current, for each stage and partition."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import pytest

from pipeline import plan as planning
from pipeline.plan import CURRENT, MISSING, STALE, WAITING, History, former_hash, hash_of, plan
from pipeline.stage import Output, StageContext
from pipeline.stages import Stage, StageSpec, Step
from tests.kits.lake_kit import facts, stage_run
from warehouse.lake import Lake, LakeError


def nothing(context: StageContext) -> Output:
    return Output({})


def stage(name: str, *upstream: str) -> Stage:
    """A stage that the plan can look at; none is run here."""
    return Stage(name, upstream, nothing, config=lambda build: (), code_version="", description="")


SPECS = (
    StageSpec(stage("episodes"), "episodes-1", "config e"),
    StageSpec(stage("frames", "episodes"), "frames-1", "config f"),
    StageSpec(stage("segments", "episodes", "frames"), "motion-1", "config s", "run1"),
    StageSpec(stage("progress", "frames", "segments"), "progress-1", "config p", "run1"),
    StageSpec(stage("samples", "episodes", "segments", "progress"), "samples-1", "config q"),
)
AFTER_LISTING = ("frames", "segments", "progress", "samples")
DOWNSTREAM = {stage: AFTER_LISTING[k:] for k, stage in enumerate(AFTER_LISTING)}


class Corpus:
    """A dataset whose stages publish nothing but their lines."""

    def __init__(self, lake: Lake, dataset: str) -> None:
        self.lake = lake
        self.dataset = dataset
        self.specs = SPECS
        self.fingerprint = "files 1"

    def plan(self, only_chunk: int | None = None) -> list[Step]:
        specs = {self.dataset: self.specs}
        return plan(self.lake, specs, {self.dataset: self.fingerprint}, only_chunk)

    def status(self) -> dict[tuple[str, int | None], str]:
        return {(s.stage.name, s.chunk): s.status for s in self.plan()}

    def not_current(self) -> dict[tuple[str, int | None], str]:
        return {k: status for k, status in self.status().items() if status != CURRENT}

    def run(self, stage: str, chunk: int | None, output: str = "") -> None:
        """Publish a stage as the plan wants it now."""
        step = next(s for s in self.plan() if (s.stage.name, s.chunk) == (stage, chunk))
        assert step.input_hash
        spec = next(s for s in self.specs if s.name == stage)
        run = stage_run(
            stage=stage,
            dataset=self.dataset,
            chunk=chunk,
            label_run=spec.label_run,
            code_version=spec.code_version,
            input_hash=step.input_hash,
            output_hash=output or f"{stage} {chunk}",
        )
        chunks = (0, 1) if chunk is None else ()
        parts = [replace(run, chunk=c, output_hash=f"facts {c}") for c in chunks]
        self.lake.publish(run, {}, parts=parts)

    def finish(self) -> list[tuple[str, int | None]]:
        """Publish what is missing or stale, one after the other."""
        ran = []
        while steps := [s for s in self.plan() if s.status in (MISSING, STALE)]:
            ran.append((steps[0].stage.name, steps[0].chunk))
            self.run(*ran[-1])
        return ran

    def change(self, stage: str, **fields: str) -> None:
        self.specs = tuple(replace(s, **fields) if s.name == stage else s for s in self.specs)


@pytest.fixture
def corpus(lake: Lake, ds: str) -> Corpus:
    return Corpus(lake, ds)


@pytest.fixture
def filled(corpus: Corpus) -> Corpus:
    """All stages of two chunks done."""
    corpus.run("episodes", None)
    corpus.finish()
    return corpus


def test_a_build_goes_from_nothing_in_an_order_in_which_it_can(corpus):
    (step,) = corpus.plan()
    assert (step.stage.name, step.chunk, step.status) == ("episodes", None, MISSING)
    assert step.input_hash == hash_of(SPECS[0].inputs | {"source": "files 1"})
    corpus.run("episodes", None)
    waiting_steps = dict.fromkeys(product(("segments", "progress", "samples"), (0, 1)), WAITING)
    listed = {("episodes", None): CURRENT, ("frames", 0): MISSING, ("frames", 1): MISSING}
    assert corpus.status() == listed | waiting_steps
    assert all((s.input_hash == "") == (s.status == WAITING) for s in corpus.plan())
    assert corpus.finish() == [(stage, c) for c, stage in product((0, 1), DOWNSTREAM)]


def test_another_output_or_setting_makes_what_follows_stale_or_wait(filled):
    for stage in DOWNSTREAM:
        filled.run(stage, 0, output="something new")
        later_stages = [s for s in DOWNSTREAM[stage] if s != stage]
        assert filled.not_current() == {
            (s, 0): WAITING if k else STALE for k, s in enumerate(later_stages)
        }
        filled.run(stage, 0)  # the same output again, as after a mere rerun
        for field in ("config_hash", "code_version"):
            filled.change(stage, **{field: "changed"})
            later_stages = dict.fromkeys(product(DOWNSTREAM[stage], (0, 1)), WAITING)
            assert filled.not_current() == later_stages | {(stage, 0): STALE, (stage, 1): STALE}
            filled.specs = SPECS
            assert filled.not_current() == {}
    filled.change("frames", config_hash="changed")
    filled.run("frames", 0)  # the outcome is as before: what reads it is current again
    assert {chunk for _, chunk in filled.not_current()} == {1}


def test_a_source_that_changed_makes_everything_wait(filled):
    for change in ({"config_hash": "changed"}, {"code_version": "episodes-2"}, None):
        filled.change("episodes", **change) if change else setattr(filled, "fingerprint", "files 2")
        status = filled.status()
        assert status.pop(("episodes", None)) == STALE
        assert set(status.values()) == {WAITING}
        filled.specs = SPECS
    filled.run("episodes", None)  # it lists the same
    assert filled.not_current() == {}


def test_another_label_run_is_missing_and_the_old_one_stays(filled):
    filled.change("segments", label_run="run2")
    filled.change("progress", label_run="run2")
    waiting = dict.fromkeys(product(DOWNSTREAM["segments"], (0, 1)), WAITING)
    assert filled.not_current() == waiting | {("segments", 0): MISSING, ("segments", 1): MISSING}
    filled.run("segments", 0, output="by run2")
    assert filled.status()["progress", 0] == MISSING
    filled.specs = SPECS
    assert filled.not_current() == {}
    # Of two runs whose labels are as they should be, those that were published last count
    filled.change("progress", label_run="run2")
    filled.run("progress", 0)
    filled.specs = SPECS
    assert filled.not_current() == {("progress", 0): STALE, ("samples", 0): WAITING}


def test_datasets_and_chunks_are_planned_apart(filled, lake):
    steps = [(s.stage.name, s.chunk) for s in filled.plan(only_chunk=1)]
    assert steps == [("episodes", None), *((s, 1) for s in DOWNSTREAM)]
    other_corpus = Corpus(lake, f"{filled.dataset}b")
    other_corpus.run("episodes", None)
    both = {filled.dataset: SPECS, other_corpus.dataset: SPECS}
    steps = plan(lake, both, {filled.dataset: "files 1", other_corpus.dataset: "f"})
    assert {s.status for s in steps if s.dataset == filled.dataset} == {CURRENT}
    assert next(s for s in steps if s.dataset == other_corpus.dataset).status == STALE
    # Stale chunks are counted whatever the source is now
    assert planning.stale_chunks(lake, both) == {other_corpus.dataset: 2}
    filled.run("frames", 1, output="other frames")
    filled.fingerprint = "files 2"
    assert planning.stale_chunks(lake, {filled.dataset: filled.specs}) == {filled.dataset: 1}
    filled.change("samples", config_hash="other samples")
    assert planning.stale_chunks(lake, {filled.dataset: filled.specs}) == {filled.dataset: 2}


def test_what_a_stage_reads_is_its_input_and_nothing_else():
    """By field and word of people: only a change of one that the stage reads makes it stale."""
    names = ("rows", "text", "outcome", "others", "corrections")
    values: dict[str, str] = dict.fromkeys(names, "1")
    last = StageSpec(stage("samples", "episodes", "corrections"), "s-1", "config s")

    def planned(
        reads: Sequence[str], values: Mapping[str, str], **runs: Mapping[str, str]
    ) -> list[tuple[str, str, str]]:
        fields = {name: value for name, value in values.items() if name != "corrections"}
        listed = {"output_hash": "facts", "inputs": json.dumps(fields)}
        spec = StageSpec(replace(stage("corrections", "episodes"), reads=reads), "c-1", "config c")
        rows = {(name, "d", 0, ""): run for name, run in ({"episodes": listed} | runs).items()}
        of_chunk = {"corrections": values.get("corrections", "")}.__getitem__
        specs = (SPECS[0], spec, last)
        steps = planning.chunk_steps(
            "d", 0, specs, History(rows, {}), {"episodes": "facts"}, of_chunk
        )
        return [(s.stage.name, s.status, s.input_hash) for s in steps]

    for reads in ((), ("rows",), ("text", "outcome"), ("others", "corrections"), names):
        [(_, status, input_hash), later] = planned(reads, values)
        assert (status, later) == (MISSING, ("samples", WAITING, ""))
        of_stage = {"code version": "c-1", "settings": "config c"}
        assert input_hash == hash_of(of_stage | {name: values[name] for name in reads})
        run = {"input_hash": input_hash, "output_hash": "made"}
        for name in names:
            [(_, status, _), later] = planned(reads, values | {name: "2"}, corrections=run)
            assert status == (STALE if name in reads else CURRENT)
            assert later[1] == (WAITING if name in reads else MISSING)
    # Without a word of people there is no such stage, and none waits for it; what it made before has to go
    assert [step[:2] for step in planned(names, {"rows": "1"})] == [("samples", MISSING)]
    assert [s for _, s, _ in planned(names, {"rows": "1"}, corrections=run)] == [STALE, WAITING]


def test_what_an_earlier_version_published_stays():
    """Its lines have no `inputs`; whether it listed the chunk, or a version of today did, says the same of it."""
    segments = replace(SPECS[2], stage=replace(SPECS[2].stage, reads=("text", "outcome")))
    earlier = {"output_hash": "facts", "outcomes_hash": "known", "others_hash": ""}
    today = {"output_hash": "facts", "inputs": json.dumps({"text": "t", "outcome": "known"})}
    frames = {"input_hash": former_hash(SPECS[1], ["facts"]), "output_hash": "f"}
    of_segments = {"input_hash": former_hash(segments, ["facts", "f", "known"]), "output_hash": "s"}
    changed = {"output_hash": "others", "inputs": today["inputs"]}
    for listed, status in ((earlier, CURRENT), (today, CURRENT), (changed, STALE)):
        rows = {("episodes", "d", 0, ""): listed, ("frames", "d", 0, ""): frames}
        history = History(rows | {("segments", "d", 0, "run1"): of_segments}, {})
        outputs = {"episodes": listed["output_hash"]}
        steps = planning.chunk_steps(
            "d", 0, (*SPECS[:2], segments), history, outputs, {}.__getitem__
        )
        assert [step.status for step in steps] == [status, status if status == CURRENT else WAITING]


def test_a_plan_reads_no_rows_of_other_datasets(filled, lake):
    # It asks what steps the episodes have
    reading_stage = replace(stage("transfer", "frames"), reads=("references",))
    filled.specs = (*SPECS, StageSpec(reading_stage, "transfer-1", "config t"))
    listing = stage_run(stage="episodes", dataset="other")
    lake.publish(listing, {"episode_facts": facts(dataset="other", episodes=range(50))})
    folder = lake.workspace.data / "main" / "episode_facts" / "dataset=other"
    away = folder.with_name("away")
    folder.rename(away)
    try:
        with pytest.raises(LakeError, match="missing or damaged"):
            lake.rows("SELECT sum(num_rows) FROM episode_facts")
        steps = plan(lake, {filled.dataset: filled.specs}, {filled.dataset: filled.fingerprint})
    finally:
        away.rename(folder)
    assert {step.status for step in steps} == {CURRENT}
    assert {step.dataset for step in steps} == {filled.dataset}
