"""What every page of the explorer shares: the corpus, the options of the command line,
and the frame of a page.

And the filters of the templates: numbers, sizes and times as people read them, and data
for scripts.
"""

import asyncio
import fcntl
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote, urlencode

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool

from annotate.quality import END_WORDS
from core.metrics import sentence_of
from core.paths import ROOT, Workspace
from core.values import plain
from core.web import Access
from explorer.access import CorpusView, LakeReader, PageError
from explorer.episode import address_of, partition_of
from explorer.index import CorpusIndex, Indexed
from warehouse.lake.corrections import Corrected

TAIL_BYTES = 8000  # of a log, for a page
ERROR = re.compile(r"^error: (.+)$", re.MULTILINE)  # as the command line words what went wrong


def program() -> list[str]:
    """This very code, whatever folder the explorer was started in."""
    return [sys.executable, str(ROOT / "proccorpus.py")]


def command_line(arguments: Sequence[str]) -> str:
    """The command as a person would type it."""
    return shlex.join(["proccorpus", *arguments])


@dataclass
class ChildJob:
    """The one process of its kind, which runs or has ended. For use by several threads.

    Its process holds a lock on `<folder>/<name>.lock` as long as it lives: another
    explorer of the workspace starts no second one, and shows how far this one is. It ends
    with the explorer that started it.
    """

    folder: Path
    name: str
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _starting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def start(self, arguments: Sequence[str], about: Mapping[str, Any], busy: str) -> None:
        """Run a command of proccorpus; `about` is what pages say of it.

        Raises PageError: `busy`, as one runs; or the workspace cannot be written to.
        """
        with self._starting:
            try:
                self.folder.mkdir(exist_ok=True)
                lock = os.open(self.file("lock"), os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as e:
                raise PageError(f"the workspace cannot be written to: {e.strerror}", 403) from e
            try:
                # The process inherits the open file, and with it the lock
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.file("events").unlink(missing_ok=True)
                self.file("json").write_text(json.dumps(dict(about)))
                with self.file("log").open("wb") as log:
                    self.process = subprocess.Popen(
                        [*program(), *arguments],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        pass_fds=(lock,),
                    )
            except BlockingIOError as e:
                raise PageError(busy, 409) from e
            finally:
                os.close(lock)

    @property
    def running(self) -> bool:
        """Does it run, started here or by another explorer of the workspace?"""
        if self.process is not None and self.process.poll() is None:
            return True
        with self._starting:
            try:
                lock = os.open(self.file("lock"), os.O_RDWR)
            except OSError:
                return False
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(lock)
            return False

    @property
    def has_succeeded(self) -> bool:
        """Did the newest one end well, if it was started here?"""
        return self.process is not None and self.process.poll() == 0

    def about(self) -> dict[str, Any]:
        """What was said of the newest one when it was started; empty where none was."""
        with suppress(ValueError):
            return json.loads(self._text("json"))
        return {}

    def events(self) -> list[dict[str, Any]]:
        """The lines of JSON in its events, without one that is not whole yet."""
        events = []
        for line in self._text("events").splitlines():
            with suppress(ValueError):
                events.append(json.loads(line))
        return events

    def log(self) -> str:
        """The end of its log, of at most TAIL_BYTES."""
        return self._text("log")[-TAIL_BYTES:]

    def error(self) -> str:
        """Why the newest one did not come to its end, in the words of its log, where that says so."""
        return "; ".join(ERROR.findall(self.log())) or "it was stopped before it finished"

    def _text(self, kind: str) -> str:
        with suppress(OSError):
            return self.file(kind).read_text(errors="replace")
        return ""

    def file(self, kind: str) -> Path:
        return self.folder / f"{self.name}.{kind}"

    def stop(self) -> None:
        """End it with the explorer; what it has finished by then is kept."""
        with self._starting:
            if self.process is not None and self.process.poll() is None:
                self.process.terminate()
                self.process.wait()


async def while_wanted[T](request: Request, work: Callable[[Callable[[], bool]], T]) -> T:
    """The result of `work` in a thread; it is given a function that tells whether nobody
    waits for it any more.
    """
    is_gone = threading.Event()
    running = asyncio.ensure_future(run_in_threadpool(work, is_gone.is_set))
    try:
        while not (await asyncio.wait({running}, timeout=0.1))[0]:
            if request.app.state.is_ending() or await request.is_disconnected():
                is_gone.set()
        return running.result()
    finally:
        # A server that has waited long enough cancels what waits here, and not the thread
        is_gone.set()


STATIC = Path(__file__).parent / "static"
# Pages in the navigation: path and name. A module that adds a page adds a line here; its `router` is found
NAVIGATION = [
    ("/", "Corpus"),
    ("/episodes", "Episodes"),
    ("/review", "Review"),
    ("/sql", "SQL"),
    ("/t", "Lists"),
]
# Of scripts and styles: a hash of them all
STATIC_VERSION = sha256(
    b"".join(file.read_bytes() for file in sorted(STATIC.iterdir()))
).hexdigest()[:12]
# The page of the documentation that tells of the pages below an address; the longest that fits counts
DOCS = {
    "/": "data.html",
    "/episodes": "correcting.html#pages",
    "/episode": "correcting.html#the-editor",
    "/task": "correcting.html#pages",
    "/review": "correcting.html#review",
    "/recordings": "recordings.html",
    "/compare": "truth.html",
    "/like": "sql.html#search-by-likeness",
    "/why": "labels.html",
    "/sql": "sql.html",
    "/t": "sql.html",
    "/t/releases": "releases.html",
    "/t/release_contents": "releases.html",
    "/t/training_runs": "training.html",
    "/t/training_points": "training.html",
    "/t/leaderboard": "evaluation.html",
    "/docs": "index.html",
}
# What needs no training: a score means little without them beside it
BASELINES = {
    "clock",
    "visual distance",
    "goal image",
    "best constant",
    "the label itself",
    "the other pass",
    "running clock",
    "reference clock",
    "random",
    "direct",
    "gvl",
    "topreward",
    "uniform cuts",
    "random cuts",
}
UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


@dataclass(frozen=True)
class Options:
    """Options of the command line. `release` is the name of what `snapshot` froze; both
    None: the corpus as it is.

    suggest: which run of each task of a dataset to label next, and why, which takes
    seconds; None: nobody says. label_curves: the curves of a label that no build has
    seen, of an episode (dataset, number) as a snapshot has it; raises UserError; None:
    such a label has none.
    """

    snapshot: int | None = None
    release: str | None = None
    dagster_url: str | None = None
    access: Access = field(default_factory=Access)
    suggest: Callable[[str], list[dict[str, Any]]] | None = None
    label_curves: Callable[[str, int, int, Corrected], dict[str, list[float]]] | None = None

    @property
    def why_read_only(self) -> str | None:
        """Why nothing can be changed here; None: it can."""
        if self.snapshot is None:
            return None
        subject = f"the release {self.release}" if self.release else f"snapshot {self.snapshot}"
        return f"this is {subject}, which cannot be changed: run proccorpus explore without it to correct labels"

    def in_dagster(self, asset: str, partition: str) -> str | None:
        """Where the Dagster UI shows a partition of an asset, with the runs that made it;
        None without its address.
        """
        if self.dagster_url is None:
            return None
        query = urlencode({"view": "partitions", "partition": partition})
        return f"{self.dagster_url.rstrip('/')}/assets/{quote(asset, safe='')}?{query}"


@dataclass(frozen=True)
class Explorer:
    """What every page needs; at `request.app.state.explorer`."""

    space: Workspace
    options: Options
    corpus: CorpusView
    index: CorpusIndex
    templates: Environment
    jobs: Mapping[str, ChildJob]  # adapt, label, export

    def error(self, request: Request, message: str, status: int) -> Response:
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": message}, status)
        return self.html(
            request, "error.html", status, snapshot=None, message=message, title="Not possible"
        )

    def html(
        self, request: Request, template: str, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """A page with its frame: navigation, who judges, and why nothing can be changed."""
        frame = {
            "request": request,
            "navigation": NAVIGATION,
            "docs_page": docs_page(request.url.path),
            "sentence_of": sentence_of,  # of a metric
            "options": self.options,
            "now": datetime.now(UTC),
            "csrf": request.state.csrf,
            "why_read_only": self.options.why_read_only,
            "static": STATIC_VERSION,
            # Who judges: the name that a proxy gives, which is known, else the one to begin with
            "author": request.state.user or self.options.access.author,
            "author_is_known": bool(request.state.user),
        }
        return HTMLResponse(self.templates.get_template(template).render(frame | values), status)


def docs_page(path: str) -> str:
    """The page of the documentation, with its place in it, that tells of the page at an address."""
    return DOCS[
        max((start for start in DOCS if f"{path}/".startswith(f"{start.rstrip('/')}/")), key=len)
    ]


def explorer_of(request: Request) -> Explorer:
    return request.app.state.explorer


@dataclass(frozen=True)
class Visit:
    """A request that reads the corpus, in one state: what the routes of pages take as `visit`."""

    request: Request
    explorer: Explorer
    reader: LakeReader

    @cached_property
    def index(self) -> Indexed:
        return self.explorer.index.at(self.reader)

    @property
    def place(self) -> str:
        """The workspace as a shell takes it."""
        return shlex.quote(str(self.explorer.space.root))

    def page(self, template: str, **values: Any) -> HTMLResponse:
        return self.explorer.html(self.request, template, snapshot=self.reader.state, **values)

    def part(self, template: str, **values: Any) -> HTMLResponse:
        """A part of a page, which its script fetches."""
        return HTMLResponse(self.explorer.templates.get_template(template).render(values))


def visits(request: Request) -> Iterator[Visit]:
    explorer = explorer_of(request)
    with explorer.corpus.reading() as reader:
        yield Visit(request, explorer, reader)


Visiting = Annotated[Visit, Depends(visits)]
# Where a request reads for a part of its time alone
visiting = contextmanager(visits)


class Speech(NamedTuple):
    """A request that says something: what routes take as `speech`."""

    request: Request
    explorer: Explorer

    def author(self, name: str | None) -> str:
        """Who says it: the name that a proxy gives counts before their own word."""
        of_options = self.explorer.options.access.author
        return self.request.state.user or (of_options if name is None else name)

    def answer(self, act: Callable[[LakeReader], Any]) -> JSONResponse:
        """What `act` gives, which says something."""
        return JSONResponse(plain(self.explorer.corpus.say(act)))


def _speech(request: Request) -> Speech:
    """Raises PageError where nothing can be changed."""
    explorer = explorer_of(request)
    if reason := explorer.options.why_read_only:
        raise PageError(reason, 403)
    return Speech(request, explorer)


Speaking = Annotated[Speech, Depends(_speech)]


def count(value: float) -> str:
    """12345 as 12,345."""
    return f"{round(value):,}"


def number(value: float, digits: int = 3) -> str:
    """1,234.5 of 1234.5."""
    text = f"{value:,.{digits}f}"
    if digits:
        return text.rstrip("0").rstrip(".")
    return text


def percent(value: float) -> str:
    """12.5 % of 0.125."""
    return f"{100 * value:.1f} %"


def seconds(value: float) -> str:
    """1:02.5 of 62.5."""
    minutes, seconds_left = divmod(round(value, 1), 60)
    return f"{int(minutes)}:{seconds_left:04.1f}"


def size(value: float) -> str:
    """1.5 kB of 1500."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def age(moment_before: datetime, current: datetime | None = None) -> str:
    """How long ago, in the largest unit that fits."""
    passed = ((current or datetime.now(UTC)) - moment_before).total_seconds()
    for length, name in UNITS:
        if passed >= length:
            n = int(passed // length)
            return f"{n} {name}{'s' if n > 1 else ''} ago"
    return "just now"


def moment(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def several(number: int, singular: str, plural: str = "") -> str:
    """3 runs of 3 and "run"; `plural`: where it is more than an s."""
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"


def data(value: Any) -> Markup:
    """JSON for a script element that holds data: no text in it can end the element."""
    text = json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))
    return Markup(
        text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )


def indented(text: str) -> str:
    """JSON, a line for each of its values."""
    return json.dumps(json.loads(text), indent=2, ensure_ascii=False)


def short(name: str) -> str:
    """A camera's or a dimension's name without what LeRobot puts before each of them."""
    return name.removeprefix("observation.").removeprefix("images.") or name


def or_dash(text_of: Callable[..., str]) -> Callable[..., str]:
    """The filter, with a dash for a value that is not known."""

    def text_or_dash(value: Any, *arguments: Any, **options: Any) -> str:
        if value is None:
            return "–"
        return text_of(value, *arguments, **options)

    return text_or_dash


FILTERS: dict[str, Callable[..., Any]] = {f.__name__: f for f in (age, several, data, short)}
FILTERS |= {
    f.__name__: or_dash(f) for f in (count, number, percent, seconds, size, moment, indented)
}
FILTERS |= {
    "shell": shlex.quote,
    "address": address_of,
    "partition": partition_of,
    "end_by": END_WORDS.__getitem__,  # what says how a run ended, in words
}
