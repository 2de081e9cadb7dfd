"""Where remote datasets lie: the Hugging Face hub, S3 and Google buckets, web servers. Listing, and reading.

Clients are imported when one is used. What a host says is not trusted: names, sizes and lengths are checked by
`ingest.sources.remote`, which also retries.
"""

import base64
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol
from urllib.parse import quote, unquote, urljoin, urlsplit

from core.errors import install_hint
from ingest.limits import Limits
from ingest.sources.types import FileStat, SourceError

if TYPE_CHECKING:
    import httpx

COMMIT = re.compile(r"[0-9a-f]{40}")
TIMEOUT_S = 30.0  # without a byte
BLOCK_BYTES = 1 << 20
RANGE_BYTES = 8 << 20  # of a bucket's object, asked for at a time
WEB_THREADS = 8


class HostError(Exception):
    """What a host answered instead of a file; `status` as HTTP has it, where it is one."""

    def __init__(self, message: str, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class TooLargeError(HostError):
    """A host that lists more than the limits of the registry entry: what, with the figure."""


def _check(problem: str) -> None:
    """Raises TooLargeError for what `Limits.excess` says."""
    if problem:
        raise TooLargeError(problem)


class Host(Protocol):
    """`credentials` says how to get in."""

    credentials: str

    def commit(self) -> str | None:
        """What the revision means now; None for a host that knows no revisions."""
        ...

    def files(self) -> dict[str, FileStat]: ...

    def read(self, uri: str, start: int, size: int) -> Iterator[bytes]:
        """Bytes of a file of `size` bytes, from `start` on; may end early."""
        ...

    def matches(self, path: Path, uri: str, known: FileStat) -> bool:
        """Is a complete download what was listed?"""
        ...


def open_host(source: str, revision: str | None, limits: Limits) -> Host:
    """The host of an address; nothing is asked of it yet. Raises SourceError for an address of another kind."""
    scheme, _, rest = source.partition("://")
    if scheme == "hf":
        return _open_hub(source, rest, revision, limits)
    if scheme in ("s3", "gs"):
        return Bucket(scheme, rest.strip("/"), limits)
    if scheme in ("http", "https"):
        return Web(source, limits)
    raise SourceError(f"{source}: no {scheme}:// is read here, only hf://, s3://, gs:// and https://")


def _open_hub(source: str, rest: str, revision: str | None, limits: Limits) -> "Hub":
    parts = rest.removeprefix("datasets/").strip("/").split("/", 2)
    if len(parts) < 2 or not all(parts):
        raise SourceError(f"{source} names no dataset of the hub: write hf://owner/name or hf://owner/name/folder")
    folder = parts[2] if len(parts) == 3 else ""
    return Hub("/".join(parts[:2]), folder, revision or "main", limits)


def hash_matches(path: Path, version: str) -> bool | None:
    """Is a file's content what its version says? None for a version that is no hash of content."""
    kind, _, value = version.partition(":")
    with path.open("rb") as f:
        if kind in ("sha256", "md5"):
            return hashlib.file_digest(f, kind).hexdigest() == value
        # Git hashes a header with the size before the content
        if kind == "git":
            header = f"blob {path.stat().st_size}\0".encode()
            return _fed(hashlib.sha1(header), f).hexdigest() == value
        if kind == "crc32c":
            import google_crc32c

            return base64.b64encode(_fed(google_crc32c.Checksum(), f).digest()).decode() == value
    return None


def _fed(digest: Any, f: BinaryIO) -> Any:
    """A hash after all of a file was put into it."""
    while block := f.read(BLOCK_BYTES):
        digest.update(block)
    return digest


# HTTP


def _checked(response: "httpx.Response") -> "httpx.Response":
    if response.status_code < 400:
        return response
    message = response.headers.get("X-Error-Message") or response.reason_phrase
    # The hub: RateLimit: "resolvers";r=0;t=42
    limits = response.headers.get("Retry-After") or response.headers.get("RateLimit", "")
    wait = re.search(r"^(\d+)$|\bt=(\d+)", limits)
    wait_s = float(wait[1] or wait[2]) if wait else None
    raise HostError(f"{response.status_code} {message}", response.status_code, wait_s)


def _http_bytes(client: "httpx.Client", url: str, headers: dict[str, str], start: int) -> Iterator[bytes]:
    """Bytes of a file from `start` on. Raises HostError."""
    with client.stream("GET", url, headers=_asked(headers, start), timeout=TIMEOUT_S) as response:
        skip = _bytes_to_skip(_checked(response), start)
        # As they come: blocks of a set size would lose what came of one when the connection ends
        for block in _as_stored(response):
            if skip < len(block):
                yield block[skip:]
            skip = max(0, skip - len(block))


def _asked(headers: dict[str, str], start: int) -> dict[str, str]:
    """Headers that ask for a file as it is stored, from `start` on."""
    plain = headers | {"Accept-Encoding": "identity"}
    return plain | {"Range": f"bytes={start}-"} if start else plain


def _as_stored(response: "httpx.Response") -> Iterator[bytes]:
    """The bytes of an answer as they come. Raises HostError for one that is packed, which was not asked for.

    Some bytes that are packed twice unpack to any size.
    """
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if coding not in ("", "identity"):
        raise HostError(f"the server sends what it was asked for packed ({coding[:40]}), which is not read")
    return response.iter_raw()


def _short(client: "httpx.Client", url: str, headers: dict[str, str], limits: Limits) -> tuple["httpx.Response", bytes]:
    """An answer that is no file, such as a listing, and its content. Raises HostError."""
    content = bytearray()
    with client.stream("GET", url, headers=_asked(headers, 0), timeout=TIMEOUT_S) as response:
        for block in _as_stored(_checked(response)):
            content += block
            _check(limits.excess("max_bytes", len(content), f"{response.url}: bytes of a list of files"))
    return response, bytes(content)


def _bytes_to_skip(response: "httpx.Response", start: int) -> int:
    """What was not asked for: a server without ranges sends the file from its beginning. Raises HostError."""
    if response.status_code != 206:
        return start
    content_range = response.headers.get("Content-Range")
    if not (content_range or "").startswith(f"bytes {start}-"):
        raise HostError(f"asked for bytes from {start} on, got {content_range}")
    return 0


# The hub


@dataclass(frozen=True)
class Hub:
    """A dataset repository of the hub at HF_ENDPOINT, by a token in HF_TOKEN or one stored by `hf auth login`."""

    repo: str
    folder: str
    revision: str
    limits: Limits
    credentials = (
        "check the dataset's name, and set HF_TOKEN to a token that may read it (a gated dataset: accept its terms on "
        "its page first)"
    )

    @cached_property
    def endpoint(self) -> str:
        return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")

    @cached_property
    def _headers(self) -> dict[str, str]:
        from huggingface_hub import get_token

        token = get_token()
        return {"User-Agent": "proccorpus"} | ({"Authorization": f"Bearer {token}"} if token else {})

    def commit(self) -> str:
        return self._commit

    @cached_property
    def _commit(self) -> str:
        if COMMIT.fullmatch(self.revision):
            return self.revision
        _, answer = self._get(f"{self.endpoint}/api/datasets/{self.repo}/revision/{quote(self.revision, safe='')}")
        if not COMMIT.fullmatch(answer["sha"]):
            raise HostError(f"the hub gives {answer['sha']!r} as the commit of {self.revision}")
        return answer["sha"]

    def files(self) -> dict[str, FileStat]:
        at = f"{self._commit}/{quote(self.folder, safe='')}" if self.folder else self._commit
        url = f"{self.endpoint}/api/datasets/{self.repo}/tree/{at}?recursive=true"
        files: dict[str, FileStat] = {}
        for number in count(1):
            _check(self.limits.excess("max_pages", number, "pages of its list of files"))
            response, entries = self._get(url)
            files |= self._files_of_page(entries)
            _check(self.limits.excess("max_files", len(files), "files"))
            if "next" not in response.links:
                break
            url = response.links["next"]["url"]
        return files

    def _files_of_page(self, entries: list[dict[str, Any]]) -> dict[str, FileStat]:
        """Files by their path below the folder; the content of large ones is known by its SHA-256, else by git's."""
        start = len(self.folder) + 1 if self.folder else 0
        files = {}
        for entry in entries:
            if entry["type"] == "file":
                lfs = entry.get("lfs")
                version = f"sha256:{lfs['oid']}" if lfs else f"git:{entry['oid']}"
                files[entry["path"][start:]] = FileStat(int((lfs or entry)["size"]), version)
        return files

    def _get(self, url: str) -> tuple["httpx.Response", Any]:
        """An answer, and what its JSON says. Raises HostError, and ValueError for what is no JSON."""
        from huggingface_hub import get_session

        response, content = _short(get_session(), url, self._headers, self.limits)
        return response, json.loads(content)

    def read(self, uri: str, start: int, size: int) -> Iterator[bytes]:
        """Over plain HTTP: the hub's own `hf_hub_download` begins anew when a process before it was ended."""
        from huggingface_hub import get_session, hf_hub_url

        # The address by commit: a branch may move between two files
        name = f"{self.folder}/{uri}" if self.folder else uri
        url = hf_hub_url(self.repo, name, repo_type="dataset", revision=self._commit, endpoint=self.endpoint)
        return _http_bytes(get_session(), url, self._headers, start)

    def matches(self, path: Path, uri: str, known: FileStat) -> bool:
        return hash_matches(path, known.version) is True


# Buckets


@dataclass(frozen=True)
class Bucket:
    """Objects below a path of an S3 or Google bucket; without credentials it is read as a public one."""

    scheme: str
    root: str  # bucket/path
    limits: Limits
    credentials = (
        "give credentials that may read it (S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; Google: "
        "GOOGLE_APPLICATION_CREDENTIALS)"
    )

    @cached_property
    def _fs(self) -> Any:
        import fsspec

        logging.getLogger("gcsfs").addHandler(logging.NullHandler())  # or it prints tracebacks of what it tries again
        # What lies in the bucket now counts, not what was listed earlier in this process
        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        # The clients of buckets are packages that not every installation has
        try:
            if self.scheme == "s3":
                import botocore.session

                options["anon"] = botocore.session.get_session().get_credentials() is None
            return fsspec.filesystem(self.scheme, **options)
        except ImportError as e:
            raise SourceError(f"{self.scheme}:// needs further packages ({e}): {install_hint('cloud')}") from e

    def commit(self) -> None:
        return None

    def files(self) -> dict[str, FileStat]:
        files = {}
        for name, entry in self._fs.find(self.root, detail=True).items():
            if entry["type"] == "file" and not name.endswith("/"):
                uri = name.removeprefix(self.root).lstrip("/") or name.rsplit("/", 1)[-1]
                files[uri] = FileStat(int(entry["size"]), _bucket_version(entry))
                _check(self.limits.excess("max_files", len(files), "files"))
        if not files:
            raise HostError("nothing lies there", 404)
        return files

    def _name(self, uri: str) -> str:
        """`root` may itself be the only object."""
        return self.root if self.root.endswith(f"/{uri}") and self._fs.isfile(self.root) else f"{self.root}/{uri}"

    def read(self, uri: str, start: int, size: int) -> Iterator[bytes]:
        name = self._name(uri)
        for at in range(start, size, RANGE_BYTES):
            yield self._fs.cat_file(name, start=at, end=min(at + RANGE_BYTES, size))

    def matches(self, path: Path, uri: str, known: FileStat) -> bool:
        if hash_matches(path, known.version) is not False:
            return True
        # The etag of an object that S3 encrypts by a key of the owner's looks like an MD5 and is none
        if self.scheme != "s3":
            return False
        bucket, _, key = self._name(uri).partition("/")
        facts = self._fs.call_s3("head_object", Bucket=bucket, Key=key)
        return str(facts.get("ServerSideEncryption")).startswith("aws:")


def _bucket_version(entry: dict[str, Any]) -> str:
    """Google gives an MD5 (objects in parts: CRC32C); S3 an etag that is one, except for objects in parts."""
    if entry.get("md5Hash"):
        return f"md5:{base64.b64decode(entry['md5Hash']).hex()}"
    if entry.get("crc32c"):
        return f"crc32c:{entry['crc32c']}"
    etag = str(entry.get("ETag", entry.get("etag", ""))).strip('"')
    return f"md5:{etag}" if re.fullmatch(r"[0-9a-f]{32}", etag) else f"etag:{etag}"


# Web servers


@dataclass(frozen=True)
class Web:
    """What a web server's folder pages link to below an address that ends in '/', or the one file at another address.

    A download is checked by its size: web servers give no hash.
    """

    address: str
    limits: Limits
    credentials = "the server wants a login, which is not supported: fetch the files yourself, and give their folder"

    @cached_property
    def _client(self) -> "httpx.Client":
        import httpx

        return httpx.Client(follow_redirects=True, timeout=TIMEOUT_S)

    def commit(self) -> None:
        return None

    def _url(self, uri: str) -> str:
        return self.address + quote(uri) if self.address.endswith("/") else self.address

    def files(self) -> dict[str, FileStat]:
        names = self._names() if self.address.endswith("/") else [unquote(self.address.rsplit("/", 1)[-1])]
        if not names:
            raise HostError("the server lists no files there: fetch them yourself, and give their folder", 404)
        with ThreadPoolExecutor(WEB_THREADS) as pool:
            return dict(zip(names, pool.map(self._stat, names), strict=True))

    def _names(self) -> list[str]:
        todo, seen, names = [""], {""}, set()
        # Folders lead to further folders, and links may lead round: each page is read once
        while todo:
            for name in self._links(todo.pop()):
                if not name.endswith("/"):
                    names.add(name)
                elif name not in seen:
                    seen.add(name)
                    todo.append(name)
            _check(self.limits.excess("max_files", len(names), "files"))
            _check(self.limits.excess("max_pages", len(seen), "folders"))
        return sorted(names)

    def _links(self, folder: str) -> Iterator[str]:
        """What one page links to below itself, by path from the root; folders end in '/'."""
        from ingest.sources.links import Links  # parses HTML, which only web servers need

        base, page = self._page(folder)
        parser = Links()
        parser.feed(page)
        for href in parser.links:
            link = urljoin(base, href)
            parts = urlsplit(link)
            if link.startswith(base) and link != base and not parts.query and not parts.fragment:
                yield folder + unquote(link[len(base) :])

    def _page(self, folder: str) -> tuple[str, str]:
        """The address that a page was found at in the end, and its text. Raises HostError."""
        response, page = _short(self._client, self._url(folder), {}, self.limits)
        return str(response.url), page.decode(errors="replace")

    def _stat(self, uri: str) -> FileStat:
        response = _checked(self._client.head(self._url(uri), headers={"Accept-Encoding": "identity"}))
        size = response.headers.get("Content-Length", "")
        if not size.isdecimal():
            raise HostError(f"the server does not say how large {uri} is, so a download could not be checked")
        return FileStat(int(size), f"etag:{response.headers.get('ETag') or response.headers.get('Last-Modified', '')}")

    def read(self, uri: str, start: int, size: int) -> Iterator[bytes]:
        return _http_bytes(self._client, self._url(uri), {}, start)

    def matches(self, path: Path, uri: str, known: FileStat) -> bool:
        return True
