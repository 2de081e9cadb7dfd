"""What is up to date: missing, stale, waiting or current, for each stage and partition."""

from dataclasses import replace
from itertools import product

import pytest

from pipeline.plan import (
    CURRENT,
    MISSING,
    STALE,
    WAITING,
    History,
    chunk_steps,
    plan,
    stage_input_hash,
    stale_chunks,
)  # fmt: skip
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
        return plan(
            self.lake, {self.dataset: self.specs}, {self.dataset: self.fingerprint}, only_chunk
        )

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
            input_hash=step.input_hash,
            output_hash=output or f"{stage} {chunk}",
        )
        if chunk is None:
            parts = [replace(run, chunk=c, output_hash=f"facts {c}") for c in (0, 1)]
        else:
            parts = []
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
        lines.append(
            stage_run(
                stage="episodes",
                dataset=corpus.dataset,
                chunk=chunk,
                output_hash=outputs["episodes"],
            )
        )
        for spec in SPECS[1:]:
            outputs[spec.name] = f"{spec.name} {chunk}"
            lines.append(
                stage_run(
                    stage=spec.name,
                    dataset=corpus.dataset,
                    chunk=chunk,
                    label_run=spec.label_run,
                    input_hash=stage_input_hash(spec, *(outputs[u] for u in spec.stage.upstream)),
                    output_hash=outputs[spec.name],
                )
            )
    source = stage_input_hash(SPECS[0], corpus.fingerprint)
    listed = stage_run(stage="episodes", dataset=corpus.dataset, chunk=None, input_hash=source)
    lines.append(replace(listed, code_version=SPECS[0].code_version))
    corpus.lake.publish(lines[0], {}, parts=lines[1:])
    assert corpus.not_current() == {}
    return corpus


# The states of stages


def test_a_build_goes_from_nothing_in_an_order_in_which_it_can(corpus: Corpus):
    (step,) = corpus.plan()
    assert (step.stage.name, step.chunk, step.status) == ("episodes", None, MISSING)
    assert step.input_hash == stage_input_hash(SPECS[0], "files 1")
    corpus.run("episodes", None)
    waiting_steps = dict.fromkeys(product(("segments", "progress", "samples"), (0, 1)), WAITING)
    assert (
        corpus.status()
        == {("episodes", None): CURRENT, ("frames", 0): MISSING, ("frames", 1): MISSING}
        | waiting_steps
    )
    assert all((s.input_hash == "") == (s.status == WAITING) for s in corpus.plan())
    ran = []
    while steps := [s for s in corpus.plan() if s.status in (MISSING, STALE)]:
        corpus.run(steps[0].stage.name, steps[0].chunk)
        ran.append((steps[0].stage.name, steps[0].chunk))
    assert ran == [(stage, c) for c, stage in product((0, 1), DOWNSTREAM)]


def test_another_output_or_setting_makes_what_follows_stale_or_wait(filled: Corpus):
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


def test_a_source_that_changed_makes_everything_wait(filled: Corpus):
    for change in ({"config_hash": "changed"}, {"code_version": "episodes-2"}, None):
        filled.change("episodes", **change) if change else setattr(filled, "fingerprint", "files 2")
        status = filled.status()
        assert status.pop(("episodes", None)) == STALE
        assert set(status.values()) == {WAITING}
        filled.specs = SPECS
    filled.run("episodes", None)  # it lists the same
    assert filled.not_current() == {}


def test_another_label_run_is_missing_and_the_old_one_stays(filled: Corpus):
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


def test_datasets_and_chunks_are_planned_apart(filled: Corpus, lake: Lake):
    steps = filled.plan(only_chunk=1)
    assert [(s.stage.name, s.chunk) for s in steps] == [
        ("episodes", None),
        *((s, 1) for s in DOWNSTREAM),
    ]
    other_corpus = Corpus(lake, f"{filled.dataset}b")
    other_corpus.run("episodes", None)
    both = {filled.dataset: SPECS, other_corpus.dataset: SPECS}
    steps = plan(lake, both, {filled.dataset: "files 1", other_corpus.dataset: "f"})
    assert {s.status for s in steps if s.dataset == filled.dataset} == {CURRENT}
    assert next(s for s in steps if s.dataset == other_corpus.dataset).status == STALE
    # Stale chunks are counted whatever the source is now
    assert stale_chunks(lake, both) == {other_corpus.dataset: 2}
    filled.run("frames", 1, output="other frames")
    filled.fingerprint = "files 2"
    assert stale_chunks(lake, {filled.dataset: filled.specs}) == {filled.dataset: 1}
    filled.change("samples", config_hash="other samples")
    assert stale_chunks(lake, {filled.dataset: filled.specs}) == {filled.dataset: 2}


def test_input_hashes_cover_stage_code_configuration_and_inputs():
    spec = SPECS[2]
    variants = [spec, *(replace(spec, **{f: "x"}) for f in ("code_version", "config_hash"))]
    variants.append(replace(spec, stage=stage("x", *spec.stage.upstream)))
    hashes = [stage_input_hash(s, "a", "b") for s in variants]
    hashes += [
        stage_input_hash(spec, *inputs) for inputs in (["b", "a"], ["ab"], [], ["a", "b", ""])
    ]
    assert len(set(hashes)) == len(hashes)


def test_what_is_read_beside_stages_is_an_input():
    listed = {"output_hash": "facts", "outcomes_hash": "o", "others_hash": "x"}
    last = StageSpec(stage("samples", "episodes", "corrections"), "s-1", "config s")

    def planned(
        corrections_spec: StageSpec, said_text: str, **runs: dict[str, str]
    ) -> list[tuple[str, str, str]]:
        history = History(
            {(name, "d", 0, ""): row for name, row in ({"episodes": listed} | runs).items()}, {}
        )
        of_chunk = {"corrections": said_text}.__getitem__
        steps = chunk_steps(
            "d", 0, (SPECS[0], corrections_spec, last), history, {"episodes": "facts"}, of_chunk
        )
        return [(s.stage.name, s.status, s.input_hash) for s in steps]

    both = ("corrections", "others", "outcomes")
    for reads, inputs in (
        ((), []),
        (("outcomes",), ["o"]),
        (("others",), ["x"]),
        (both, ["o", "x", "c"]),
    ):
        corrections_spec = StageSpec(
            replace(stage("corrections", "episodes"), reads=reads), "c-1", "config c"
        )
        input_hash = stage_input_hash(corrections_spec, "facts", *inputs)
        assert planned(corrections_spec, "c") == [
            ("corrections", MISSING, input_hash),
            ("samples", WAITING, ""),
        ]
    # Without a word of people there is no such stage, and none waits for it; what it made before has to go
    assert planned(corrections_spec, "") == [("samples", MISSING, stage_input_hash(last, "facts"))]
    correction_run = {"input_hash": input_hash, "output_hash": "made"}
    assert planned(corrections_spec, "c", corrections=correction_run)[1] == (
        "samples",
        MISSING,
        stage_input_hash(last, "facts", "made"),
    )
    assert [
        status for _, status, _ in planned(corrections_spec, "", corrections=correction_run)
    ] == [STALE, WAITING]


def test_a_plan_reads_no_rows_of_other_datasets(filled: Corpus, lake: Lake):
    reading_stage = replace(
        stage("transfer", "frames"), reads=("references",)
    )  # it asks what steps the episodes have
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
