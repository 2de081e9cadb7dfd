"""Who may use Dagster's UI, and what a request may be: one layer round the whole application.

Dagster's own server answers any page of any site, and runs what a mutation in an address (GET) asks for: an <img> on a
web page could start a job. Here a request has to name this server by its own name, a browser has to send it from this
server's own pages, and nothing but a POST or a WebSocket of theirs reaches GraphQL. Where more than this machine can
reach the server, a token is needed too, shown once.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import UserError
from core.network import LOOPBACK_NAMES, host_name, is_loopback

TOKEN, HOSTS = "PROCCORPUS_UI_TOKEN", "PROCCORPUS_UI_HOSTS"  # in the environment, where no list of processes shows it
COOKIE = "proccorpus_ui"
MIN_TOKEN = 16
# The graph of all assets, with what the groups hold
FIRST_PAGE = "/asset-groups/?expanded=global%40global%3Acorpus%2Cglobal%40global%3Amodels%2Cglobal%40global%3Arewards"
SAFE_METHODS = ("GET", "HEAD")
OWN_SITES = ("", "none", "same-origin")  # Sec-Fetch-Site: of a program, of a person's own typing, of our own pages
LIVENESS = "/server_info"  # the versions alone, which a probe of a cluster asks for by address
HEADERS = {
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class UiAccessError(UserError, ValueError):
    """Settings of who may come in that cannot be meant: what, and what to do."""


@dataclass(frozen=True)
class UiAccess:
    """`token`: what everybody must show once; None: whoever is on this machine comes in. `hosts`: names that the Host
    header may have; None: any, where a token is the guard."""

    token: str | None = None
    hosts: tuple[str, ...] | None = LOOPBACK_NAMES
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def session(self) -> str:
        """What the cookie of one who has shown the token holds; good for this process alone."""
        return hmac.new(self.secret, f"session {self.token}".encode(), hashlib.sha256).hexdigest()


def ui_access(host: str, environment: Mapping[str, str]) -> UiAccess:
    """Who may come in at an address that is listened on. Raises UiAccessError: no token where one is needed."""
    token = environment.get(TOKEN) or None
    if token is not None and len(token) < MIN_TOKEN:
        raise UiAccessError(f"{TOKEN} has {len(token)} characters; give at least {MIN_TOKEN}")
    if token is None and not is_loopback(host):
        raise UiAccessError(f"others can reach {host}, not this machine alone: set {TOKEN} ({MIN_TOKEN} characters)")
    named = tuple(name.strip().lower() for name in environment.get(HOSTS, "").split(",") if name.strip())
    return UiAccess(token, (*LOOPBACK_NAMES, *named) if named or is_loopback(host) else None)


class UiGuard:
    """ASGI middleware: refuses what may not come in."""

    def __init__(self, app: ASGIApp, access: UiAccess) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        answer = self._answer(HTTPConnection(scope), scope)
        if answer is None:
            await self.app(scope, receive, _with_headers(send))
        elif scope["type"] == "http":
            await answer(scope, receive, _with_headers(send))
        else:
            await receive()  # the request to connect
            await send({"type": "websocket.close", "code": 1008})

    def _answer(self, c: HTTPConnection, scope: Scope) -> Response | None:
        """The answer to a request that goes no further."""
        method = scope.get("method", "GET")
        if method in SAFE_METHODS and scope["type"] == "http" and scope["path"] == LIVENESS:
            return None
        hosts = c.headers.getlist("host")
        if len(hosts) != 1:
            return _refusal(400, "one Host header, please")
        if self.access.hosts is not None and host_name(hosts[0]) not in self.access.hosts:
            return _refusal(421, f"this server is not known by that name; {HOSTS} lists others")
        if problem := _foreign(c, scope, hosts[0]):
            return _refusal(403, problem)
        login = self._login(c, scope, method)
        if login is not None:
            return login
        if not self._may_come_in(c):
            return _refusal(401, "a token is needed: open the address once with ?token=... behind it")
        # A question in an address is one that any link can ask, and Dagster takes changes there, too
        if scope["path"].rstrip("/").endswith("/graphql") and scope["type"] == "http" and method != "POST":
            return _refusal(405, "GraphQL is asked by POST")
        # Dagster's own first page, a timeline of runs, says nothing of a corpus
        if scope["path"] == "/" and scope["type"] == "http" and method in SAFE_METHODS:
            return RedirectResponse(FIRST_PAGE, 302)
        return None

    def _login(self, c: HTTPConnection, scope: Scope, method: str) -> Response | None:
        """With ?token=... in the address: the same address without it, and a cookie."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        tokens = [value for name, value in query if name == "token"]
        if not tokens or self.access.token is None or method not in SAFE_METHODS or scope["type"] != "http":
            return None
        if not self._is_token(tokens[0]):
            return _refusal(401, "that is not the token")
        # The token must not stay in the address, where history and logs would keep it
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        path = "/" + scope["path"].lstrip("/")  # two slashes would lead to another server
        answer = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
        answer.set_cookie(COOKIE, self.access.session(), path="/", httponly=True, samesite="strict")
        return answer

    def _may_come_in(self, c: HTTPConnection) -> bool:
        if self.access.token is None:
            return True
        bearer = c.headers.get("authorization", "").removeprefix("Bearer ")
        cookie = c.cookies.get(COOKIE, "")
        return self._is_token(bearer) or hmac.compare_digest(cookie.encode(), self.access.session().encode())

    def _is_token(self, shown: str) -> bool:
        return hmac.compare_digest(shown.encode(), (self.access.token or "").encode())


def _foreign(c: HTTPConnection, scope: Scope, host: str) -> str:
    """Why a request is another site's; "" for one of our own pages, of a program, or of a person who follows a link."""
    # A browser names the page's origin with every change and every WebSocket
    origins = c.headers.getlist("origin")
    if origins and (len(origins) > 1 or urlsplit(origins[0]).netloc.lower() != host.lower()):
        return "another site's page may not use this server"
    site = c.headers.get("sec-fetch-site", "")
    is_link = (
        scope["type"] == "http"
        and scope["method"] in SAFE_METHODS
        and c.headers.get("sec-fetch-mode") == "navigate"
        and c.headers.get("sec-fetch-dest") == "document"
    )
    return "" if site in OWN_SITES or is_link else "another site's page may not use this server"


def _refusal(status: int, message: str) -> Response:
    return PlainTextResponse(message + "\n", status)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await send(message)

    return sending
