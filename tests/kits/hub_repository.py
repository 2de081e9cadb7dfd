"""A stand-in for the hub's side of uploads on loopback: one repository, large files by git-LFS, commits."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.kits.http_server import Answering, serving
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
    hub = HubRepository(repo, kind)
    with serving(_Handler, hub=hub) as hub.endpoint:
        yield hub


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


class _Handler(Answering):
    hub: HubRepository

    @property
    def _path(self) -> str:
        return unquote(urlsplit(self.path).path)

    def do_PUT(self) -> None:
        data = self.body()
        sha256 = self._path.rsplit("/", 1)[1]
        if hashlib.sha256(data).hexdigest() != sha256:
            return self.answer({}, 400)
        self.hub.uploads.append(sha256)
        self.hub.objects[sha256] = data
        return self.answer({})

    def do_POST(self) -> None:
        hub, path, body = self.hub, self._path, self.body()
        api = f"/api/{hub.kind}/{hub.repo}"
        if path == "/api/repos/create":
            hub.created = True
            return self.answer({"url": f"{hub.endpoint}{hub.place}"})
        if path == "/api/validate-yaml":
            return self.answer({"warnings": [], "errors": []})
        if path == f"{api}/preupload/main":
            asked = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular"} for f in asked
            ]
            return self.answer({"files": [m | {"shouldIgnore": False} for m in modes]})
        if path == f"{hub.place}.git/info/lfs/objects/batch":
            return self.answer({"transfer": "basic", "objects": [self._lfs(o) for o in json.loads(body)["objects"]]})
        if path == f"{api}/commit/main":
            return self._commit([json.loads(line) for line in body.splitlines()])
        if path.startswith(f"{api}/paths-info/"):
            return self.answer([self._entry(p) for p in _paths(body) if p in hub.files])
        return self.answer({}, 404)

    def _lfs(self, wanted: dict) -> dict:
        if wanted["oid"] in self.hub.objects:
            return wanted
        return wanted | {"actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{wanted['oid']}"}}}

    def _commit(self, lines: list[dict]) -> None:
        hub = self.hub
        hub.commits += 1
        if hub.commits == hub.fail_at_commit:
            return self.answer({"error": "not now"}, 400)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                hub.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                hub.files[value["path"]] = hub.objects[value["oid"]]
        oid = f"{hub.commits:040x}"
        return self.answer({"commitUrl": f"{hub.endpoint}{hub.place}/commit/{oid}", "commitOid": oid})

    def do_GET(self) -> None:
        hub, path = self.hub, self._path
        if not hub.created:
            return self.answer({}, 404, {"X-Error-Code": "RepoNotFound"})
        if path in (f"/api/{hub.kind}/{hub.repo}", f"/api/{hub.kind}/{hub.repo}/revision/main"):
            return self.answer({"id": hub.repo, "sha": f"{hub.commits:040x}"})
        if "/tree/" in path:
            folder = path.partition("/tree/")[2].partition("/")[2]
            return self.answer([self._entry(p) for p in sorted(hub.files) if p.startswith(folder)])
        name = path.removeprefix(f"{hub.place}/resolve/").partition("/")[2]
        if name not in hub.files:
            return self.answer({}, 404, {"X-Error-Code": "EntryNotFound"})
        about = {"ETag": f'"{git_id(hub.files[name])}"', "X-Repo-Commit": f"{hub.commits:040x}"}
        return self.answer(hub.files[name], 200, about)

    def _entry(self, path: str) -> dict:
        data = self.hub.files[path]
        entry = {"type": "file", "path": path, "size": len(data), "oid": git_id(data)}
        if path.endswith(LARGE):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return entry


def _paths(body: bytes) -> list[str]:
    return json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
