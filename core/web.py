"""What our three servers share: one middleware before every request, a listening socket, and a server until a signal.

The explorer, the reward server and Dagster's UI let in whoever is on this machine. On any other address a token is
needed, or a reverse proxy that names the user. Slow clients, floods and many connections are the reverse proxy's task:
see `deploy/nginx.conf`.
"""

import hashlib
import hmac
import ipaddress
import secrets
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import uvicorn
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import UserError

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
CSRF_HEADER = "x-csrf-token"
SAFE_METHODS = ("GET", "HEAD")
SHORTEST_TOKEN = 16
SESSION_S = 30 * 86400
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class ServeError(UserError, ValueError):
    """A server that cannot be started as it was asked for: why, and what to do."""


@dataclass(frozen=True)
class Access:
    """Who may use a server. The default: whoever is on this machine.

    `token`: what everybody must show, as bearer or once as `?token=`. `hosts`: names that the Host header may have;
    None: any. `user_header`: the header in which a reverse proxy at one of `proxies` names the user.
    """

    token: str | None = None
    hosts: tuple[str, ...] | None = LOOPBACK_NAMES
    user_header: str | None = None
    proxies: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    author: str = "somebody"  # of a correction, where neither the proxy nor the page names its author
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @property
    def is_local(self) -> bool:
        return self.token is None and self.user_header is None

    def signed(self, text: str) -> str:
        """A signature that holds for this process alone."""
        return hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()

    def is_token(self, text: str) -> bool:
        return self.token is not None and hmac.compare_digest(text.encode(), self.token.encode())


def access_for(
    host: str, *, token: str | None = None, hosts: tuple[str, ...] = (), proxies: tuple[str, ...] = (), **settings: Any
) -> Access:
    """Who may use a server that listens on `host`; other `settings` are those of `Access`. Raises ServeError."""
    if token is not None and not (len(token) >= SHORTEST_TOKEN and token.isascii() and token.isprintable()):
        raise ServeError(f"the token needs at least {SHORTEST_TOKEN} printable ASCII characters")
    user_header = settings.pop("user_header", None)
    # Anybody can send a header
    if bool(user_header) != bool(proxies):
        raise ServeError("--user-header needs --trusted-proxy: the addresses of proxies that may name the user")
    try:
        networks = tuple(ipaddress.ip_network(p) for p in proxies)
    except ValueError as e:
        raise ServeError(f"--trusted-proxy: {e}") from e
    if not is_loopback(host) and token is None and not user_header:
        raise ServeError(f"other machines can reach {host}: give a token of {SHORTEST_TOKEN} characters or more")
    # Host names are checked where they are known; behind a public address the token decides
    names = (*LOOPBACK_NAMES, *(h.lower() for h in hosts)) if is_loopback(host) or hosts else None
    return Access(token, names, user_header.lower() if user_header else None, networks, **settings)


def is_loopback(host: str) -> bool:
    """Whether no other machine can reach an address or name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Refusal:
    """Why a request goes no further: HTTP's status, a code for programs, a sentence for people."""

    status: int
    code: str
    reason: str


def _plain(scope: Scope, refusal: Refusal) -> Response:
    return PlainTextResponse(refusal.reason + "\n", refusal.status)


class _TooLargeError(Exception):
    pass


class Guard:
    """ASGI middleware: host names, origin, token, CSRF token, size of a body, security headers.

    A request that passes has `state.user` (the name that a proxy gave, or None), `state.csrf` and `state.is_program`.
    `open_paths` need no token. With `checks_csrf` a change needs `state.csrf` of one of our pages in its headers.
    `refuse` makes the answer to a refused request; `headers` are added to every answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        max_body_bytes: int = 1 << 20,
        open_paths: tuple[str, ...] = (),
        checks_csrf: bool = False,
        refuse: Callable[[Scope, Refusal], Response] = _plain,
        headers: Mapping[str, str] = {},
    ) -> None:
        self.app, self.access, self.max_body_bytes, self.refuse = app, access, max_body_bytes, refuse
        self.open_paths, self.checks_csrf = open_paths, checks_csrf
        self.headers = HEADERS | dict(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        answer = self._judge(HTTPConnection(scope), scope)
        if scope["type"] == "websocket":
            if answer is None:
                await self.app(scope, receive, send)
            else:
                await receive()  # the request to connect
                await send({"type": "websocket.close", "code": 1008})
            return
        seen, has_begun = 0, False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.max_body_bytes:  # whatever its headers say
                raise _TooLargeError
            return message

        async def sending(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.setdefault(name, value)
            await send(message)

        async def unless_too_large(message: Message) -> None:
            # A framework makes an answer of its own of the error
            if has_begun or seen <= self.max_body_bytes:
                await sending(message)

        with suppress(_TooLargeError):
            await (answer or self.app)(scope, counted, unless_too_large)
        if seen > self.max_body_bytes and not has_begun:
            await self.refuse(scope, self._too_large())(scope, receive, sending)

    def _judge(self, c: HTTPConnection, scope: Scope) -> Response | None:
        """The answer to a request that goes no further; None: it passes, and its state is set."""
        access, is_reading = self.access, scope["type"] == "http" and scope["method"] in SAFE_METHODS
        if (refusal := self._foreign(c, is_reading)) is not None:
            return self.refuse(scope, refusal)

        cookie = f"proccorpus_{scope.get('server', ('', ''))[1]}"  # cookies know no ports
        if is_reading and (login := self._login(scope, cookie)) is not None:
            return login
        user = self._proxy_user(c)
        has_bearer = self._has_bearer(c)
        if not (user or has_bearer or self._may_come_unnamed(c, scope, cookie)):
            how = "open the printed address (?token=...), or send the header 'Authorization: Bearer TOKEN'"
            return self.refuse(scope, Refusal(401, "token", f"a token is needed: {how}"))

        csrf = access.signed(f"csrf {user or ''}")
        refusal = self._stale_page(c, csrf) if self.checks_csrf and not is_reading and not has_bearer else None
        if refusal := refusal or self._long_body(c):
            return self.refuse(scope, refusal)
        scope.setdefault("state", {}).update(user=user, csrf=csrf, is_program=has_bearer or access.is_local)
        return None

    def _has_bearer(self, c: HTTPConnection) -> bool:
        kind, _, bearer = c.headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and self.access.is_token(bearer.strip())

    def _login(self, scope: Scope, cookie: str) -> Response | None:
        """Where an address has the token: lead to the one without it, with a cookie for the session."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        shown = [value for name, value in query if name == "token"]
        if not shown or self.access.token is None:
            return None
        if not self.access.is_token(shown[0]):
            return self.refuse(scope, Refusal(401, "token", "wrong token"))
        # The token must not stay in the address, where history and logs would keep it
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        path = "/" + scope["path"].lstrip("/")  # two slashes would lead to another server
        login = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
        is_https = scope.get("scheme") == "https"
        session = self.access.signed(f"session {self.access.token}")
        login.set_cookie(cookie, session, SESSION_S, httponly=True, samesite="strict", secure=is_https)
        return login

    def _may_come_unnamed(self, c: HTTPConnection, scope: Scope, cookie: str) -> bool:
        """Is the server this machine's own, the path open to all, or the session's cookie shown?"""
        access = self.access
        session = access.signed(f"session {access.token}").encode()
        has_session = access.token is not None and hmac.compare_digest(c.cookies.get(cookie, "").encode(), session)
        is_open = any(scope["path"] == p or scope["path"].startswith(f"{p}/") for p in self.open_paths)
        return access.is_local or is_open or has_session

    def _stale_page(self, c: HTTPConnection, csrf: str) -> Refusal | None:
        """A change comes from a page of ours; a program that shows the token has no page."""
        given = c.headers.get(CSRF_HEADER, "").encode()
        if "origin" in c.headers and hmac.compare_digest(given, csrf.encode()):
            return None
        return Refusal(403, "csrf", "the page is out of date: reload it and try again")

    def _long_body(self, c: HTTPConnection) -> Refusal | None:
        length = c.headers.get("content-length", "0")
        if not (length.isascii() and length.isdecimal()):
            return Refusal(400, "length", "the Content-Length is not a number")
        return self._too_large() if int(length) > self.max_body_bytes else None

    def _foreign(self, c: HTTPConnection, is_reading: bool) -> Refusal | None:
        """Why a request is not meant for this server, or is another site's."""
        hosts, origins = c.headers.getlist("host"), c.headers.getlist("origin")
        if len(hosts) != 1:
            return Refusal(400, "wrong_host", "the request must have exactly one Host header")
        if self.access.hosts is not None and host_name(hosts[0]) not in self.access.hosts:
            return Refusal(
                421, "wrong_host", f"this server is not called {hosts[0]!r}; use the address that it printed"
            )
        # A browser names the page's origin with every change and every WebSocket, and says which site asks
        is_own = not origins or (len(origins) == 1 and urlsplit(origins[0]).netloc.lower() == hosts[0].lower())
        is_link = is_reading and c.headers.get("sec-fetch-mode") == "navigate"
        if not is_own or (c.headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_link):
            return Refusal(403, "wrong_origin", "pages of other sites may only link to this server")
        return None

    def _proxy_user(self, c: HTTPConnection) -> str | None:
        if self.access.user_header is None or c.client is None:
            return None
        named = c.headers.getlist(self.access.user_header)
        try:
            address = ipaddress.ip_address(c.client.host)
        except ValueError:
            return None
        if len(named) != 1 or not any(address in network for network in self.access.proxies):
            return None
        return named[0].strip()[:100] or None

    def _too_large(self) -> Refusal:
        return Refusal(413, "body_too_large", f"the body has more than {self.max_body_bytes} bytes")


def host_name(header: str) -> str:
    """The name in a Host header, in small letters and without its port; empty for what is no name.

    Example: host_name("Localhost:7680") == "localhost".
    """
    try:
        parts = urlsplit(f"//{header}")
        is_plain = parts.netloc == header and "@" not in header and (parts.port or 0) >= 0
    except ValueError:  # no address, or no port
        return ""
    return (parts.hostname or "").lower() if is_plain else ""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0: a free one. Raises ServeError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as e:
        raise ServeError(f"cannot listen on {host}:{port}: {e.strerror or e}; try --port 0 for a free one") from e


def server_config(app: Any) -> uvicorn.Config:
    """uvicorn's configuration for a server of ours: HTTP only, and 4 s for requests under way when it ends."""
    return uvicorn.Config(
        app,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        # Who asks is the address that the socket says: any client may send X-Forwarded-For
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=4,
    )


def serve(app: Any, listener: socket.socket, announce: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM, then finish the requests under way; `announce` gets the address once it answers.

    For the main thread alone: it handles signals. `app.state.is_ending()` says whether it was told to end.
    """

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            host, port = listener.getsockname()[:2]
            announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    server = Announcing(server_config(app))
    app.state.is_ending = lambda: server.should_exit
    # uvicorn raises the signal that ended it again when it has closed: that is no second end
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run([listener])
    finally:
        listener.close()
        for number, handler in before.items():
            signal.signal(number, handler)
