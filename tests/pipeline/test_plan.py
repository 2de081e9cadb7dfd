"""What is up to date: missing, stale, waiting or current, for each stage and partition."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from pipeline.plan import CURRENT, MISSING, STALE, WAITING, chunk_input, dataset_input, plan, stale_chunks
from pipeline.stage import Output, Stage, StageContext, StageSpec, Step
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
DOWNSTREAM = {
    "frames": {"frames", "segments", "progress", "samples"},
    "segments": {"segments", "progress", "samples"},
    "progress": {"progress", "samples"},
    "samples": {"samples"},
}


class Corpus:
    """A dataset whose stages publish nothing but their lines."""

    def __init__(self, lake: Lake, dataset: str) -> None:
        self.lake, self.dataset = lake, dataset
        self.specs, self.fingerprint = SPECS, "files 1"

    def plan(self, only_chunk: int | None = None) -> list[Step]:
        return plan(self.lake, {self.dataset: self.specs}, {self.dataset: self.fingerprint}, only_chunk)

    def status(self) -> dict[tuple[str, int | None], str]:
        return {(s.stage.name, s.chunk): s.status for s in self.plan()}

    def not_current(self) -> set[tuple[str, int | None]]:
        return {k for k, status in self.status().items() if status != CURRENT}

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
            input_hash=step.input_hash,
            output_hash=output or f"{stage} {chunk}",
        )
        parts = [replace(run, chunk=c, output_hash=f"facts {c}") for c in (0, 1)] if chunk is None else []
        self.lake.publish(run, {}, parts=parts)

    def change(self, stage: str, **fields: str) -> None:
        self.specs = tuple(replace(s, **fields) if s.name == stage else s for s in self.specs)


@pytest.fixture
def corpus(lake: Lake, ds: str) -> Corpus:
    return Corpus(lake, ds)


@pytest.fixture
def filled(corpus: Corpus) -> Corpus:
    """All stages of two chunks done, in one publish."""
    lines = []
    for chunk in (0, 1):
        outputs = {"episodes": f"facts {chunk}"}
        lines.append(stage_run(stage="episodes", dataset=corpus.dataset, chunk=chunk, output_hash=outputs["episodes"]))
        for spec in SPECS[1:]:
            outputs[spec.name] = f"{spec.name} {chunk}"
            lines.append(
                stage_run(
                    stage=spec.name,
                    dataset=corpus.dataset,
                    chunk=chunk,
                    label_run=spec.label_run,
                    input_hash=chunk_input(spec, [outputs[u] for u in spec.stage.upstream]),
                    output_hash=outputs[spec.name],
                )
            )
    source = dataset_input(SPECS[0], corpus.fingerprint)
    listed = stage_run(stage="episodes", dataset=corpus.dataset, chunk=None, input_hash=source)
    lines.append(replace(listed, code_version=SPECS[0].code_version))
    corpus.lake.publish(lines[0], {}, parts=lines[1:])
    assert corpus.not_current() == set()
    return corpus


def test_an_empty_lake_lacks_the_stage_that_reads_the_source(corpus: Corpus):
    (step,) = corpus.plan()
    assert (step.stage.name, step.chunk, step.status) == ("episodes", None, MISSING)
    assert step.input_hash == dataset_input(SPECS[0], "files 1")


def test_stages_wait_for_what_they_read(corpus: Corpus):
    corpus.run("episodes", None)
    rest = {(stage, c): WAITING for stage in ("segments", "progress", "samples") for c in (0, 1)}
    assert corpus.status() == {("episodes", None): CURRENT, ("frames", 0): MISSING, ("frames", 1): MISSING} | rest
    assert all((s.input_hash == "") == (s.status == WAITING) for s in corpus.plan())
    corpus.run("frames", 1)
    assert corpus.status()["frames", 1] == CURRENT
    assert corpus.status()["segments", 1] == MISSING
    assert corpus.status()["progress", 1] == WAITING
    assert corpus.status()["segments", 0] == WAITING


def test_steps_come_in_an_order_in_which_they_can_be_run(corpus: Corpus):
    corpus.run("episodes", None)
    ran = []
    while steps := [s for s in corpus.plan() if s.status in (MISSING, STALE)]:
        corpus.run(steps[0].stage.name, steps[0].chunk)
        ran.append((steps[0].stage.name, steps[0].chunk))
    assert ran == [(stage, c) for c in (0, 1) for stage in ("frames", "segments", "progress", "samples")]


@pytest.mark.parametrize("stage", DOWNSTREAM)
def test_another_output_makes_what_reads_it_stale(filled: Corpus, stage: str):
    filled.run(stage, 0, output="something new")
    assert filled.not_current() == {(s, 0) for s in DOWNSTREAM[stage] - {stage}}
    first = {"frames": "segments", "segments": "progress", "progress": "samples", "samples": None}[stage]
    assert {k[0] for k, v in filled.status().items() if v == STALE} == ({first} if first else set())
    # the same output again, as after a mere rerun: all is current
    filled.run(stage, 0)
    assert filled.not_current() == set()


@pytest.mark.parametrize("stage", DOWNSTREAM)
@pytest.mark.parametrize("field", ["config_hash", "code_version"])
def test_another_setting_makes_its_stage_stale_and_the_others_wait(filled: Corpus, stage: str, field: str):
    filled.change(stage, **{field: "changed"})
    status = filled.status()
    assert filled.not_current() == {(s, c) for s in DOWNSTREAM[stage] for c in (0, 1)}
    assert {status[stage, c] for c in (0, 1)} == {STALE}
    assert {v for k, v in status.items() if v not in (CURRENT, STALE)} <= {WAITING}
    filled.run(stage, 0)  # the outcome is as before: what reads it is current again
    assert filled.not_current() == {(s, 1) for s in DOWNSTREAM[stage]}


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: setattr(c, "fingerprint", "files 2"),
        lambda c: c.change("episodes", config_hash="changed"),
        lambda c: c.change("episodes", code_version="episodes-2"),
    ],
)
def test_a_source_that_changed_makes_everything_wait(filled: Corpus, edit: Callable[[Corpus], None]):
    edit(filled)
    status = filled.status()
    assert status.pop(("episodes", None)) == STALE
    assert set(status.values()) == {WAITING}
    filled.run("episodes", None)  # it lists the same
    assert filled.not_current() == set()


def test_another_label_run_is_missing_and_the_old_one_stays(filled: Corpus):
    filled.change("segments", label_run="run2")
    filled.change("progress", label_run="run2")
    assert filled.not_current() == {(s, c) for s in DOWNSTREAM["segments"] for c in (0, 1)}
    assert filled.status()["segments", 0] == MISSING
    filled.run("segments", 0, output="by run2")
    assert filled.status()["progress", 0] == MISSING
    filled.specs = SPECS
    assert filled.not_current() == set()


def test_datasets_are_planned_apart(filled: Corpus, lake: Lake):
    other = Corpus(lake, f"{filled.dataset}b")
    other.run("episodes", None)
    steps = plan(lake, {filled.dataset: SPECS, other.dataset: SPECS}, {filled.dataset: "files 1", other.dataset: "f"})
    assert {s.status for s in steps if s.dataset == filled.dataset} == {CURRENT}
    assert next(s for s in steps if s.dataset == other.dataset).status == STALE


def test_one_chunk_can_be_asked_for(filled: Corpus):
    steps = filled.plan(only_chunk=1)
    assert [(s.stage.name, s.chunk) for s in steps] == [("episodes", None), *((s, 1) for s in DOWNSTREAM)]


def test_stale_chunks_are_counted_whatever_the_source_is_now(filled: Corpus, lake: Lake):
    def counted() -> dict[str, int]:
        return stale_chunks(lake, {filled.dataset: filled.specs})

    assert counted() == {}
    lines = lake.rows(
        "SELECT input_hash FROM stage_runs WHERE (stage, dataset, chunk) = ('frames', ?, 1)", [filled.dataset]
    )
    run = stage_run(stage="frames", dataset=filled.dataset, chunk=1, input_hash=lines[0][0], output_hash="other frames")
    lake.publish(run, {})
    assert counted() == {filled.dataset: 1}
    filled.change("samples", config_hash="other samples")
    filled.fingerprint = "files 2"
    assert counted() == {filled.dataset: 2}


def test_input_hashes_cover_stage_code_configuration_and_inputs():
    spec = SPECS[2]
    variants = [spec, *(replace(spec, **{f: "x"}) for f in ("code_version", "config_hash"))]
    variants.append(replace(spec, stage=stage("x", *spec.stage.upstream)))
    hashes = [chunk_input(s, ["a", "b"]) for s in variants]
    hashes += [chunk_input(spec, inputs) for inputs in (["b", "a"], ["ab"], [], ["a", "b", ""])]
    assert len(set(hashes)) == len(hashes)


def test_a_plan_reads_no_rows_of_other_datasets(filled: Corpus, lake: Lake):
    shown = replace(stage("transfer", "frames"), reads=("references",))  # it asks what steps the episodes have
    filled.specs = (*SPECS, StageSpec(shown, "transfer-1", "config t"))
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
