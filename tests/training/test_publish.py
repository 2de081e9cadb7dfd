"""Models given to others: what is sent, what is refused, and that nothing tells of this machine."""

import json
from pathlib import Path

import pytest

from core.errors import FailedError
from tests.kits.hub_server import hub_of
from tests.kits.laptop_kit import make_checkpoint
from tests.kits.made_corpus import Made
from tests.kits.published_kit import answers, published_head, tiny, write_adapter
from training.model import ProgressModel, load_model, save_model
from training.published import publish_model
from training.recipe import Recipe
from warehouse.lake import Lake
from warehouse.releases.contents import ReleaseError
from warehouse.releases.release import Release, create_release

ALLOW = ("unknown",)


@pytest.fixture
def released(made: Made, tmp_path: Path) -> tuple[Lake, Release]:
    lake = Lake(made.copy(tmp_path).space)
    return lake, create_release(lake, "r1", allow=ALLOW)


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
def test_a_folder_tells_nothing_of_this_machine(
    adapter: bool, released: tuple[Lake, Release], tmp_path: Path
) -> None:
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


def test_a_laptop_model_names_its_encoder_without_its_folder(
    released: tuple[Lake, Release], tmp_path: Path
) -> None:
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


def test_a_model_repository_of_the_hub(released: tuple[Lake, Release]) -> None:
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
        with pytest.raises(ReleaseError, match=r"holds something else \(model run, weights_sha256"):
            publish_model(lake, folder, "hf://robots/reward", allow=ALLOW)


def test_what_must_not_be_given_on(released: tuple[Lake, Release], tmp_path: Path) -> None:
    lake, release = released
    folder = saved(lake, release)
    out = str(tmp_path / "out")
    with pytest.raises(
        ReleaseError,
        match=r"run was trained on tiny, whose licence is unknown: .*--allow-licence unknown",
    ):
        publish_model(lake, folder, out)
    create_release(lake, "r1", allow=ALLOW, replace=True)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"release_hash": "0" * 64}))
    with pytest.raises(ReleaseError, match="was trained on another release r1 than there is now"):
        publish_model(lake, folder, out, allow=ALLOW)
    (folder / "card.json").write_text(json.dumps({"converted_from": "ProcVLM-2B", "max_px": 64}))
    with pytest.raises(ReleaseError, match="was not trained here: --allow-licence unknown"):
        publish_model(lake, folder, out)
    assert not Path(out).exists()
    assert publish_model(lake, folder, out, allow=ALLOW).sent
    assert "The published checkpoint ProcVLM-2B" in (Path(out) / "README.md").read_text()
