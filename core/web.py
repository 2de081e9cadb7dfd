"""Our three servers: one middleware before every request, who may use them, their token, and serving until a signal.

The explorer, the reward server and Dagster's UI let in who shows a token, or whom a reverse proxy names. Slow clients,
floods and many connections are the reverse proxy's task: see `deploy/nginx.conf`.
"""

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import signal
import socket
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import uvicorn.config
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import UserError
from core.files import HALF_FILE
from core.paths import Workspace

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
SHORTEST_TOKEN = 16
MOST_TOKEN = 4096
END_S = 9
# Of all servers here, Dagster's as well: headers of some 64 KB at most; httptools takes any, before it asks for a token
uvicorn.config.HTTP_PROTOCOLS["auto"] = uvicorn.config.HTTP_PROTOCOLS["h11"]
# By server: the variable with its token
TOKENS = {
    "explore": "PROCCORPUS_EXPLORE_TOKEN",
    "serve": "PROCCORPUS_REWARD_TOKEN",
    "ui": "PROCCORPUS_UI_TOKEN",
}


@dataclass(frozen=True)
class Access:
    """Who may use a server. The default, which no command has: whoever is on this machine.

    `token`: what everybody must show, as bearer or once as `?token=`. `hosts`: names that the Host
    header may have; None: any. `user_header`: the header in which a reverse proxy at one of
    `proxies` names the user. `is_local`: only this machine can reach the server.
    """

    token: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] | None = LOOPBACK_NAMES
    user_header: str | None = None
    proxies: tuple[Network, ...] = ()
    # Of a correction, where neither the proxy nor the page names its author
    author: str = "somebody"
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
        return self.token is not None and is_equal_secret(text, self.token)


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

    A request that passes has `state.user` (the name that a proxy gave, or None), `state.csrf` and
    `state.is_program`. `open_paths` need no token. With `checks_csrf` a change needs `state.csrf`
    of one of our pages in its headers. `refuse` makes the answer to a refused request; `headers`
    are added to every answer.
    """

    def __init__(
        self, app: ASGIApp, access: Access, max_body_bytes: int = 1 << 20, open_paths: tuple[str, ...] = (),
        checks_csrf: bool = False, refuse: Callable[[Scope, Refusal], Response] = _plain,
        headers: Mapping[str, str] = {},
    ) -> None:  # fmt: skip
        self.app = app
        self.access = access
        self.max_body_bytes = max_body_bytes
        self.refuse = refuse
        self.open_paths = open_paths
        self.checks_csrf = checks_csrf
        self.headers = HEADERS | dict(headers)

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
        access = self.access
        is_reading = scope["type"] == "http" and scope["method"] in SAFE_METHODS
        if refusal := self._foreign(c, is_reading) or self._bad_body(c):
            return refusal

        cookie = f"proccorpus_{scope.get('server', ('', ''))[1]}"  # cookies know no ports
        session = access.signed("session")
        if is_reading and (login := self._login(scope, cookie, session)):
            return login
        kind, _, bearer = c.headers.get("authorization", "").partition(" ")
        has_bearer = kind.lower() == "bearer" and access.is_token(bearer.strip())
        has_session = access.token is not None and is_equal_secret(
            c.cookies.get(cookie, ""), session
        )
        is_open = any(f"{scope['path']}/".startswith(f"{path}/") for path in self.open_paths)
        user = self._proxy_user(c)
        if not any((user, has_bearer, has_session, is_open, access.is_open)):
            remedy = "open the address that the command printed; programs send 'Authorization: Bearer TOKEN'"
            return Refusal(401, "token", f"a token is needed: {remedy}")

        # A change comes from a page of ours; a program that shows the token has no page
        csrf = access.signed(f"csrf {user or ''}")
        is_ours = "origin" in c.headers and is_equal_secret(c.headers.get(CSRF_HEADER, ""), csrf)
        if self.checks_csrf and not any((is_reading, has_bearer, is_ours)):
            return Refusal(403, "csrf", "the page is out of date: reload it and try again")
        scope.setdefault("state", {}).update(
            user=user, csrf=csrf, is_program=has_bearer or access.is_open
        )
        return None

    def _login(self, scope: Scope, cookie: str, session: str) -> Response | Refusal | None:
        """Where an address has the token: lead to the one without it, with a cookie for the session."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        tokens = [value for name, value in query if name == "token"]
        if not tokens or self.access.token is None:
            return None
        if not self.access.is_token(tokens[0]):
            return Refusal(401, "token", "wrong token")
        # The token must not stay in the address, where history and logs would keep it
        other_query = urlencode([(name, value) for name, value in query if name != "token"])
        path = "/" + scope["path"].lstrip("/")  # two slashes would lead to another server
        login = RedirectResponse(f"{path}?{other_query}" if other_query else path, 303)
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
            return Refusal(
                413, "body_too_large", f"the body has more than {self.max_body_bytes} bytes"
            )
        return None

    def _foreign(self, c: HTTPConnection, is_reading: bool) -> Refusal | None:
        """Why a request is not meant for this server, or is another site's."""
        hosts = c.headers.getlist("host")
        origins = c.headers.getlist("origin")
        if len(hosts) != 1:
            return Refusal(400, "wrong_host", "the request must have exactly one Host header")
        host_match = HOST.fullmatch(hosts[0].lower()) or ("", "")
        if self.access.hosts is not None and host_match[1].strip("[]") not in self.access.hosts:
            message = f"this server is not called {hosts[0]!r}; use the address that it printed"
            return Refusal(421, "wrong_host", message)
        # A browser names the origin of a change and of a WebSocket, and says which site asks, and for what
        allowed_origins = [[], [f"http://{hosts[0]}".lower()], [f"https://{hosts[0]}".lower()]]
        is_own = [*map(str.lower, origins)] in allowed_origins
        fetch_headers = c.headers.get("sec-fetch-mode"), c.headers.get("sec-fetch-dest", "document")
        is_link = is_reading and fetch_headers == ("navigate", "document")
        if not is_own or (
            c.headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_link
        ):
            return Refusal(403, "wrong_origin", "pages of other sites may only link to this server")
        return None

    def _proxy_user(self, c: HTTPConnection) -> str | None:
        """The user whom a trusted proxy names."""
        user_names = c.headers.getlist(self.access.user_header or "")
        try:
            address = ipaddress.ip_address(c.client.host if c.client else "")
        except ValueError:
            return None
        is_trusted = len(user_names) == 1 and any(
            address in network for network in self.access.proxies
        )
        if is_trusted:
            return user_names[0].strip()[:100] or None
        return None


def is_equal_secret(actual: str, expected: str) -> bool:
    return hmac.compare_digest(actual.encode(), expected.encode())


def token_for(
    server: str, space: Workspace, file: Path | None = None, *, none: bool = False
) -> tuple[str | None, str | None]:
    """The token of a server (one of TOKENS), and what a printed link shows of it: one that was given is not repeated.

    It comes from a file, else from the environment, else from where the workspace keeps it; never
    from an option, as every user of the machine can read arguments. `none`: there is none, which is
    said on standard error. Raises UserError.
    """
    if none and file:
        raise UserError("--no-token and --token-file exclude each other")
    if none:
        print("note: no token: every user of this machine may do everything here", file=sys.stderr)
        return None, None
    if file is not None:
        return _read(file, f"--token-file {file}"), None
    if environment_token := os.environ.get(TOKENS[server]):
        return environment_token, None
    token_path = space.token(server)
    new_token = secrets.token_urlsafe(24)
    try:
        if not token_path.exists():
            half = token_path.with_name(f"{HALF_FILE}{secrets.token_hex(8)}")
            write_private(half, new_token)
            half.replace(token_path)
        token_path.open().close()
    # No workspace, one that may only be read, or another user's: a token for this time alone
    except OSError:
        return new_token, new_token
    token = _read(token_path, str(token_path))
    return token, token


def write_private(path: Path, text: str) -> None:
    """A new file that its owner alone may read. Raises OSError."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)


def _read(file: Path, description: str) -> str:
    """A token. Raises UserError for a file that others may read, or others than its owner may write."""
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            token = opened.read(MOST_TOKEN + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{description} cannot be read: {e}") from e
    if stat.S_ISREG(status.st_mode):  # a pipe of the shell's has no others
        if status.st_mode & stat.S_IROTH:
            raise UserError(
                f"{description} can be read by every user of this machine: chmod 600 {file}"
            )
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UserError(
                f"{description} can be written by others than its owner: chmod 600 {file}"
            )
        if status.st_uid not in (0, os.getuid()):
            raise UserError(
                f"{description} belongs to another user, who can change it: make one of your own"
            )
    return token


def access_for(
    host: str, *, token: str | None = None, hosts: tuple[str, ...] = (), proxies: tuple[str, ...] = (),
    user_header: str | None = None, author: str = "somebody",
) -> Access:  # fmt: skip
    """Who may use a server that listens on `host`; `hosts` are further names of it. Raises UserError."""
    _check_token(token)
    # Anybody can send a header
    if bool(user_header) != bool(proxies):
        raise UserError(
            "--user-header needs --trusted-proxy: the addresses of proxies that may name the user"
        )
    is_local = is_loopback(host)
    if not is_local and token is None and not user_header:
        raise UserError(
            f"other machines can reach {host}: give a token of {SHORTEST_TOKEN} characters or more"
        )
    # Host names are checked where they are known; behind a public address the token decides
    names = (*LOOPBACK_NAMES, *map(str.lower, hosts)) if is_local or hosts else None
    header = user_header.lower() if user_header else None
    return Access(
        token, names, header, _networks(proxies), author, is_local and not hosts and not header
    )


def _check_token(token: str | None) -> None:
    is_good = token is None or (
        SHORTEST_TOKEN <= len(token) <= MOST_TOKEN and token.isascii() and token.isprintable()
    )
    if not is_good:
        raise UserError(
            f"a token needs at least {SHORTEST_TOKEN} printable ASCII characters, {MOST_TOKEN} at most"
        )


def _networks(addresses: tuple[str, ...]) -> tuple[Network, ...]:
    try:
        return tuple(map(ipaddress.ip_network, addresses))
    except ValueError as e:
        raise UserError(f"--trusted-proxy: {e}") from e


def is_loopback(host: str) -> bool:
    """Whether no other machine can reach an address or name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def link_with(url: str, token: str | None) -> str:
    """An address for a browser, which leaves a cookie there and leads to the address without the token."""
    page = url if urlsplit(url).path else f"{url}/"
    if token:
        return f"{page}?{urlencode({'token': token})}"
    return url


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0: a free one. Raises UserError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as e:
        raise UserError(
            f"cannot listen on {host}:{port}: {e.strerror or e}; try --port 0 for a free one"
        ) from e


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

    For the main thread alone: it handles signals. `app.state.is_ending()` says whether it was told
    to end.
    """

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            host, port = listener.getsockname()[:2]
            announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")

        def handle_exit(self, sig: int, frame: Any) -> None:
            signal.alarm(END_S)  # then the system ends it, whatever a decoder's thread does
            super().handle_exit(sig, frame)

    server = Announcing(server_config(app))
    app.state.is_ending = lambda: server.should_exit
    # uvicorn raises the signal that ended it again when it has closed: that is no second end
    former_handlers = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        server.run([listener])
    finally:
        listener.close()
        for number, handler in former_handlers.items():
            signal.signal(number, handler)
