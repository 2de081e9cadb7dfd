"""Recipes: what is built in, and what is said of one that is wrong."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.config import VlmConfig
from core.errors import FailedError, UserError
from tests.kits import vlm_standin
from tests.kits.files import table
from tests.kits.hub_server import hub_of
from tests.kits.laptop_kit import make_checkpoint
from tests.kits.made_corpus import Made
from tests.kits.progresslm_rows import empty_corpus, source_rows, write_rows
from tests.kits.published_kit import answers, published_head, tiny, write_adapter
from tests.kits.vlm_standin import Fault, StandIn, serving
from training.cot import CotOptions, answer_of, generate, judge, prompt_version
from training.model import ProgressModel, load_model, save_model
from training.progresslm import WEIGHTS, ReplyReward, Truth, mended, published
from training.progresslm_data import Rows, read_rows, truth_of
from training.published import publish_model
from training.recipe import BUILT_IN, Recipe, load_recipe
from training.trained_on import (
    UNKNOWN,
    TrainedOn,
    ids_of,
    seen_among,
    seen_by_release,
    seen_of,
    seen_text,
)
from warehouse.lake import Lake
from warehouse.releases.contents import ReleaseError
from warehouse.releases.release import Release, create_release, delete_release

BASE = "name: r\nmodel: {tiny: {}}\nhead: {}\ntrain: {steps: 1, batch: 1, lr: 1}\n"
GRPO = BASE.replace("head: {}\n", "") + "kind: grpo\n"
FLASH = "kernels-community/vllm-flash-attn3"


@pytest.mark.parametrize("name", sorted(p.stem for p in BUILT_IN.glob("*.yaml")))
def test_every_built_in_recipe_is_valid_and_begins_somewhere(name):
    if name == "laptop":
        assert load_recipe(name).model.laptop is not None
        return
    if name.startswith("tiny") and name != "tiny_oneshot":
        assert load_recipe(name).model.tiny is not None
        return
    with pytest.raises(UserError, match=r"say --model PATH, a folder with \S"):
        load_recipe(name)
    assert load_recipe(name, Path("/models/base")).model.path == Path("/models/base")


def test_published_values():
    model = Path("/m")
    sft, oneshot, lora = (
        load_recipe(n, model)
        for n in ("procvlm_sft", "procvlm_oneshot_lora", "progresslm_sft_lora")
    )
    assert (sft.train.lr, sft.train.merger_lr, sft.train.vision_lr, sft.train.epochs) == (
        1e-5,
        2e-5,
        5e-6,
        3,
    )
    assert (sft.train.schedule, sft.train.warmup, sft.train.weight_decay) == ("cosine", 0.03, 0.01)
    assert (oneshot.lora.rank, oneshot.lora.alpha, oneshot.lora.dropout) == (64, 128, 0.05)
    assert (lora.lora.rank, lora.lora.alpha, lora.train.lr, lora.train.epochs) == (8, 16, 1e-4, 3)
    assert (lora.train.batch, lora.train.accumulation) == (2, 8)
    assert load_recipe("progresslm_sft_lora_7b", model).train.epochs == 2
    # Not published: a head that begins at random has a rate of its own.
    assert oneshot.train.head_lr == sft.train.head_lr == 10 * oneshot.train.lr


@pytest.mark.parametrize(("text", "told"), table("wrong_recipes"))
def test_a_wrong_recipe_is_told_in_one_line(tmp_path, text, told):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as e:
        load_recipe(str(path))
    assert told in str(e.value)
    assert str(path) in str(e.value)
    assert "\n" not in str(e.value)


def test_an_unknown_name_is_told_with_those_that_there_are():
    with pytest.raises(UserError, match=r"'tiny'; known: laptop, .*tiny_cpu"):
        load_recipe("tiny")


def test_a_recipe_may_be_like_another(tmp_path):
    base = tmp_path / "a.yaml"
    other_file = tmp_path / "b.yaml"
    base.write_text("like: tiny_lora\nname: a\ntrain: {lr: 0.5}\n")
    other_file.write_text("like: a.yaml\nname: b\nlora: null\nhead: {noise: 0.5}\n")
    derived = load_recipe(str(other_file))
    start = load_recipe("tiny_lora")
    assert (derived.name, derived.lora, derived.train.lr) == ("b", None, 0.5)
    assert derived.train.schedule == start.train.schedule == "linear"
    other_file.write_text(
        other_file.read_text() + f"model: {{attention: {FLASH}}}\ntrain: {{dtype: bfloat16}}\n"
    )
    assert load_recipe(str(other_file)).model.attention == FLASH
    assert derived.head == start.head.model_copy(update={"noise": 0.5})


ANSWERABLE = Truth(3, 42.0, 5)
UNANSWERABLE = Truth(None, None, 5)


def reply(ref: str = "3", score: str = "42%", score_think: str = "b") -> str:
    reference = f"<ref_think>a</ref_think>\n<ref>{ref}</ref>"
    return f"{reference}\n<score_think>{score_think}</score_think>\n<score>{score}</score>"


def overall(reward: ReplyReward) -> float:
    """The sum of the parts as GRPO weighs them."""
    return sum(weight * getattr(reward, part) for part, weight in WEIGHTS.items())


REFUSAL = reply("n/a", "n/a", "n/a")

PUBLISHED = table("published_rewards")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_reward(name):
    parts, is_answerable, expected = PUBLISHED[name]
    response = parts if isinstance(parts, str) else reply(**parts)
    r = published(response, ANSWERABLE if is_answerable else UNANSWERABLE)
    reward_values = [overall(r), r.format, r.score, r.ref, r.ref_error, r.score_error]
    assert reward_values == pytest.approx(expected, abs=1e-12)


def test_the_mended_reward_knows_na_and_puts_replies_in_their_order():
    assert overall(published(reply("na", "na", "na"), UNANSWERABLE)) < 0
    assert overall(mended(reply("na", "na", "na"), UNANSWERABLE)) == pytest.approx(1)
    assert overall(published("", ANSWERABLE)) > overall(published(REFUSAL, ANSWERABLE))
    order = [reply(), reply("4"), reply("5", "90%"), REFUSAL, "The arm moves.", ""]
    values = [overall(mended(response, ANSWERABLE)) for response in order]
    assert all(a > b for a, b in pairwise(values[:5]))
    assert values[3] > values[5]


@given(
    st.text() | st.builds(reply, st.text(), st.text(), st.text()),
    st.sampled_from([ANSWERABLE, UNANSWERABLE, Truth(1, 0.0, 1), Truth(9, 100.0, 9)]),
)
def test_every_reply_has_a_reward(response, truth):
    assert -0.8 - 1e-9 <= overall(published(response, truth)) <= 1 + 1e-9
    assert -0.8 - 1e-9 <= overall(mended(response, truth)) <= 1 + 1e-9


@pytest.mark.parametrize(
    "wrong", [(None, 3.0, 5), (2, None, 5), (6, 3.0, 5), (0, 3.0, 5), (1, 101.0, 5)]
)
def test_a_label_that_contradicts_itself_is_refused(wrong):
    with pytest.raises(ValueError, match=r"and score one|. of 5 items|a score of"):
        Truth(*wrong)


GOOD = {
    "ref_think": "Picture 2 shows it.",
    "ref": 2,
    "score_think": "A little beyond.",
    "score": 44,
}
NONE = {"ref_think": "Another scene.", "ref": "n/a", "score_think": "n/a", "score": "n/a"}


@pytest.fixture
def rows(tmp_path) -> Rows:
    path = write_rows(tmp_path / "rl.jsonl", source_rows(tmp_path / "images"))
    return read_rows([path], tmp_path / "images", "think")


@pytest.fixture
def lake(tmp_path) -> Iterator[Lake]:
    empty_lake, _ = empty_corpus(tmp_path)
    yield empty_lake
    empty_lake.con.close()


def knows(
    rows: Rows, monkeypatch: pytest.MonkeyPatch, slips: dict[tuple[int, int], dict[str, Any]]
) -> None:
    """The stand-in answers as the label says, but for (sample, inference)s that slip."""
    pictures = {sample.pictures[-1]: k for k, sample in enumerate(rows)}
    inferences: dict[int, int] = {}

    def answer(request: dict[str, Any], sha256: str, fault: str | None) -> dict[str, Any]:
        import base64

        url = [p for p in request["messages"][1]["content"] if p["type"] == "image_url"][-1][
            "image_url"
        ]["url"]
        k = pictures[base64.b64decode(url.partition(",")[2])]
        truth = truth_of(rows[k])
        inference = inferences.get(k, 0)
        inferences[k] = inference + 1
        if truth.ref is None:
            right = NONE
        else:
            right = GOOD | {"ref": truth.ref, "score": truth.score_percent}
        text = json.dumps(right | slips.get((k, inference), {}))
        return vlm_standin.completion(request["model"], text, 100, 20)

    monkeypatch.setattr(vlm_standin, "answer", answer)


def config(server: StandIn, **options: Any) -> VlmConfig:
    return VlmConfig(model="stand-in", endpoints=(server.url,), **options)


def test_what_is_right_is_kept_and_what_is_not_is_counted(rows, lake, monkeypatch, tmp_path):
    slips = {
        (0, 0): {"ref": 4}, (0, 1): {"score": 90},
        (1, 0): {"score": 22}, (2, 0): NONE, (3, 1): {"ref_think": "<ref>1</ref>"}, (7, 0): GOOD, (7, 1): GOOD,
    }  # fmt: skip
    knows(rows, monkeypatch, slips)
    with serving(StandIn()) as server:
        report = generate(lake, rows, config(server), CotOptions(inferences=2), tmp_path / "cot")
    assert report.left_out == {
        "answered": 2,
        "format": 1,
        "reference": 1,
        "refused": 1,
        "score": 1,
        "surplus": 4,
    }
    assert (report.samples, report.inferences, report.kept, report.calls) == (8, 16, 6, 16)
    assert report.kept + sum(report.left_out.values()) == report.inferences
    kept_samples = read_rows([report.file])
    assert [s.row["form"] for s in kept_samples] == ["think"] * 6
    assert [s.row["question"] for s in kept_samples] == [
        rows[k].row["question"] for k in range(1, 7)
    ]
    assert all(s.pictures == rows[k + 1].pictures for k, s in enumerate(kept_samples))
    label = rows[1].row["progress"]
    assert kept_samples[0].row["progress"] == label
    # The nearer of two that are right
    assert f"<score>{100 * label:g}%</score>" in kept_samples[0].row["answer"]
    (call_row,) = lake.rows(
        "SELECT count(*), min(stage), min(dataset), min(prompt_version) FROM vlm_calls"
    )
    assert call_row == (16, "cot", "rl", prompt_version())
    facts = json.loads((tmp_path / "cot" / "report.json").read_text())
    assert (facts["kept"], facts["model"], facts["options"]["temperature"]) == (6, "stand-in", 0.6)


@pytest.mark.usefixtures("short_pauses")
def test_a_run_that_was_killed_asks_nothing_twice(rows, lake, monkeypatch, tmp_path):
    knows(rows, monkeypatch, {})

    options = CotOptions()
    with (
        serving(StandIn(faults=[Fault.parse("gone:after=3")])) as server,
        pytest.raises(FailedError, match="no server"),
    ):
        generate(lake, rows, config(server, max_concurrency=1), options, tmp_path / "cot")
    first = set(server.answered)
    assert 0 < len(first) < 8
    assert not (tmp_path / "cot" / "cot.jsonl").exists()
    with serving(StandIn()) as server:
        report = generate(lake, rows, config(server), options, tmp_path / "cot")
        assert not first & set(server.received)
        assert (report.answered_before, report.calls) == (len(first), 8 - len(first))
        second_report = generate(lake, rows, config(server), options, tmp_path / "again")
    assert (second_report.calls, second_report.answered_before) == (0, 8)
    assert second_report.file.read_bytes() == report.file.read_bytes()


@pytest.mark.parametrize(
    ("value", "truth", "reason"),
    [
        (GOOD, Truth(2, 44.0, 4), None),
        (GOOD, Truth(2, 39.0, 4), None),  # as far off as it may be
        (GOOD, Truth(2, 38.9, 4), "score"),
        (GOOD, Truth(3, 44.0, 4), "reference"),
        (GOOD, Truth(None, None, 4), "answered"),
        (NONE, Truth(2, 44.0, 4), "refused"),
        (NONE, Truth(None, None, 4), None),
        (GOOD | {"ref": "n/a"}, Truth(2, 44.0, 4), "format"),
        (NONE | {"score_think": "It is another."}, Truth(None, None, 4), "format"),
        (GOOD | {"ref_think": "<score>44%</score>"}, Truth(2, 44.0, 4), "format"),
        (GOOD | {"ref_think": "as in <image>"}, Truth(2, 44.0, 4), "format"),
    ],
)
def test_replies_are_judged(value, truth, reason):
    assert judge(answer_of(value), truth, 0.05)[0] == reason


ALLOW = ("unknown",)


def card_of(release: Release, path: Path | None = None) -> dict:
    model = {"path": str(path), "base": "Qwen/Qwen3-VL-2B-Instruct"} if path else {"tiny": {}}
    recipe = Recipe(
        **{
            "name": "test",
            "model": model,
            "head": {},
            "train": {"steps": 1, "batch": 1, "lr": 1e-3},
        }
    )
    of_release = {
        "release": release.name,
        "release_hash": release.config_hash,
        "snapshot": release.snapshot,
    }
    run = {
        "training_run": "run",
        "label_runs": [],
        "recipe": recipe.model_dump(mode="json"),
        "max_px": 64,
    }
    return of_release | run


def saved(lake: Lake, release: Release, adapter: bool = False) -> Path:
    """models/run: a whole model, or an adapter for models/base."""
    models = lake.workspace.root / "models"
    if adapter:
        return write_adapter(models, **card_of(release, models / "base"))
    backbone, processor = tiny()
    save_model(
        ProgressModel(backbone, published_head()), processor, models / "run", card_of(release)
    )
    return models / "run"


@pytest.mark.parametrize("adapter", [False, True])
def test_a_folder_tells_nothing_of_this_machine(adapter, released, tmp_path):
    lake, release = released
    folder = saved(lake, release, adapter)
    planned = publish_model(lake, folder, str(tmp_path / "out"), allow=ALLOW, dry_run=True)
    assert not (tmp_path / "out").exists()
    published = publish_model(lake, folder, str(tmp_path / "out"), allow=ALLOW)
    assert published == planned
    sent = {p.name for p in (tmp_path / "out").iterdir()}
    assert sent == {p.name for p in folder.iterdir()} | {"README.md", "manifest.json"}
    for path in (tmp_path / "out").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    page = (tmp_path / "out" / "README.md").read_text()
    assert page.startswith("---\nlicense: unknown\nlibrary_name: transformers\n")
    assert ("base_model: Qwen/Qwen3-VL-2B-Instruct" in page) == adapter
    assert "on the release `r1`" in page
    assert publish_model(lake, folder, str(tmp_path / "out"), allow=ALLOW).sent == 0
    if not adapter:
        model, processor, _ = load_model(tmp_path / "out")
        local_model, same, _ = load_model(folder)
        assert answers(model, processor)[0].tolist() == answers(local_model, same)[0].tolist()


def test_a_laptop_model_names_its_encoder_without_its_folder(released, tmp_path):
    lake, release = released
    folder = make_checkpoint(lake.workspace.root / "models" / "run", **card_of(release))
    # As training writes it for an encoder in a folder, which no test has: here only what is sent is looked at
    encoder = f"hf:{tmp_path}/dino"
    settings = json.loads((folder / "config.json").read_text())
    settings["laptop"]["encoder"] = encoder
    settings["encoder"]["title"] = f"{encoder}@224"
    (folder / "config.json").write_text(json.dumps(settings))
    card = json.loads((folder / "card.json").read_text())
    card["recipe"]["model"] = {"tiny": None, "path": None, "laptop": settings["laptop"]}
    (folder / "card.json").write_text(json.dumps(card))
    publish_model(lake, folder, str(tmp_path / "out"), allow=ALLOW)
    for path in (tmp_path / "out").glob("*.[jm]*"):
        assert str(tmp_path) not in path.read_text(), path.name
    sent = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (sent["laptop"]["encoder"], sent["encoder"]["title"]) == ("hf:dino", "hf:dino@224")
    assert "pipeline_tag: robotics" in (tmp_path / "out" / "README.md").read_text()


def test_a_model_repository_of_the_hub(released):
    lake, release = released
    folder = saved(lake, release)
    with hub_of("robots/reward", "models") as hub:
        hub.fail_at_commit = 3
        with pytest.raises(FailedError, match=r"not now.*run again to go on"):
            publish_model(lake, folder, "hf://robots/reward", allow=ALLOW)
        assert "manifest.json" not in hub.files
        published = publish_model(lake, folder, "hf://robots/reward", allow=ALLOW)
        assert (published.sent, published.files) == (0, len(hub.files))
        manifest = json.loads(hub.files["manifest.json"])
        assert {f["path"] for f in manifest["files"]} | {"manifest.json"} == set(hub.files)
        assert hub.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
        save_model(
            ProgressModel(tiny(seed=5)[0], published_head()), tiny()[1], folder, card_of(release)
        )
        with pytest.raises(ReleaseError, match=r"else \(model run, weights_sha256"):
            publish_model(lake, folder, "hf://robots/reward", allow=ALLOW)


def test_what_must_not_be_given_on(released, tmp_path):
    lake, release = released
    folder = saved(lake, release)
    out = str(tmp_path / "out")
    with pytest.raises(ReleaseError, match=r"tiny, whose .*--allow-licence unknown"):
        publish_model(lake, folder, out)
    create_release(lake, "r1", allow=ALLOW, replace=True)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"release_hash": "0" * 64}))
    with pytest.raises(ReleaseError, match="trained on another release r1"):
        publish_model(lake, folder, out, allow=ALLOW)
    (folder / "card.json").write_text(json.dumps({"converted_from": "ProcVLM-2B", "max_px": 64}))
    with pytest.raises(ReleaseError, match="not trained here: --allow-licence"):
        publish_model(lake, folder, out)
    assert not Path(out).exists()
    assert publish_model(lake, folder, out, allow=ALLOW).sent
    assert "The published checkpoint ProcVLM-2B" in (Path(out) / "README.md").read_text()


SWAPPED = "UPDATE splits SET split = CASE split WHEN 'train' THEN 'test_id' ELSE 'train' END"


@pytest.fixture
def trained_lake(own: Made) -> Lake:
    return Lake(own.space)


def test_a_split_that_moved_between_releases(trained_lake):
    release = create_release(trained_lake, "r1", allow=["unknown"])
    splits = trained_lake.rows("SELECT dataset, episode_index, split FROM splits")
    trained = {(dataset, index) for dataset, index, split in splits if split == "train"}
    held_out = {(dataset, index) for dataset, index, _ in splits} - trained
    assert trained
    assert held_out
    card = {"trained_on": seen_by_release(trained_lake, release).as_json()}
    trained_lake.con.execute(SWAPPED)
    second_release = create_release(trained_lake, "r2", allow=["unknown"])
    assert seen_among(trained_lake, card, second_release, trained).episodes == trained
    assert seen_among(trained_lake, card, second_release, held_out).episodes == set()
    seen_episodes = seen_among(trained_lake, card, second_release, trained | held_out)
    assert seen_episodes.by_slice({"all": trained | held_out, "split test_id": held_out}) == {
        "all": len(trained),
        "split test_id": 0,
    }
    # Also once the release that it was trained on is gone
    delete_release(trained_lake, "r1")
    assert seen_among(trained_lake, card, second_release, trained | held_out) == seen_episodes
    assert f"{len(trained)} of the 5 held-out episodes were trained on" in seen_text(
        seen_episodes, 5, "r1"
    )
    assert "never saw" in seen_text(
        seen_among(trained_lake, card, second_release, held_out), 3, "r1"
    )


def test_one_id_is_enough_recording_or_contents(trained_lake):
    release = create_release(trained_lake, "r1", allow=["unknown"])
    [(recording, content)] = trained_lake.rows(
        "SELECT r.recording, content_hash FROM recordings r JOIN episode_content USING (dataset, episode_index) "
        "WHERE episode_index = 3"
    )
    assert {recording, content} <= ids_of(trained_lake, [("tiny", 3)])["tiny", 3]
    for known_ids in (recording, content):
        card = {"trained_on": TrainedOn(frozenset([known_ids])).as_json()}
        assert seen_among(trained_lake, card, release, [("tiny", 2), ("tiny", 3)]).episodes == {
            ("tiny", 3)
        }


def test_a_model_of_an_earlier_version_is_judged_by_its_release(trained_lake):
    release = create_release(trained_lake, "r1", allow=["unknown"])
    all_episodes = trained_lake.rows("SELECT dataset, episode_index FROM splits")
    card = {"release": "r1", "release_hash": release.config_hash}
    keys = {(dataset, index) for dataset, index in all_episodes}
    shown_seen = seen_among(trained_lake, card, release, keys)
    assert shown_seen.is_all
    assert shown_seen.episodes == set(
        trained_lake.rows(
            "SELECT DISTINCT dataset, episode_index FROM samples WHERE split = 'train'"
        )
    )
    other_seen = seen_among(trained_lake, card | {"release_hash": "0" * 64}, release, keys)
    assert (other_seen.episodes, other_seen.is_all) == (set(), False)
    assert other_seen.by_slice({"all": keys}) == {}
    assert "cannot be told" in seen_text(other_seen, 5, "r1")
    # What is known of a model that also saw other things counts
    partly = (UNKNOWN | seen_of(trained_lake, [("tiny", 3)])).as_json()
    seen_episodes = seen_among(trained_lake, {"trained_on": partly}, release, keys)
    assert seen_episodes.by_slice({"all": keys}) == {"all": 1}
    assert "1 of the 5" in seen_text(seen_episodes, 5, None)
    assert "cannot be told" in seen_text(seen_episodes, 5, None)
