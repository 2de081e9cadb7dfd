"""A stand-in for the hub's file API on loopback: listing in pages, redirects of large files,
ranges, tokens, faults; uploads by git-LFS and commits.

Faults are given per path, and are used up as files are asked for.
"""

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

from tests.kits.http_server import Answering, serving

LARGE = (".parquet", ".mp4", ".tar", ".safetensors")  # kept by git-LFS


class Asked(NamedTuple):
    method: str
    path: str  # of a large file's content too: the path in the repository
    start: int | None  # of the range asked for
    token: str | None
    host: str
    redirected: bool


@dataclass
class Hub:
    """One repository, from its first commit on. Branches name commits, whose ids are hashes of
    files."""

    repo: str
    kind: str = "datasets"  # or "models"
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    token: str | None = None  # wanted from everybody
    page: int = 1000  # entries of a listing at a time
    ranges: bool = True  # large files by range?
    drops: dict[str, list[int]] = field(
        default_factory=lambda: defaultdict(list)
    )  # connections end after so many bytes
    corrupt: dict[str, int] = field(default_factory=dict)  # so many answers have a wrong byte
    refuse: dict[str, list[int]] = field(
        default_factory=lambda: defaultdict(list)
    )  # HTTP statuses; the last one stays
    asked: list[Asked] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)  # large files that were sent, by sha256
    uploads: list[str] = field(default_factory=list)  # sha256 of each of them
    sent: int = 0  # commits
    fail_at_commit: int | None = None  # the so manieth that is sent is refused, once
    endpoint: str = ""

    @property
    def place(self) -> str:
        """Before its files' paths: a dataset's name is within a folder, a model's is not."""
        if self.kind == "datasets":
            return f"/datasets/{self.repo}"
        return f"/{self.repo}"

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.branches["main"]]

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        text = json.dumps({n: hashlib.sha256(b).hexdigest() for n, b in sorted(files.items())})
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit

    def contents(self) -> list[Asked]:
        """Requests that were answered by a file's content (or refused it)."""
        return [
            a
            for a in self.asked
            if a.method == "GET" and not a.path.startswith("/api/") and not a.redirected
        ]

    def fetched(self) -> set[str]:
        return {a.path for a in self.contents()}


def large(path: str) -> bool:
    return path.endswith(LARGE)


def git_id(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    with serving(_Handler, hub=hub) as hub.endpoint:
        yield hub


@contextmanager
def hub_of(repo: str, kind: str = "datasets") -> Iterator[Hub]:
    """A repository, not yet made, that huggingface_hub takes for the hub's."""
    with serve(Hub(repo, kind)) as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        # A test before in this process may have imported the library without a network
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        patch.setenv("HF_TOKEN", "hf_dummy")
        yield hub


def entry_of(name: str, data: bytes) -> dict:
    entry = {"type": "file", "oid": git_id(data), "size": len(data), "path": name}
    if large(name):
        oid = hashlib.sha256(data).hexdigest()
        entry |= {
            "oid": git_id(oid.encode()),
            "lfs": {"oid": oid, "size": len(data), "pointerSize": 134},
        }
    return entry


class _Handler(Answering):
    hub: Hub

    def do_GET(self) -> None:
        hub = self.hub
        url = urlsplit(self.path)
        path = unquote(url.path)
        resolve = f"{hub.place}/resolve/"
        lfs = "/lfs/"
        api = f"/api/{hub.kind}/{hub.repo}"
        name = path
        if path.startswith(resolve):
            revision, _, name = path.removeprefix(resolve).partition("/")
        elif path.startswith(lfs):
            commit, _, name = path.removeprefix(lfs).partition("/")
        start = self.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
        host = self.headers.get("Host", "").partition(":")[0]
        redirected = path.startswith(resolve) and large(name)
        token = self.headers.get("Authorization")
        hub.asked.append(
            Asked(self.command, name, int(start) if start else None, token, host, redirected)
        )
        if path.startswith(lfs):
            return self._send(hub.commits[commit][name], name)
        if not hub.branches:
            return self._error(404, "RepoNotFound", "Repository not found")
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._error(401, "RepoNotFound", "Repository not found")
        if path.startswith(resolve):
            return self._resolve(revision, name)
        if path.startswith(f"{api}/revision/") or path == api:
            commit = self._commit(path.removeprefix(api).removeprefix("/revision/") or "main")
            repo_info = {"id": hub.repo, "sha": commit}
            if commit:
                return self.answer(repo_info)
            return self._error(404, "RevisionNotFound", "no")
        if path.startswith(f"{api}/tree/"):
            revision, _, folder = path.removeprefix(f"{api}/tree/").partition("/")
            return self._tree(revision, folder, int(parse_qs(url.query).get("cursor", ["0"])[0]))
        return self._error(404, "RepoNotFound", "Repository not found")

    def _commit(self, revision: str) -> str | None:
        if revision in self.hub.commits:
            return revision
        return self.hub.branches.get(revision)

    def _tree(self, revision: str, folder: str, start: int) -> None:
        hub = self.hub
        commit = self._commit(revision)
        if commit is None:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        below = f"{folder}/" if folder else ""
        files = {n: b for n, b in hub.commits[commit].items() if n.startswith(below)}
        if folder and not files:
            return self._error(404, "EntryNotFound", f"{folder} does not exist")
        folders = sorted({n.rsplit("/", 1)[0] for n in files if "/" in n[len(below) :]})
        entries: list[dict] = [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": f} for f in folders
        ]
        entries += [entry_of(name, data) for name, data in files.items()]
        headers = {}
        if start + hub.page < len(entries):
            next_page = (
                f"{hub.endpoint}{urlsplit(self.path).path}?recursive=true&cursor={start + hub.page}"
            )
            headers = {"Link": f'<{next_page}>; rel="next"'}
        return self.answer(entries[start : start + hub.page], headers=headers)

    def _resolve(self, revision: str, name: str) -> None:
        hub = self.hub
        commit = self._commit(revision)
        if hub.refuse[name]:
            if len(hub.refuse[name]) == 1:
                status = hub.refuse[name][0]
            else:
                status = hub.refuse[name].pop(0)
            if status:
                return self._error(status, "", "refused")
        if commit is None or name not in hub.commits[commit]:
            return self._error(404, "EntryNotFound", "Entry not found")
        data = hub.commits[commit][name]
        about = {"X-Repo-Commit": commit}
        if not large(name):
            return self._send(data, name, about | {"ETag": f'"{git_id(data)}"'})
        oid = hashlib.sha256(data).hexdigest()
        about |= {
            "X-Linked-Etag": f'"{oid}"',
            "X-Linked-Size": str(len(data)),
            "ETag": f'"{git_id(oid.encode())}"',
        }
        port = hub.endpoint.rsplit(":", 1)[1]
        return self.answer(
            b"", 302, about | {"Location": f"http://localhost:{port}/lfs/{commit}/{quote(name)}"}
        )

    def _send(self, data: bytes, name: str, about: Mapping[str, str] | None = None) -> None:
        """Content, by range if asked, with the faults that are set for it."""
        hub = self.hub
        if hub.corrupt.get(name) and self.command == "GET":
            hub.corrupt[name] -= 1
            data = data[:-1] + bytes([data[-1] ^ 1])
        total = len(data)
        byte_range = self.headers.get("Range")
        start = 0
        end = total
        if byte_range and hub.ranges:
            first, _, last = byte_range.removeprefix("bytes=").partition("-")
            start = int(first)
            end = int(last) + 1 if last else total
        data = data[start:end]
        self.send_response(206 if byte_range and hub.ranges else 200)
        for key, value in (about or {}).items():
            self.send_header(key, value)
        if byte_range and hub.ranges:
            self.send_header("Content-Range", f"bytes {start}-{min(end, total) - 1}/{total}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if hub.drops[name]:
            data = data[: hub.drops[name].pop(0)]
            self.close_connection = True
        self.wfile.write(data)

    def do_PUT(self) -> None:
        data = self.body()
        sha256 = self.path.rsplit("/", 1)[1]
        if hashlib.sha256(data).hexdigest() != sha256:
            return self.answer({}, 400)
        self.hub.uploads.append(sha256)
        self.hub.objects[sha256] = data
        return self.answer({})

    def do_POST(self) -> None:
        hub = self.hub
        path = unquote(urlsplit(self.path).path)
        body = self.body()
        api = f"/api/{hub.kind}/{hub.repo}"
        if path == "/api/repos/create":
            if not hub.branches:
                hub.commit({})
            return self.answer({"url": f"{hub.endpoint}{hub.place}"})
        if path == "/api/validate-yaml":
            return self.answer({"warnings": [], "errors": []})
        if path == f"{api}/preupload/main":
            modes = [
                (f["path"], "lfs" if large(f["path"]) else "regular")
                for f in json.loads(body)["files"]
            ]
            return self.answer(
                {"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes]}
            )
        if path == f"{hub.place}.git/info/lfs/objects/batch":
            upload_objects = [
                o
                if o["oid"] in hub.objects
                else o | {"actions": {"upload": {"href": f"{hub.endpoint}/lfs/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": upload_objects})
        if path == f"{api}/commit/main":
            return self._committed([json.loads(line) for line in body.splitlines()])
        if path.startswith(f"{api}/paths-info/"):
            if body.startswith(b"{"):
                paths = json.loads(body)["paths"]
            else:
                paths = parse_qs(body.decode())["paths"]
            return self.answer([entry_of(p, hub.files[p]) for p in paths if p in hub.files])
        return self.answer({}, 404)

    def _committed(self, lines: list[dict]) -> None:
        hub = self.hub
        hub.sent += 1
        if hub.sent == hub.fail_at_commit:
            return self.answer({"error": "not now"}, 400)
        values = [(line["key"], line["value"]) for line in lines]
        files = {v["path"]: base64.b64decode(v["content"]) for kind, v in values if kind == "file"}
        files |= {v["path"]: hub.objects[v["oid"]] for kind, v in values if kind == "lfsFile"}
        deleted = {v["path"] for kind, v in values if kind == "deletedFile"}
        kept_files = {path: data for path, data in hub.files.items() if path not in deleted}
        oid = hub.commit(kept_files | files)
        return self.answer(
            {"commitUrl": f"{hub.endpoint}{hub.place}/commit/{oid}", "commitOid": oid}
        )

    def _error(self, status: int, code: str, message: str) -> None:
        later = {"Retry-After": "7"} if status == 429 else {}
        self.answer(b"", status, {"X-Error-Code": code, "X-Error-Message": message} | later)


@contextmanager
def public_hub(repo: str) -> Iterator[Hub]:
    """A hub where a repository may be read by all, and nobody has a token."""
    with serve(Hub(repo)) as hub, pytest.MonkeyPatch.context() as patch:
        patch.delenv("HF_TOKEN", raising=False)
        patch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub
