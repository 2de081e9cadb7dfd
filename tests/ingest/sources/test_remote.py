"""Files that lie elsewhere: fetched when asked for, resumed where they broke off, checked, and never half in place.

The hub is a stand-in on loopback; buckets and web servers are in test_hosts.py.
"""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

import ingest.sources.hosts
import ingest.sources.remote
from ingest.formats import LEROBOT
from ingest.registry import DatasetConfig
from ingest.source import format_of, list_episodes, read_episode
from ingest.sources.files import Source
from ingest.sources.types import DownloadError, SourceError
from tests.kits.files import files_of
from tests.kits.hub_server import Hub, serve
from tests.kits.lerobot_writer import FRONT, edit_parquet, source_of, v3_meta, write_v2, write_v3
from tests.kits.patience import PATIENCE_S

REPO = "someone/toy"
BIG = bytes(range(256)) * 4096  # 1 MiB
FILES = {
    "README.md": b"small",
    "data/a.parquet": BIG,
    "data/b.parquet": BIG[::-1],
    ".gitattributes": b"hidden",
}


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[float]:
    """Nobody waits; returns how long it would have been."""
    slept: list[float] = []
    monkeypatch.setattr(ingest.sources.remote.time, "sleep", slept.append)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return slept


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    with serve(Hub(REPO)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.fixture
def blocks(monkeypatch) -> int:
    """Bytes that are asked for at a time."""
    monkeypatch.setattr(ingest.sources.hosts, "BLOCK_BYTES", 1 << 18)
    return 1 << 18


@pytest.fixture
def source(hub: Hub, tmp_path) -> Source:
    """Pinned to the only commit, with nothing fetched."""
    return at(tmp_path, revision=hub.commit(FILES))


def at(folder: Path, source: str = f"hf://{REPO}", **fields: Any) -> Source:
    return Source(DatasetConfig(name="toy", source=source, **fields), None, folder / "cache")


def afresh(source: Source) -> Source:
    """As another process has it."""
    return replace(source)


def in_place(source: Source) -> set[str]:
    """What lies under final names."""
    assert source.cache
    return {u for u in files_of(source.cache) if not u.startswith(".")}


def partials(source: Source) -> list[int]:
    assert source.cache
    return [p.stat().st_size for p in (source.cache / ".fetch").glob("*.partial")]


def test_listing(hub, source):
    hub.page = 1
    shas = {n: hashlib.sha256(FILES[n]).hexdigest() for n in ("data/a.parquet", "data/b.parquet")}
    assert {u: tuple(s) for u, s in source.files.items()} == {
        "README.md": (5, "git:64c3ecd7abb014643a372e0155b41cfca014c01f"),
        "data/a.parquet": (len(BIG), f"sha256:{shas['data/a.parquet']}"),
        "data/b.parquet": (len(BIG), f"sha256:{shas['data/b.parquet']}"),
    }
    assert (source.contents.folders, source.contents.escaping, in_place(source)) == (
        {"data"},
        [],
        set(),
    )
    assert source.fingerprint() == source.config.revision
    assert hub.contents() == []


def test_a_pinned_listing_needs_no_network_twice(hub, source):
    first = source.resolve("README.md").read_bytes()
    num_requests = len(hub.asked)
    second_source = afresh(source)
    assert (second_source.files, second_source.fingerprint()) == (
        source.files,
        source.fingerprint(),
    )
    assert second_source.resolve("README.md").read_bytes() == first
    assert len(hub.asked) == num_requests


def test_a_branch_that_moves(hub, tmp_path):
    old = hub.commit(FILES)
    source = at(tmp_path)
    assert source.fingerprint() == old
    for uri in ("README.md", "data/a.parquet"):
        source.resolve(uri)
    new = hub.commit({"README.md": b"large", "data/a.parquet": BIG})  # of equal size
    hub.asked.clear()
    moved_source = afresh(source)
    assert (moved_source.fingerprint(), list(moved_source.files)) == (
        new,
        ["README.md", "data/a.parquet"],
    )
    assert moved_source.resolve("README.md").read_bytes() == b"large"
    assert moved_source.resolve("data/a.parquet").read_bytes() == BIG
    assert hub.fetched() == {"README.md"}, "what did not change is not fetched again"
    with pytest.raises(DownloadError, match=r"toy: hf://someone/toy has no file data/b\.parquet"):
        moved_source.resolve("data/b.parquet")
    old_source = replace(source, listed=old)  # a worker of a build that began before
    assert old_source.files == source.files
    assert old_source.resolve("README.md").read_bytes() == b"small"


def test_names_that_lead_elsewhere(hub, tmp_path):
    hub.commit(
        dict.fromkeys(
            ("\ud800", "../out", "a/../../out", "/etc/x", "a//b", ".a/b", "a/.b", "c"), b"x"
        )
    )
    source = at(tmp_path)
    assert list(source.files) == ["c"]
    assert source.contents.escaping == ["../out", "/etc/x", "a/../../out"]
    for uri in ("../out", "a/../../out"):
        with pytest.raises(SourceError):
            source.resolve(uri)
    assert not (tmp_path / "out").exists()


def test_goes_on_where_it_broke_off(hub, source, blocks):
    hub.drops["data/a.parquet"] = [blocks, 0, 100]
    assert source.resolve("data/a.parquet").read_bytes() == BIG
    assert [a.start for a in hub.contents()] == [
        0,
        blocks,
        blocks,
        blocks,
        *range(2 * blocks, len(BIG), blocks),
    ]


def test_goes_on_in_a_later_run(hub, source, blocks):
    hub.drops["data/a.parquet"] = [blocks] + [0] * 40
    with pytest.raises(DownloadError) as error:
        source.resolve("data/a.parquet")
    assert str(error.value) == (
        f"toy: cannot fetch data/a.parquet from hf://{REPO} at revision {source.config.revision}: "
        f"peer closed connection without sending complete message body (received 0 bytes, expected {blocks}); "
        "see that it answers, and run the same again: it resumes where it stopped"
    )
    assert (in_place(source), partials(source)) == (set(), [blocks])
    hub.asked.clear()
    hub.drops.clear()
    assert afresh(source).resolve("data/a.parquet").read_bytes() == BIG
    assert [a.start for a in hub.contents()] == [*range(blocks, len(BIG), blocks)]
    assert partials(source) == []


def test_what_is_got_over(hub, source):
    # A server without ranges; wrong bytes, by git's hash of a small file and by SHA-256 of a large one
    hub.ranges = False
    hub.drops["data/a.parquet"] = [300_000]
    assert source.resolve("data/a.parquet").read_bytes() == BIG
    for uri in ("README.md", "data/b.parquet"):
        hub.asked.clear()
        hub.corrupt[uri] = 1
        assert source.resolve(uri).read_bytes() == FILES[uri]
        assert [a.start for a in hub.contents()] == [0, 0]


def test_what_was_put_there_by_hand_is_taken_when_it_is_right(hub, source):
    """And more than was listed is not taken."""
    assert source.cache
    assert source.files
    (source.cache / "data").mkdir(parents=True)
    for uri in ("data/a.parquet", "data/b.parquet"):
        (source.cache / uri).write_bytes(BIG)
    hub.commits[source.fingerprint()]["data/b.parquet"] += b"more"
    assert source.resolve("data/a.parquet").read_bytes() == BIG
    assert source.resolve("data/b.parquet").read_bytes() == BIG[::-1]
    assert hub.fetched() == {"data/b.parquet"}


def test_bytes_that_stay_wrong(hub, source):
    hub.corrupt["data/a.parquet"] = 99
    with pytest.raises(
        DownloadError,
        match=r"fetch data/a\.parquet .* not what was listed .* twice; .* run the same",
    ):
        source.resolve("data/a.parquet")
    assert (in_place(source), partials(source), len(hub.contents())) == (set(), [], 2)


def test_refused(hub, source, waits):
    token = "set HF_TOKEN to a token that may read it"
    address = "check the address, and the revision"
    for status, remedy in {401: token, 403: token, 404: address, 410: "run the same again"}.items():
        hub.refuse["README.md"] = [status]
        with pytest.raises(
            DownloadError, match=f"cannot fetch README.md .*: {status} refused; .*{remedy}"
        ):
            source.resolve("README.md")
        assert (in_place(source), waits) == (set(), []), "asking again would not help"


def test_a_busy_hub(hub, source, waits):
    hub.refuse["README.md"] = [503, 429, 500, 0]
    assert source.resolve("README.md").read_bytes() == b"small"
    assert waits == [1.0, 8.0, 4.0], "429 says how long"
    hub.refuse["data/a.parquet"] = [503]
    with pytest.raises(
        DownloadError, match=r"503 refused; see that it answers, and run the same again"
    ):
        source.resolve("data/a.parquet")


def test_token(hub, source, monkeypatch):
    # Goes to the hub, and not to where the hub redirects
    hub.token = "hf_secret"
    with pytest.raises(
        DownloadError, match=r"fetch the list of its files .*401 Repository not found; .*HF_TOKEN"
    ):
        _ = source.files
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    source = afresh(source)
    source.resolve("data/a.parquet")
    tokens_by_host = {(a.host, a.token) for a in hub.asked[1:]}
    assert tokens_by_host == {("127.0.0.1", "Bearer hf_secret"), ("localhost", None)}


def test_revisions_and_names_that_are_not_there(hub, tmp_path, monkeypatch):
    commit = hub.commit(FILES)
    hub.branches["refs/convert/parquet"] = commit
    assert at(tmp_path, revision="refs/convert/parquet").fingerprint() == commit
    for source in (
        at(tmp_path, revision="v9"),
        at(tmp_path, "hf://someone/else"),
        at(tmp_path, revision="0" * 40),
    ):
        with pytest.raises(DownloadError, match=r"404 .*; check the address, and the revision"):
            _ = source.files
    for address, reason in (
        ("hf://toy", "hf://owner/name"),
        ("ftp://host/x", "no ftp:// is read here"),
    ):
        with pytest.raises(SourceError, match=reason):
            _ = at(tmp_path, address).files
    with pytest.raises(SourceError, match="give a folder to fetch its files to"):
        _ = Source(DatasetConfig(name="toy", source=f"hf://{REPO}")).files
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="unset HF_HUB_OFFLINE"):
        _ = at(tmp_path).files


def test_more_files_than_the_limits(hub, tmp_path):
    hub.page, revision = 2, hub.commit(FILES)
    with pytest.raises(
        DownloadError, match=r"files: \d, over the limit of 1 \(limits.max_files of the registry"
    ):
        _ = at(tmp_path, revision=revision, limits={"max_files": 1}).files


def test_a_folder_that_cannot_be_written(hub, source):
    assert source.cache
    assert source.files
    (source.cache / "data").write_text("in the way")
    with pytest.raises(DownloadError, match=r"see to the folder .*cache"):
        source.resolve("data/a.parquet")


def test_processes_that_want_the_same_file(hub, source):
    assert source.files
    code = (
        "import sys; from pathlib import Path;"
        "from ingest.sources.files import Source; from ingest.registry import DatasetConfig;"
        "config = DatasetConfig(name='toy', source=sys.argv[1], revision=sys.argv[2]);"
        "print(len(Source(config, None, Path(sys.argv[3])).resolve('data/a.parquet').read_bytes()))"
    )
    command = [
        sys.executable,
        "-c",
        code,
        source.config.source,
        source.config.revision,
        str(source.cache),
    ]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [p.communicate(timeout=PATIENCE_S)[0] for p in both] == [f"{len(BIG)}\n"] * 2
    assert [a.start for a in hub.contents()] == [0], "one fetched, the other waited"


def remote(hub: Hub, root: Path, tmp_path: Path, *selected: int) -> Source:
    source = at(tmp_path, revision=hub.commit(files_of(root)))
    if selected:
        return replace(source, selected=frozenset(selected))
    return source


@pytest.mark.parametrize("write", [write_v2, write_v3])
def test_a_remote_dataset_is_as_a_local_one(hub, tmp_path, write):
    root = write(tmp_path / "local", [6, 7, 8])
    source = remote(hub, root, tmp_path)
    local = source_of(root)
    assert format_of(source) == LEROBOT
    assert list_episodes(source) == list_episodes(local)
    assert not any(uri.endswith(".mp4") for uri in hub.fetched())
    record = list_episodes(source).records[1]
    lumas = [p.luma().tobytes() for _, _, p in read_episode(source, record).frames(FRONT)]
    assert lumas == [p.luma().tobytes() for _, _, p in read_episode(local, record).frames(FRONT)]
    assert len(lumas) == 7


def test_one_episode_of_v2(hub, tmp_path):
    root = write_v2(tmp_path / "local", [6, 7, 8])
    source = remote(hub, root, tmp_path, 1)
    listing = list_episodes(source)
    assert [r.num_rows for r in listing.records] == [None, 7, None]
    assert [r.task for r in listing.records] == ["pick the cup"] * 3
    assert listing.findings == ()
    whole = list_episodes(source_of(root))
    assert listing.records[1] == whole.records[1]
    data = "data/chunk-000/episode_000001.parquet"
    assert {u for u in hub.fetched() if not u.startswith("meta/")} == {data}


def test_one_episode_of_v3_by_its_pointer(hub, tmp_path):
    root = write_v3(tmp_path / "local", [6, 7, 8, 9, 10], per_data_file=2)
    edit_parquet(v3_meta(root), **{"data/chunk_index": [0] * 5, "data/file_index": [0, 0, 1, 1, 2]})
    listing = list_episodes(remote(hub, root, tmp_path, 3, 99))
    assert [r.num_rows for r in listing.records] == [None, None, 8, 9, None]
    assert listing.findings == ()
    assert {u for u in hub.fetched() if u.startswith("data/")} == {
        "data/chunk-000/file-001.parquet"
    }
    edit_parquet(v3_meta(root), **{"data/file_index": [2, 2, 2, 2, 0]})  # wrong
    listing = list_episodes(remote(hub, root, tmp_path, 3))
    assert listing.records[3].num_rows == 9
