"""Builds with marked secrets everywhere: none of them is in anything that the runs left or said."""

from pathlib import Path

import pytest

from assets.lib.events import instance_at, observe
from cli.operating import dagster_home
from core.paths import Workspace
from core.tables import TABLES
from tests.e2e.test_vlm_build import SETTINGS
from tests.kits.cli_kit import (
    USAGE,
    Result,
    assert_one_error_line,
    called,
    command,
    proccorpus,
    write_config,
    write_configs,
)
from tests.kits.fault_kit import serving_model
from tests.kits.http_server import Answering, serving
from tests.kits.tiny_lerobot import make_dataset
from warehouse.lake import Lake

pytestmark = pytest.mark.slow

MARK = "MARKED5ECRET"
SECRETS = {
    name: f"{MARK}-{name.lower()}-0123456789"
    for name in (
        "MODEL_KEY",
        "HF_TOKEN",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "PGPASSWORD",
        "PROCCORPUS_REWARD_TOKEN",
        "OPENAI_API_KEY",
        "VLLM_API_KEY",
        "WANDB_API_KEY",
    )
}


class Telltale(Answering):
    """A server that refuses every question, and repeats in its words what it was given."""

    def do_POST(self) -> None:
        self.body()
        self.answer(
            {"error": {"message": f"Incorrect API key: {self.headers.get('Authorization')}"}}, 400
        )

    def do_GET(self) -> None:
        self.answer({"data": [{"id": "another"}]})


def found_in(folder: Path) -> list[str]:
    """Files below a folder that hold a marked secret."""
    return [
        str(p) for p in sorted(folder.rglob("*")) if p.is_file() and MARK.encode() in p.read_bytes()
    ]


def test_no_secret_is_left_in_anything_that_runs_leave_or_say(tmp_path):
    make_dataset(tmp_path / "source", (24, 18))
    workspace = tmp_path / "workspace"
    results: list[Result] = []

    def run(*command: object) -> Result:
        results.append(
            proccorpus(*command, cwd=tmp_path, workspace=workspace, timeout_s=600, **SECRETS)
        )
        return results[-1]

    def config(folder: str, url: str) -> Path:
        key_setting = ', api_key_env = "MODEL_KEY"'
        return write_config(
            tmp_path / folder, tmp_path / "source", SETTINGS.format(url=url, more=key_setting)
        )

    with serving_model(tmp_path) as server:
        assert run("build", "--config", config("well", server.url), "--workers", 1).code == 0
    with serving(
        Telltale
    ) as address:  # the same workspace, another model server, one that refuses: its words are kept
        project = config("refused", f"{address}/v1")
        text = project.read_text().replace('model = "stand-in"', 'model = "another"')
        project.write_text(text)
        run("build", "--config", project, "--workers", 1, "--verbose")
    assert run("release", "create", "r1", "--allow-licence", "unknown").code == 0

    lake = Lake(Workspace(workspace), read_only=True)
    error_rows = lake.rows("SELECT error FROM vlm_calls WHERE error IS NOT NULL")
    assert any("Incorrect API key: Bearer [key]" in error for (error,) in error_rows), error_rows
    for table in TABLES:  # Parquet is compressed: what is in it is not seen in its bytes
        assert MARK not in str(lake.rows(f"FROM {table}")), table
    assert (
        lake.rows("SELECT count(*) FROM build_configs WHERE config LIKE '%MODEL_KEY%'")[0][0] == 1
    )
    assert any(p.suffix == ".tar" for p in workspace.rglob("*"))
    space = Workspace(workspace)
    with instance_at(dagster_home(space), space) as instance:  # as the UI does when it is opened
        observe(instance, lake)
    assert (workspace / "dagster" / "storage").is_dir()
    assert found_in(tmp_path) == []
    assert [r for r in results if MARK in r.out + r.err] == []


@pytest.mark.parametrize(
    ("settings", "source"),
    [
        ("", f"https://user:{MARK}@example.org/data"),
        ("", f"https://example.org/data?X-Amz-Signature={MARK}"),
        (f'vlm = {{endpoints = ["http://user:{MARK}@127.0.0.1:1/v1"]}}', "."),
        (f'shards = {{store = "s3://key:{MARK}@bucket/corpus"}}', "."),
    ],
    ids=["source", "signed source", "model server", "bucket of shards"],
)
def test_an_address_with_a_secret_is_refused_without_repeating_it(tmp_path, settings, source):
    config = write_configs(tmp_path, {"tiny": f"source: {source}\n"}, settings)
    result = command("build", "--config", config, cwd=tmp_path, workspace=tmp_path / "workspace")
    assert result.code == USAGE
    assert "no user, password, key or signature in an address" in assert_one_error_line(result)
    assert MARK not in result.out + result.err
    assert not (tmp_path / "workspace").exists()


ADDRESSES = (
    f"https://user:{MARK}@host.invalid/d",
    f"https://host.invalid/d?token={MARK}",
    f"https://host.invalid/#{MARK}",
    f"s3://{MARK}:x@bucket/p",
    f"hf://datasets/u:{MARK}@x/y",
    f"https://{MARK}@host.invalid/v1",
)
PLACES = (
    "build --source {} --name w",
    "build --config {}",
    "inspect {}",
    "release publish r --to {}",
    "release verify --at {}",
    "explore --dagster-url {}",
    "model publish latest --to {}",
    "workspace create --catalog {}",
    "train --recipe {}",
    "workspace create --data {}",
    "build --source . --vlm-endpoint {} --vlm-model m",
    "serve --model m --endpoint {}",
    "reward a.mp4 --task t --model m --endpoint {}",
    "eval --model m --endpoint {}",
    "corrections import {}",
    "eval --benchmark dataset --data {}",
    "cot --out x --model m --endpoint {}",
    "import {} --name w",
    "export lerobot --out {}",
    "status --workspace {}",
)


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_in_an_address_is_refused_wherever_one_is_given(
    tmp_path, monkeypatch, capsys, place
):
    monkeypatch.chdir(tmp_path)
    for address in ADDRESSES:
        words = [word.format(address) for word in place.split()]
        result = called(capsys, *words, "--verbose")
        assert result.code == USAGE, result.err
        assert MARK not in result.out + result.err
        assert "error: " in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "catalog",
    [
        f"postgres:host=127.0.0.1 port=9 password={MARK}",
        f"postgresql://u:{MARK}@127.0.0.1:9/x",
        f"mysql://u:{MARK}@h/x",
    ],
)
def test_settings_of_a_workspace_are_not_repeated(tmp_path, catalog):
    (tmp_path / "workspace.toml").write_text(f'catalog = "{catalog}"\n')
    result = command("status", "--verbose", cwd=tmp_path, workspace=tmp_path)
    assert result.code == USAGE
    assert "workspace.toml" in result.err
    assert MARK not in result.out + result.err


def test_a_proxys_password_is_not_repeated(tmp_path):
    through = dict.fromkeys(
        ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), f"http://u:{MARK}@127.0.0.1:9"
    )
    result = proccorpus("inspect", "http://host.invalid/d/", "--verbose", cwd=tmp_path, **through)
    assert result.code != 0
    assert MARK not in result.out + result.err
    assert found_in(tmp_path) == []
