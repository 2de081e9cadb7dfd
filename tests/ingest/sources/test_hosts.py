"""Datasets in buckets and on web servers, all of them on loopback."""

import base64
import gzip
import hashlib
import http.server
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c
import pytest

import ingest.sources.remote
from ingest.reasons import Limits
from ingest.registry import DatasetConfig
from ingest.source import list_episodes
from ingest.sources import hosts
from ingest.sources.files import Source
from ingest.sources.types import DownloadError
from tests.kits.http_server import Answering, serving
from tests.kits.lerobot_writer import source_of, write_v2


@pytest.fixture(autouse=True)
def no_waits(monkeypatch) -> None:
    monkeypatch.setattr(ingest.sources.remote.time, "sleep", lambda seconds: None)


def at(folder: Path, source: str, **limits: int) -> Source:
    return Source(
        DatasetConfig(name="toy", source=source, limits=Limits(**limits)), None, folder / "cache"
    )


def sizes(source: Source) -> dict[str, int]:
    return {uri: file_facts.size for uri, file_facts in source.files.items()}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(tmp_path) -> Iterator[str]:
    root = write_v2(tmp_path / "served/my set", [6, 7])
    (root / "a b.json").write_text("{}")
    (root / "empty.json").write_text("")
    (root / ".hidden").write_text("x")

    with serving(partial(Quiet, directory=tmp_path / "served")) as address:
        yield f"{address}/"


def test_a_web_server(web, tmp_path):
    root = tmp_path / "served/my set"
    source = at(tmp_path, f"{web}my%20set/")
    assert sizes(source) == sizes(source_of(root))
    for uri in ("a b.json", "empty.json"):
        assert source.resolve(uri).read_bytes() == (root / uri).read_bytes()
    assert list_episodes(at(tmp_path, f"{web}my%20set/")) == list_episodes(source_of(root))
    former_print = source.fingerprint()
    assert replace(source).fingerprint() == former_print
    (root / "a b.json").write_text("[1]")
    assert (changed := replace(source)).fingerprint() != former_print
    assert changed.resolve("a b.json").read_text() == "[1]"
    listed = replace(source, listed=former_print)
    assert listed.files == source.files


@pytest.mark.parametrize("limit", ["max_pages", "max_files", "max_bytes"])
def test_more_than_the_limits_of_a_web_server(web, tmp_path, limit):
    with pytest.raises(
        DownloadError, match=f"over the limit of 1 .limits.{limit} of the registry entry"
    ):
        _ = at(tmp_path, f"{web}my%20set/", **{limit: 1}).files


def test_one_file_of_a_web_server(web, tmp_path):
    source = at(tmp_path, f"{web}my%20set/a%20b.json")
    assert list(source.files) == ["a b.json"]
    assert source.resolve("a b.json").read_text() == "{}"


def test_an_object_under_a_key_of_its_owner(s3, tmp_path):
    # Its etag looks like an MD5 and is none: the size has to do
    s3.put_object(Bucket="corpora", Key="one/a.json", Body=b"one")
    source = at(tmp_path, "s3://corpora/one")
    assert source.files
    s3.put_object(Bucket="corpora", Key="one/a.json", Body=b"two", ServerSideEncryption="aws:kms")
    assert source.resolve("a.json").read_bytes() == b"two"


@pytest.fixture
def gs(monkeypatch) -> Iterator[dict[str, bytes]]:
    """Objects of the bucket `robots`, public; what is named *.bin was put there in parts, so it has no MD5."""
    objects: dict[str, bytes] = {}

    class Google(Answering):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            bucket = "/storage/v1/b/robots/o"
            query = parse_qs(url.query)
            name = unquote(url.path).partition("/b/robots/o/")[2]
            if self.headers.get("Authorization"):
                return self.send_error(400, "nobody has logged in")
            if url.path == bucket:
                return self.answer(
                    {"items": [facts(n) for n in objects if n.startswith(query["prefix"][0])]}
                )
            if name not in objects:
                return self.send_error(404)
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            return self.answer(objects[name][int(first) : int(last) + 1])

    def facts(name: str) -> dict[str, str]:
        data = objects[name]
        blob_facts = {
            "name": name,
            "size": str(len(data)),
            "crc32c": b64(google_crc32c.Checksum(data).digest()),
        }
        if name.endswith(".bin"):
            return blob_facts
        return blob_facts | {"md5Hash": b64(hashlib.md5(data).digest())}

    def b64(digest: bytes) -> str:
        return base64.b64encode(digest).decode()

    with serving(Google) as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield objects


def test_a_google_bucket(gs, tmp_path, monkeypatch):
    monkeypatch.setattr(hosts, "BLOCK_BYTES", 4000)
    gs |= {
        "set/meta/info.json": b"{}" * 5000,
        "set/parts.bin": b"abc",
        "set/wrong.bin": b"abc",
        "set_2/x": b"x",
    }
    source = at(tmp_path, "gs://robots/set")
    assert {uri: file_facts.version for uri, file_facts in source.files.items()} == {
        "meta/info.json": f"md5:{hashlib.md5(b'{}' * 5000).hexdigest()}",
        "parts.bin": "crc32c:Nks/tw==",
        "wrong.bin": "crc32c:Nks/tw==",
    }
    assert source.resolve("meta/info.json").read_bytes() == b"{}" * 5000
    assert source.resolve("parts.bin").read_bytes() == b"abc"
    gs["set/wrong.bin"] = b"abd"
    with pytest.raises(DownloadError, match="not what was listed"):
        source.resolve("wrong.bin")


@pytest.mark.parametrize("packed", ["page", "file"])
def test_what_a_server_packs_is_not_unpacked(tmp_path, packed):
    # 8 KB were 5.2 GB, packed twice: nothing packed is asked for, and what comes packed is not read
    twice = gzip.compress(gzip.compress(b"x"))
    page = b'<a href="ep.mp4">x</a>'

    class Packing(Answering):
        def do_HEAD(self) -> None:
            self.answer(twice)

        def do_GET(self) -> None:
            is_page = self.path.endswith("/")
            is_packed = is_page == (packed == "page")
            self.answer(
                twice if is_packed else page,
                headers={"Content-Encoding": "gzip, gzip"} if is_packed else {},
            )

    with serving(Packing) as url:
        source = at(tmp_path, f"{url}/")
        with pytest.raises(DownloadError, match=r"packed \(gzip, gzip\)"):
            source.resolve(next(iter(source.files)))
