"""Where a lake may lie, and what is said of a place where it may not."""

import re

import pytest

from core.paths import Workspace
from warehouse.lake.place import LakeError, bucket_settings, create, place
from warehouse.lake.sql import attach_lines

CATALOG = "postgresql://me@db.example:5432/lake"


@pytest.fixture
def space(tmp_path) -> Workspace:
    return Workspace(tmp_path / "corpus")


def test_a_lake_lies_in_its_workspace_unless_it_says_otherwise(space):
    lake_place = place(space)
    assert (lake_place.catalog, lake_place.data) == (str(space.catalog), f"{space.data}/")
    assert lake_place.extensions == ("ducklake", "sqlite_scanner")
    create(space, CATALOG, "s3://bucket/corpus/")
    lake_place = place(space)
    assert (lake_place.attached, lake_place.data) == (
        f"ducklake:postgres:{CATALOG}",
        "s3://bucket/corpus/",
    )
    assert lake_place.extensions == ("ducklake", "postgres_scanner", "httpfs")
    assert space.exists()


@pytest.mark.parametrize(
    ("catalog", "data", "said"),
    [
        ("mysql://db/lake", None, r"a catalog is postgresql://"),
        ("catalog.sqlite", None, r"a catalog is postgresql://"),
        ("postgresql://me:secret@db/lake", None, r"no password .*PGPASSWORD"),
        (None, "some/folder", r"an absolute path, not 'some/folder'"),
        (None, "s3://bucket/corpus", r"a bucket needs a catalog in Postgres"),
        (CATALOG, "gs://bucket/corpus", r"s3://BUCKET/FOLDER or an absolute path"),
    ],
)
def test_places_where_no_lake_can_lie(space, catalog, data, said):
    with pytest.raises(LakeError, match=rf"^--catalog and --data: .*{said}"):
        create(space, catalog, data)
    assert not space.root.exists()


def test_a_workspace_that_is_there_is_left_alone(workspace):
    with pytest.raises(LakeError, match="is a workspace already"):
        create(workspace, CATALOG, None)
    assert not workspace.settings.exists()


def test_a_bucket_is_reached_as_aws_tools_reach_it(monkeypatch, tmp_path):
    for name in (
        "AWS_ENDPOINT_URL",
        "AWS_PROFILE",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_DEFAULT_REGION",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    config = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(LakeError, match="s3://b/x/: no AWS credentials"):
        bucket_settings("s3://b/x/")
    config.write_text(
        "[profile lab]\nregion = eu-west-3\nendpoint_url = https://store.example/s3\n"
        "aws_access_key_id = key\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "nosuch")
    with pytest.raises(LakeError, match="nosuch"):
        bucket_settings("s3://b/x/")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert bucket_settings("s3://b/x/") == {
        "KEY_ID": "key", "SECRET": "secret", "SCOPE": "s3://b/x/", "REGION": "eu-west-3",
        "ENDPOINT": "store.example/s3", "URL_STYLE": "path", "USE_SSL": True,
    }  # fmt: skip


def test_lines_for_duckdb_name_the_place_and_no_key(space, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "verysecret")
    create(space, CATALOG, "s3://bucket/corpus")
    lines = attach_lines(space)
    assert re.search(r"^(INSTALL postgres;|LOAD '.*postgres_scanner)", lines, re.MULTILINE)
    assert f"ATTACH 'ducklake:postgres:{CATALOG}' AS lake (DATA_PATH 's3://bucket/corpus/'" in lines
    assert "verysecret" not in lines
