"""Evaluation within a run: it changes nothing, and the best model is kept."""

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from core.errors import FailedError, UserError
from eval.benchmarks.held_out import episode_questions, score
from eval.benchmarks.procvqa import SampleChoice
from eval.runners.start import RunnerConfig, local_runner
from eval.scored import ALL
from eval.within import HeldOutScorer, predict, read_progress, scorer_of
from pipeline.reward_model import reward_model_step
from tests.kits.cli_kit import INTERRUPTED, called
from tests.kits.progresslm_rows import TINY, conversations, empty_corpus, source_rows, write_rows
from tests.kits.training_kit import TINY as TINY_SIZE
from tests.kits.training_kit import KilledError, kill_at, make_release, recipe
from training import loop
from training.checkpoint import load_state
from training.folder import TrainingError, read_card
from training.loop import noticed
from training.recipe import Recipe, load_recipe
from training.runs import Point, TrainingRun, begin_wandb, event_folder, saved_steps, trained
from training.train import train
from warehouse.lake import Lake
from warehouse.releases.release import Release

EVERY = {"steps": 5, "evaluate_every": 2, "evaluate_episodes": 3}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[Lake, Release]:
    return make_release(tmp_path_factory.mktemp("held_out") / "w", held_out=5)


class ScriptedScorer:
    """Says these errors one after the other, of whatever model."""

    def __init__(self, errors: Sequence[float]) -> None:
        self.errors = list(errors)
        self.asked: list[Path] = []

    def predict(self, folder: Path, part: int, parts: int) -> float:
        assert (folder / "card.json").exists()
        self.asked.append(folder)
        return self.errors[len(self.asked) - 1]

    def scores(self, predicted: Sequence[float]) -> dict[str, float]:
        return {"mae": predicted[0], "voc": 1 - predicted[0]}


def run(
    corpus: tuple[Lake, Release],
    of: Recipe,
    errors: Sequence[float],
    resume: bool = False,
    on_step: Callable[[Point], None] = lambda point: None,
) -> TrainingRun:
    return train(*corpus, of, on_step, resume, ScriptedScorer(errors))


def facts(checkpoint: Path) -> dict[str, Any]:
    return read_card(checkpoint.with_name(f"{checkpoint.name}.best"))["held_out"]


@pytest.mark.parametrize(
    "lora", [None, pytest.param({"rank": 4, "alpha": 8}, marks=pytest.mark.slow)]
)
def test_the_curve_has_the_scores_that_eval_gives(corpus, lora):
    lake, release = corpus
    run_recipe = recipe(
        "scored" if lora is None else "adapted", lora=lora, train=EVERY | {"dtype": "bfloat16"}
    )
    outcome = reward_model_step(lake, release, run_recipe, always=True)
    (folder,) = outcome.files
    curve = [Point(**p) for p in json.loads((folder / "curve.json").read_text())]
    assert [p.step for p in curve if p.extra] == [1, 3, 4]
    assert set(curve[-1].extra) == {"held_out_mae", "held_out_voc", "held_out_coverage"}
    # The last model is what proccorpus eval scores, on the very episodes that were chosen.
    questions = episode_questions(lake, release, ("val",), choice=SampleChoice(most=3))
    assert len({q.trajectory for q in questions} & {"4", "5", "6", "7", "8"}) == 3
    scores = score(predict(local_runner(RunnerConfig(str(folder)), folder), questions)).scores
    for name in ("mae", "voc"):
        assert curve[-1].extra[f"held_out_{name}"] == pytest.approx(
            scores[ALL, name].value, abs=1e-6
        )
    # The best one is a model as any other, and both cards name it.
    best = min((p for p in curve if p.extra), key=lambda p: p.extra["held_out_mae"])
    best_run = trained(lake, f"{folder.name}.best")
    assert facts(folder)["step"] == best.step == read_card(folder)["best"]["step"]
    assert outcome.numbers["best_model"] == best_run.name == read_card(folder)["best"]["model"]
    assert "success" in read_card(best_run)
    scorer = HeldOutScorer(questions)
    # As two processes would
    scores_again = scorer.scores([scorer.predict(best_run, k, 2) for k in range(2)])
    assert scores_again == pytest.approx(
        {k: v for k, v in facts(folder).items() if k != "step"}, abs=1e-6
    )
    assert {p.name for p in best_run.iterdir()} == {p.name for p in folder.iterdir()}
    assert [p.name for p in best_run.parent.glob(f"{folder.name}.steps/*")] == []
    events = EventAccumulator(str(event_folder(lake, folder.name)))
    events.Reload()
    assert [e.step for e in events.Scalars("train/held_out_mae")] == [1, 3, 4]


def test_training_is_the_same_with_evaluation(corpus):
    lake, release = corpus
    drawn = {"head": {"dropout": 0.2, "noise": 0.1}, "data": {"augment": True}}
    alone = train(lake, release, recipe("alone", **drawn, train={"steps": 5}))
    run_recipe = recipe("beside", **drawn, train=EVERY)
    evaluated_run = train(lake, release, run_recipe, scorer=scorer_of(lake, release, run_recipe))
    assert [(p.loss, p.gradient_norm) for p in evaluated_run.curve] == [
        (p.loss, p.gradient_norm) for p in alone.curve
    ]


def test_the_best_model_is_kept_over_a_kill(corpus):
    run_recipe = recipe("killed", train=EVERY | {"steps": 8, "save_every": 3})

    # Saved after step 5, when the second evaluation was the best; the third one, before the kill, is better still.
    with pytest.raises(KilledError):
        run(corpus, run_recipe, [0.5, 0.2, 0.1], on_step=kill_at(6))
    resumed = run(corpus, run_recipe, [0.3], resume=True)
    assert facts(resumed.checkpoint) == {"step": 5, "mae": 0.1, "voc": 0.9}
    errors = {p.step: p.extra["held_out_mae"] for p in resumed.curve if p.extra}
    assert errors == {1: 0.5, 3: 0.2, 5: 0.1, 7: 0.3}
    # One that begins anew has no best model of another's.
    fresh_run = run(corpus, run_recipe, [0.9, 0.8, 0.8, 0.85])
    assert facts(fresh_run.checkpoint) == {"step": 3, "mae": 0.8, "voc": pytest.approx(0.2)}
    assert read_card(fresh_run.checkpoint)["best"]["mae"] == 0.8


def test_an_evaluation_that_fails_ends_the_run_with_its_reason(corpus):
    class Broken(ScriptedScorer):
        def predict(self, folder: Path, part: int, parts: int) -> float:
            raise OSError("the disk is gone")

    with pytest.raises(FailedError, match=r"step 1 .* OSError: the disk is gone$"):
        train(*corpus, recipe("broken", train=EVERY), scorer=Broken([]))


def test_a_release_without_anything_held_out_is_refused(tmp_path):
    lake, release = make_release(tmp_path / "w")
    run_recipe = recipe("nothing", train=EVERY)
    with pytest.raises(TrainingError, match="val of the release bars1 has no episode"):
        scorer_of(lake, release, run_recipe)
    with pytest.raises(TrainingError, match="this run has no held-out episodes"):
        train(lake, release, run_recipe)
    assert scorer_of(lake, release, recipe("none")) is None


def test_a_recipe_is_evaluated_on_what_it_trains_on(corpus):
    other_recipe = recipe("other", data={"families": {"procvqa_b": 1}, "think": False}, train=EVERY)
    scorer = scorer_of(*corpus, other_recipe)
    families = [q.family for q in chain(*scorer.episodes)]
    assert families == ["procvqa_b"] * 6
    with pytest.raises(TrainingError, match="has no episode"):
        scorer_of(
            corpus[0],
            corpus[1],
            other_recipe.model_copy(
                update={"data": other_recipe.data.model_copy(update={"think": True})}
            ),
        )
    usual_scorer = scorer_of(*corpus, recipe("usual", data={"think": False}, train=EVERY))
    assert {q.family for q in chain(*usual_scorer.episodes)} == {"procvqa_c"}


def test_rows_of_files_are_evaluated_by_their_words(tmp_path):
    rows = source_rows(tmp_path / "images")
    files = [
        write_rows(tmp_path / f"{name}.jsonl", conversations(rows)) for name in ("train", "held")
    ]
    data = {
        "jsonl": files[:1],
        "validation_jsonl": files[1:],
        "image_root": tmp_path / "images",
        "think": True,
    }
    run_recipe = Recipe.model_validate(
        {
            "name": "rows",
            "model": {"tiny": TINY},
            "data": data,
            "train": {"steps": 2, "batch": 4, "lr": 1e-3, "evaluate_every": 2},
        }
    )
    lake, release = empty_corpus(tmp_path)
    scorer = scorer_of(lake, release, run_recipe)
    # Eight rows of one run, of which one has no label
    (episode,) = scorer.episodes
    labels = [q.progress for q in episode]
    assert labels == sorted(float(r["progress_score"][:-1]) / 100 for r in rows[:-1])
    perfect = scorer.scores([[labels]])
    assert perfect == {"mae": 0, "voc": 1, "coverage": 1}
    trained_run = train(lake, release, run_recipe, scorer=scorer)
    # What cannot be read is as wrong as can be
    assert 0 < trained_run.curve[-1].extra["held_out_mae"] <= 1


def test_answers_are_read_in_every_form_that_is_taught():
    tags = "<ref_think>a</ref_think><ref>1</ref><score_think>b</score_think><score>42%</score>"
    assert [read_progress(t) for t in ("<progress>42.00%</progress>", "42%", tags)] == [
        0.42,
        0.42,
        0.42,
    ]
    assert [read_progress(t) for t in ("n/a", "", "42% or 43%")] == [None] * 3


RECIPE = f"""name: ended
model: {{tiny: {TINY_SIZE}}}
head: {{noise: 0.1}}
train: {{steps: 6, batch: 2, accumulation: 2, lr: 1.0e-3}}
"""


@pytest.fixture(scope="module")
def larger_corpus(tmp_path_factory) -> tuple[Lake, Release]:
    return make_release(tmp_path_factory.mktemp("ending") / "w", moments=24)


@pytest.mark.slow
def test_sigterm_in_a_step_loses_that_step_alone(larger_corpus, tmp_path, capsys, monkeypatch):
    lake, release = larger_corpus
    file = tmp_path / "ended.yaml"
    file.write_text(RECIPE)
    plain = loop.losses
    calls = []

    def losses(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 7:
            signal.raise_signal(signal.SIGTERM)
        return plain(*given)

    words = ("train", "--recipe", file, "--release", release.name)
    former_handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "losses", losses)
            ended = called(capsys, *words, "--workspace", lake.workspace.root)
    finally:
        signal.signal(signal.SIGTERM, former_handler)
    assert ended.code == INTERRUPTED, ended
    assert "note: the checkpoint of step 3 is kept, --resume goes on from it" in ended.err
    run_recipe = load_recipe(str(file))
    (kept_step,) = saved_steps(next((lake.workspace.root / "models").glob("ended-*.steps")))
    assert load_state(kept_step).step == 3
    resumed_run = train(lake, release, run_recipe, resume=True)
    whole = train(lake, release, run_recipe.model_copy(update={"name": "whole"}))
    assert [p.loss for p in resumed_run.curve] == [p.loss for p in whole.curve]


def test_a_second_signal_ends_at_once(monkeypatch):
    with pytest.raises(KeyboardInterrupt), noticed() as end_request:  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        assert end_request
        signal.raise_signal(signal.SIGINT)
        pytest.fail("still here")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def ruining(step: int) -> Callable[..., float]:
    """A rate of 1e30 at one step."""
    plain = loop.share_of_rate
    calls = []

    def rate(*args: Any) -> float:
        calls.append(1)
        if len(calls) == step + 1:
            return 1e33
        return plain(*args)

    return rate


def test_weights_that_are_worth_nothing_are_never_kept(larger_corpus, monkeypatch):
    settings = {"steps": 5, "save_every": 1, "keep": 1, "lr": 1e-3}
    run_recipe = recipe("ruined", train=settings)
    whole = train(*larger_corpus, run_recipe.model_copy(update={"name": "sound"}))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "share_of_rate", ruining(2))
        with pytest.raises(
            TrainingError, match=r"^the weights are .* step 2 \(their norm is inf\)"
        ):
            train(*larger_corpus, run_recipe)
    steps = next((larger_corpus[0].workspace.root / "models").glob("ruined-*.steps"))
    assert load_state(saved_steps(steps)[-1]).step == 2
    resumed_run = train(*larger_corpus, run_recipe, resume=True)
    assert [p.loss for p in resumed_run.curve] == [p.loss for p in whole.curve]
    assert len(saved_steps(steps)) == 1


def test_a_checkpoint_from_which_no_step_can_be_learnt_is_set_aside(larger_corpus, monkeypatch):
    run_recipe = recipe("aside", train={"steps": 5, "save_every": 1, "keep": 1})
    plain = loop.losses
    calls = []

    def spoilt(*args: Any) -> Any:
        calls.append(1)
        text, *remaining = plain(*args)
        return (text * float("nan") if len(calls) == 4 else text, *remaining)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "losses", spoilt)
        with pytest.raises(TrainingError, match=r"nan at step 3.* aside as unsound-00000003"):
            train(*larger_corpus, run_recipe)
    steps = next((larger_corpus[0].workspace.root / "models").glob("aside-*.steps"))
    assert [p.name for p in saved_steps(steps)] == ["step-00000002"]
    resumed_run = train(*larger_corpus, run_recipe, resume=True)
    assert [p.step for p in resumed_run.curve] == list(range(5))


# As much of wandb as is used; what it is told goes to a file.
STAND_IN = """
import json, os
class Error(Exception): ...
class Run:
    def log(self, values, step): _say({"log": values, "step": step})
    def finish(self, exit_code): _say({"finish": exit_code})
def _say(what):
    with open(os.environ["SAID"], "a") as f: f.write(json.dumps(what) + "\\n")
def init(**options):
    if os.environ.get("WANDB_MODE") != "offline": raise Error("api_key not configured (no-tty).\\n  call wandb login")
    _say({"init": options})
    return Run()
"""


@pytest.fixture
def said(tmp_path, monkeypatch) -> Iterator[Path]:
    (tmp_path / "wandb.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SAID", str(tmp_path / "said.jsonl"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    yield tmp_path / "said.jsonl"
    sys.modules.pop("wandb", None)


def lines(log_file: Path) -> list[dict]:
    records = [json.loads(line) for line in log_file.read_text().splitlines()]
    log_file.unlink()
    return records


def test_every_point_is_sent_and_a_run_that_goes_on_is_the_same_one(said, tmp_path, monkeypatch):
    lake, release = make_release(tmp_path / "w", held_out=2)
    run_recipe = recipe("sent", train={"save_every": 2, "evaluate_every": 2})

    with pytest.raises(KilledError):
        reward_model_step(lake, release, run_recipe, always=True, on_step=kill_at(2), wandb=True)
    begin_record, *points, end = lines(said)
    assert begin_record["init"]["project"] == "proccorpus"
    assert begin_record["init"]["dir"] == str(tmp_path / "w" / "wandb")
    assert begin_record["init"]["config"]["train"]["save_every"] == 2
    assert [p["step"] for p in points] == [0, 1, 2]
    assert end == {"finish": 1}

    outcome = reward_model_step(lake, release, run_recipe, always=True, resume=True, wandb=True)
    resumed, *points, end = lines(said)
    assert resumed["init"]["id"] == begin_record["init"]["id"]
    assert resumed["init"]["name"] == outcome.numbers["training_run"]
    curve = json.loads((outcome.files[0] / "curve.json").read_text())[2:]
    assert [(p["step"], p["log"]["train/loss"]) for p in points] == [
        (p["step"], p["loss"]) for p in curve
    ]
    assert points[-1]["log"]["train/held_out_mae"] == curve[-1]["extra"]["held_out_mae"]
    assert end == {"finish": 0}

    monkeypatch.setenv("WANDB_PROJECT", "other")
    begin_wandb(tmp_path / "w" / "wandb", begin_record["init"]["name"], {}, goes_on=False)
    (fresh_record,) = lines(said)
    assert fresh_record["init"]["id"] != begin_record["init"]["id"]
    assert fresh_record["init"]["project"] == "other"
    # Only the first of several processes tells.
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(KilledError):
        reward_model_step(
            lake, release, recipe("second"), always=True, on_step=kill_at(2), wandb=True
        )
    assert not said.exists()


def test_what_is_missing_is_told(said, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(UserError, match=r"^wandb cannot begin: .*WANDB_MODE=offline"):
        begin_wandb(tmp_path, "run", {}, goes_on=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"uv pip install wandb, or leave it out$"):
        begin_wandb(tmp_path, "run", {}, goes_on=False)
