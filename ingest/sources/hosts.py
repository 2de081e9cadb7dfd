"""Where remote datasets lie: the Hugging Face hub, S3 and Google buckets, web servers. Listing, and reading.

Names, sizes and lengths that a host states are checked by `ingest.sources.remote`.
"""

import base64
import hashlib
import logging
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urljoin

import fsspec
import google_crc32c
import httpx
from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import HfHubHTTPError

from core.errors import install_hint
from ingest.reasons import Limits
from ingest.sources.types import FileStat, SourceError

COMMIT = re.compile(r"[0-9a-f]{40}")
TIMEOUT_S = 30.0  # without a byte
BLOCK_BYTES = 8 << 20  # asked for at a time
WEB_THREADS = 8
BUSY = (408, 425, 429, 500, 502, 503, 504)

Files = Iterator[tuple[str, FileStat]]


class HostError(Exception):
    """What a host answered instead of a file; `status` as HTTP has it, where it is one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def may_pass(e: Exception) -> bool:
    """Is it worth asking again? (Clients of the hub and of buckets ask again by themselves.)"""
    return isinstance(e, httpx.TransportError) or (isinstance(e, HostError) and e.status in BUSY)


def message_and_status(e: Exception) -> tuple[str, int | None]:
    """What an error of a host says, in one line, and its HTTP status where it has one."""
    # A file system's "not found" does not say whether a login would help
    e = e.__cause__ if isinstance(e.__cause__, HfHubHTTPError) else e
    if isinstance(e, HfHubHTTPError):
        status = e.response.status_code
        return (
            f"{status} {' '.join((e.server_message or e.response.reason_phrase).split())}",
            status,
        )
    message = " ".join(str(e).split()) or type(e).__name__
    return message, e.status if isinstance(e, HostError) else None


HASHES = {
    "sha256": hashlib.sha256,
    "md5": hashlib.md5,
    "git": hashlib.sha1,
    "crc32c": google_crc32c.Checksum,
}


def hash_matches(path: Path, version: str) -> bool | None:
    """Is a file's content what its version says? None for a version that is no hash of content."""
    kind, _, value = version.partition(":")
    if kind not in HASHES:
        return None
    digest: Any = HASHES[kind]()
    # Git hashes a header with the size before the content
    digest.update(f"blob {path.stat().st_size}\0".encode() if kind == "git" else b"")
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return value in (digest.hexdigest(), base64.b64encode(digest.digest()).decode())


def open_host(source: str, revision: str | None) -> "Bucket | Web":
    """The host of an address; nothing is asked of it yet. Raises SourceError for an address of another kind.

    Of a host `credentials` says how to get in, `commit` what the revision means now (None where
    there are none), `files` what lies below the address, `read` gives a file from a byte on and may
    end early, and `matches` says whether a complete download is what was listed.
    """
    scheme, _, address = source.partition("://")
    if scheme == "hf":
        return Hub(source, address.removeprefix("datasets/").strip("/"), revision or "main")
    if scheme in ("s3", "gs"):
        return Bucket(scheme, address.strip("/"))
    if scheme in ("http", "https"):
        return Web(source)
    raise SourceError(
        f"{source}: no {scheme}:// is read here, only hf://, s3://, gs:// and https://"
    )


class Bucket:
    """Objects below a path of an S3 or Google bucket; without credentials it is read as a public one."""

    credentials = (
        "give credentials that may read it (S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; Google: "
        "GOOGLE_APPLICATION_CREDENTIALS)"
    )

    def __init__(self, scheme: str, root: str) -> None:
        self.scheme, self.root = scheme, root  # bucket/path

    @cached_property
    def fs(self) -> Any:
        # Or it prints tracebacks of what it tries again
        logging.getLogger("gcsfs").addHandler(logging.NullHandler())
        # What lies in the bucket now counts, not what was listed earlier in this process
        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        # The clients of buckets are packages that not every installation has
        try:
            if self.scheme == "s3":
                import botocore.session

                options["anon"] = botocore.session.get_session().get_credentials() is None
            return fsspec.filesystem(self.scheme, **options)
        except ImportError as e:
            raise SourceError(
                f"{self.scheme}:// needs further packages ({e}): {install_hint('cloud')}"
            ) from e

    def commit(self) -> str | None:
        return None

    def files(self, limits: Limits) -> Files:
        entries = self.fs.find(self.root, detail=True)
        if not entries:
            raise HostError("nothing lies there", 404)
        limits.check("max_files", len(entries), "files")
        for name, entry in entries.items():
            if entry["type"] == "file" and not name.endswith("/"):
                uri = name[len(self.root) + 1 :] or name.rsplit("/", 1)[-1]
                yield uri, FileStat(int(entry["size"]), _version(entry))

    def _name(self, uri: str) -> str:
        """`root` may itself be the only object."""
        if self.root.endswith(f"/{uri}") and self.fs.isfile(self.root):
            return self.root
        return f"{self.root}/{uri}"

    def read(self, uri: str, known: FileStat, start: int) -> Iterator[bytes]:
        # The hub's client would ask for the size, and read ahead
        options = {"size": known.size, "cache_type": "none"} if self.scheme == "hf" else {}
        for offset in range(start, known.size, BLOCK_BYTES):
            yield self.fs.cat_file(
                self._name(uri), start=offset, end=min(offset + BLOCK_BYTES, known.size), **options
            )

    def matches(self, path: Path, uri: str, known: FileStat) -> bool:
        if hash_matches(path, known.version) is not False:
            return True
        # The etag of an object that S3 encrypts by a key of the owner's looks like an MD5 and is none
        if self.scheme != "s3":
            return False
        bucket, _, key = self._name(uri).partition("/")
        facts = self.fs.call_s3("head_object", Bucket=bucket, Key=key)
        return str(facts.get("ServerSideEncryption")).startswith("aws:")


def _version(entry: dict[str, Any]) -> str:
    """The hub gives a SHA-256 (small files: git's hash); Google an MD5 (objects in parts: CRC32C); S3 an etag that is
    an MD5, except for objects in parts."""
    if entry.get("lfs"):
        return f"sha256:{entry['lfs'].sha256}"
    if entry.get("blob_id"):
        return f"git:{entry['blob_id']}"
    if entry.get("md5Hash"):
        return f"md5:{base64.b64decode(entry['md5Hash']).hex()}"
    if entry.get("crc32c"):
        return f"crc32c:{entry['crc32c']}"
    etag = str(entry.get("ETag", entry.get("etag", ""))).strip('"')
    if re.fullmatch(r"[0-9a-f]{32}", etag):
        return f"md5:{etag}"
    return f"etag:{etag}"


class Hub(Bucket):
    """A dataset repository of the hub at HF_ENDPOINT, by a token in HF_TOKEN or one stored by `hf auth login`."""

    credentials = (
        "check the dataset's name, and set HF_TOKEN to a token that may read it (a gated dataset: accept its terms on "
        "its page first)"
    )

    def __init__(self, source: str, place: str, revision: str) -> None:
        owner, _, remainder = place.partition("/")
        name, _, self.folder = remainder.partition("/")
        if not owner or not name:
            raise SourceError(
                f"{source} names no dataset of the hub: write hf://owner/name or hf://owner/name/folder"
            )
        self.scheme = "hf"
        self.repo = f"{owner}/{name}"
        self.revision = revision
        self.endpoint = os.environ.get("HF_ENDPOINT")

    @cached_property
    def fs(self) -> Any:
        return HfFileSystem(endpoint=self.endpoint, skip_instance_cache=True)

    @cached_property
    def root(self) -> str:
        """By commit: a branch may move between two files."""
        return f"datasets/{self.repo}@{self.commit()}/{self.folder}".rstrip("/")

    @cached_property
    def _commit(self) -> str:
        if COMMIT.fullmatch(self.revision):
            return self.revision
        info = HfApi(endpoint=self.endpoint).dataset_info(self.repo, revision=self.revision)
        return info.sha or self.revision

    def commit(self) -> str:
        return self._commit

    def _name(self, uri: str) -> str:
        return f"{self.root}/{uri}"


class Web:
    """What a web server's folder pages link to below an address that ends in '/', or the one file at another address.

    A download is checked by its size: web servers give no hash.
    """

    credentials = "the server wants a login, which is not supported: fetch the files yourself, and give their folder"

    def __init__(self, address: str) -> None:
        self.address = address
        self.client = httpx.Client(follow_redirects=True, timeout=TIMEOUT_S)

    def commit(self) -> str | None:
        return None

    @contextmanager
    def _asked(self, uri: str, method: str = "GET", **headers: str) -> Iterator[httpx.Response]:
        """What the server answers. Raises HostError, also for what it packed unasked: it may unpack to any size."""
        url = self.address + quote(uri) if self.address.endswith("/") else self.address
        with self.client.stream(
            method, url, headers={"Accept-Encoding": "identity"} | headers
        ) as response:
            if response.is_error:
                raise HostError(
                    f"{response.status_code} {response.reason_phrase}", response.status_code
                )
            if (
                coding := response.headers.get("Content-Encoding", "identity").strip().lower()
            ) != "identity":
                raise HostError(
                    f"the server sends what it was asked for packed ({coding[:40]}), which is not read"
                )
            yield response

    def files(self, limits: Limits) -> Files:
        is_folder = self.address.endswith("/")
        names = self._names(limits) if is_folder else [unquote(self.address.rsplit("/", 1)[-1])]
        if not names:
            raise HostError(
                "the server lists no files there: fetch them yourself, and give their folder", 404
            )
        with ThreadPoolExecutor(WEB_THREADS) as pool:
            yield from zip(names, pool.map(self._stat, names), strict=True)

    def _names(self, limits: Limits) -> list[str]:
        todo = [""]
        seen_folders = {""}
        names = set()
        # Folders lead to further folders, and links may lead round: each page is read once
        while todo:
            links = self._links(todo.pop(), limits)
            names |= {name for name in links if not name.endswith("/")}
            todo += [name for name in links if name.endswith("/") and name not in seen_folders]
            seen_folders.update(todo)
            limits.check("max_files", len(names), "files")
            limits.check("max_pages", len(seen_folders), "folders")
        return sorted(names)

    def _links(self, folder: str, limits: Limits) -> list[str]:
        """What one page links to below itself, by path from the root; folders end in '/'."""
        page = bytearray()
        links = _Links()
        with self._asked(folder) as response:
            base = str(response.url)
            for block in response.iter_raw():
                page += block
                limits.check("max_bytes", len(page), f"{base}: bytes of a list of files")
        links.feed(page.decode(errors="replace"))
        # Links with a query sort the page; those with a fragment lead to a part of it
        led_to = [urljoin(base, href) for href in links.found if not {*"?#"} & {*href}]
        return list(
            dict.fromkeys(
                folder + unquote(x[len(base) :]) for x in led_to if x.startswith(base) and x != base
            )
        )

    def _stat(self, uri: str) -> FileStat:
        with self._asked(uri, "HEAD") as response:
            size = response.headers.get("Content-Length", "")
            headers = response.headers
        if not size.isdecimal():
            raise HostError(
                f"the server does not say how large {uri} is, so a download could not be checked"
            )
        return FileStat(
            int(size), f"etag:{headers.get('ETag') or headers.get('Last-Modified', '')}"
        )

    def read(self, uri: str, known: FileStat, start: int) -> Iterator[bytes]:
        with self._asked(uri, **({"Range": f"bytes={start}-"} if start else {})) as response:
            # A server without ranges sends the file from its beginning
            if response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                skip = 0
            else:
                skip = start
            # As they come: blocks of a set size would lose what came of one when the connection ends
            for block in response.iter_raw():
                yield block[skip:]
                skip = max(0, skip - len(block))

    def matches(self, path: Path, uri: str, known: FileStat) -> bool:
        return True


class _Links(HTMLParser):
    """Where the links of a page lead, as the page has them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]
