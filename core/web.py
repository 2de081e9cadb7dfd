"""One middleware before every request to our three servers: who may ask, from where, and how much.

The explorer, the reward server and Dagster's UI let in who shows a token, or whom a reverse proxy names. Slow clients,
floods and many connections are the reverse proxy's task: see `deploy/nginx.conf`.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?")  # a Host header, in small letters
CSRF_HEADER = "x-csrf-token"
SAFE_METHODS = ("GET", "HEAD")
SESSION_S = 30 * 86400
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class Access:
    """Who may use a server. The default, which no command has: whoever is on this machine.

    `token`: what everybody must show, as bearer or once as `?token=`. `hosts`: names that the Host header may have;
    None: any. `user_header`: the header in which a reverse proxy at one of `proxies` names the user. `is_local`: only
    this machine can reach the server.
    """

    token: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] | None = LOOPBACK_NAMES
    user_header: str | None = None
    proxies: tuple[Network, ...] = ()
    author: str = "somebody"  # of a correction, where neither the proxy nor the page names its author
    is_local: bool = True
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @property
    def is_open(self) -> bool:
        return self.token is None and self.user_header is None

    def signed(self, text: str) -> str:
        """A signature that holds as long as the token does; without a token, as long as this process."""
        key = self.token.encode() if self.token else self.secret
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    def is_token(self, text: str) -> bool:
        return self.token is not None and _equal(text, self.token)


@dataclass(frozen=True)
class Refusal:
    """Why a request goes no further: HTTP's status, a code for programs, a sentence for people."""

    status: int
    code: str
    reason: str


def _plain(scope: Scope, refusal: Refusal) -> Response:
    return PlainTextResponse(refusal.reason + "\n", refusal.status)


class Guard:
    """ASGI middleware: host names, origin, token, CSRF token, size of a body, security headers.

    A request that passes has `state.user` (the name that a proxy gave, or None), `state.csrf` and `state.is_program`.
    `open_paths` need no token. With `checks_csrf` a change needs `state.csrf` of one of our pages in its headers.
    `refuse` makes the answer to a refused request; `headers` are added to every answer.
    """

    def __init__(
        self, app: ASGIApp, access: Access, max_body_bytes: int = 1 << 20, open_paths: tuple[str, ...] = (),
        checks_csrf: bool = False, refuse: Callable[[Scope, Refusal], Response] = _plain,
        headers: Mapping[str, str] = {},
    ) -> None:  # fmt: skip
        self.app, self.access, self.max_body_bytes, self.refuse = app, access, max_body_bytes, refuse
        self.open_paths, self.checks_csrf, self.headers = open_paths, checks_csrf, HEADERS | dict(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        answer = self._judge(HTTPConnection(scope), scope)
        if isinstance(answer, Refusal):
            answer = self.refuse(scope, answer)
        if answer and scope["type"] == "websocket":
            await receive()  # the request to connect
            await send({"type": "websocket.close", "code": 1008})
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await (answer or self.app)(scope, receive, with_headers)

    def _judge(self, c: HTTPConnection, scope: Scope) -> Response | Refusal | None:
        """Why a request goes no further, or where it leads; None: it passes, and its state is set."""
        access, is_reading = self.access, scope["type"] == "http" and scope["method"] in SAFE_METHODS
        if refusal := self._foreign(c, is_reading) or self._bad_body(c):
            return refusal

        cookie = f"proccorpus_{scope.get('server', ('', ''))[1]}"  # cookies know no ports
        session = access.signed("session")
        if is_reading and (login := self._login(scope, cookie, session)):
            return login
        kind, _, bearer = c.headers.get("authorization", "").partition(" ")
        has_bearer = kind.lower() == "bearer" and access.is_token(bearer.strip())
        has_session = access.token is not None and _equal(c.cookies.get(cookie, ""), session)
        is_open = any(f"{scope['path']}/".startswith(f"{path}/") for path in self.open_paths)
        user = self._proxy_user(c)
        if not any((user, has_bearer, has_session, is_open, access.is_open)):
            how = "open the address that the command printed; programs send 'Authorization: Bearer TOKEN'"
            return Refusal(401, "token", f"a token is needed: {how}")

        # A change comes from a page of ours; a program that shows the token has no page
        csrf = access.signed(f"csrf {user or ''}")
        is_ours = "origin" in c.headers and _equal(c.headers.get(CSRF_HEADER, ""), csrf)
        if self.checks_csrf and not any((is_reading, has_bearer, is_ours)):
            return Refusal(403, "csrf", "the page is out of date: reload it and try again")
        scope.setdefault("state", {}).update(user=user, csrf=csrf, is_program=has_bearer or access.is_open)
        return None

    def _login(self, scope: Scope, cookie: str, session: str) -> Response | Refusal | None:
        """Where an address has the token: lead to the one without it, with a cookie for the session."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        shown = [value for name, value in query if name == "token"]
        if not shown or self.access.token is None:
            return None
        if not self.access.is_token(shown[0]):
            return Refusal(401, "token", "wrong token")
        # The token must not stay in the address, where history and logs would keep it
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        path = "/" + scope["path"].lstrip("/")  # two slashes would lead to another server
        login = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
        # lax: links of other sites lead to our pages; their frames, forms and scripts do not get the cookie
        is_https = scope.get("scheme") == "https"
        login.set_cookie(cookie, session, SESSION_S, httponly=True, samesite="lax", secure=is_https)
        return login

    def _bad_body(self, c: HTTPConnection) -> Refusal | None:
        """A body says how long it is; the server holds it to that."""
        length = c.headers.get("content-length", "0")
        if "transfer-encoding" in c.headers:
            return Refusal(411, "length", "the request must say the Content-Length of its body")
        if not (length.isascii() and length.isdecimal()):
            return Refusal(400, "length", "the Content-Length is not a number")
        if int(length) > self.max_body_bytes:
            return Refusal(413, "body_too_large", f"the body has more than {self.max_body_bytes} bytes")
        return None

    def _foreign(self, c: HTTPConnection, is_reading: bool) -> Refusal | None:
        """Why a request is not meant for this server, or is another site's."""
        hosts, origins = c.headers.getlist("host"), c.headers.getlist("origin")
        if len(hosts) != 1:
            return Refusal(400, "wrong_host", "the request must have exactly one Host header")
        named = HOST.fullmatch(hosts[0].lower()) or ("", "")
        if self.access.hosts is not None and named[1].strip("[]") not in self.access.hosts:
            why = f"this server is not called {hosts[0]!r}; use the address that it printed"
            return Refusal(421, "wrong_host", why)
        # A browser names the origin of a change and of a WebSocket, and says which site asks, and for what
        own = [[], [f"http://{hosts[0]}".lower()], [f"https://{hosts[0]}".lower()]]
        is_own = [*map(str.lower, origins)] in own
        asked = c.headers.get("sec-fetch-mode"), c.headers.get("sec-fetch-dest", "document")
        is_link = is_reading and asked == ("navigate", "document")
        if not is_own or (c.headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_link):
            return Refusal(403, "wrong_origin", "pages of other sites may only link to this server")
        return None

    def _proxy_user(self, c: HTTPConnection) -> str | None:
        """The user whom a trusted proxy names."""
        named = c.headers.getlist(self.access.user_header or "")
        try:
            address = ipaddress.ip_address(c.client.host if c.client else "")
        except ValueError:
            return None
        is_trusted = len(named) == 1 and any(address in network for network in self.access.proxies)
        return (named[0].strip()[:100] or None) if is_trusted else None


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
