"""A stand-in for the hub's side of uploads on loopback: one repository, large files by git-LFS, commits."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.kits.hub_server import git_id

LARGE = (".tar", ".parquet", ".safetensors")


@dataclass
class HubRepository:
    repo: str
    kind: str = "datasets"  # or "models"
    created: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # by sha256
    uploads: list[str] = field(default_factory=list)  # sha256 of each large file that was sent
    commits: int = 0
    fail_at_commit: int | None = None  # the so manieth is refused, once
    endpoint: str = ""

    @property
    def place(self) -> str:
        """Before its files' paths: a dataset's name is within a folder, a model's is not."""
        return f"/datasets/{self.repo}" if self.kind == "datasets" else f"/{self.repo}"


@contextmanager
def serve_repository(repo: str, kind: str = "datasets") -> Iterator[HubRepository]:
    class Handler(_Handler):
        hub = HubRepository(repo, kind)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Handler.hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield Handler.hub
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def hub_of(repo: str, kind: str = "datasets") -> Iterator[HubRepository]:
    """A repository that huggingface_hub takes for the hub's."""
    with serve_repository(repo, kind) as repository, pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.ENDPOINT", repository.endpoint)
        template = repository.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        patch.setenv("HF_TOKEN", "hf_dummy")
        yield repository


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubRepository

    def log_message(self, format: str, *args: object) -> None:
        pass

    @property
    def _path(self) -> str:
        return unquote(urlsplit(self.path).path)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_PUT(self) -> None:
        data = self._body()
        sha256 = self._path.rsplit("/", 1)[1]
        if hashlib.sha256(data).hexdigest() != sha256:
            return self._answer({}, 400)
        self.hub.uploads.append(sha256)
        self.hub.objects[sha256] = data
        return self._answer({})

    def do_POST(self) -> None:
        hub, path, body = self.hub, self._path, self._body()
        api = f"/api/{hub.kind}/{hub.repo}"
        if path == "/api/repos/create":
            hub.created = True
            return self._answer({"url": f"{hub.endpoint}{hub.place}"})
        if path == "/api/validate-yaml":
            return self._answer({"warnings": [], "errors": []})
        if path == f"{api}/preupload/main":
            asked = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular"} for f in asked
            ]
            return self._answer({"files": [m | {"shouldIgnore": False} for m in modes]})
        if path == f"{hub.place}.git/info/lfs/objects/batch":
            return self._answer({"transfer": "basic", "objects": [self._lfs(o) for o in json.loads(body)["objects"]]})
        if path == f"{api}/commit/main":
            return self._commit([json.loads(line) for line in body.splitlines()])
        if path.startswith(f"{api}/paths-info/"):
            return self._answer([self._entry(p) for p in _paths(body) if p in hub.files])
        return self._answer({}, 404)

    def _lfs(self, wanted: dict) -> dict:
        if wanted["oid"] in self.hub.objects:
            return wanted
        return wanted | {"actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{wanted['oid']}"}}}

    def _commit(self, lines: list[dict]) -> None:
        hub = self.hub
        hub.commits += 1
        if hub.commits == hub.fail_at_commit:
            return self._answer({"error": "not now"}, 400)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                hub.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                hub.files[value["path"]] = hub.objects[value["oid"]]
        oid = f"{hub.commits:040x}"
        return self._answer({"commitUrl": f"{hub.endpoint}{hub.place}/commit/{oid}", "commitOid": oid})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.hub, self._path
        if not hub.created:
            return self._answer({}, 404, {"X-Error-Code": "RepoNotFound"})
        if path in (f"/api/{hub.kind}/{hub.repo}", f"/api/{hub.kind}/{hub.repo}/revision/main"):
            return self._answer({"id": hub.repo, "sha": f"{hub.commits:040x}"})
        if "/tree/" in path:
            folder = path.partition("/tree/")[2].partition("/")[2]
            return self._answer([self._entry(p) for p in sorted(hub.files) if p.startswith(folder)])
        name = path.removeprefix(f"{hub.place}/resolve/").partition("/")[2]
        if name not in hub.files:
            return self._answer({}, 404, {"X-Error-Code": "EntryNotFound"})
        about = {"ETag": f'"{git_id(hub.files[name])}"', "X-Repo-Commit": f"{hub.commits:040x}"}
        return self._answer(hub.files[name], 200, about)

    def _entry(self, path: str) -> dict:
        data = self.hub.files[path]
        entry = {"type": "file", "path": path, "size": len(data), "oid": git_id(data)}
        if path.endswith(LARGE):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return entry

    def _answer(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for key, text in (headers or {}).items():
            self.send_header(key, text)
        self.send_header("Content-Type", "application/octet-stream" if isinstance(value, bytes) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _paths(body: bytes) -> list[str]:
    return json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
