"""Who may come in, and what a request may be: one layer round the whole application.

On loopback anybody on this machine is let in, as long as the Host header says so too (a page elsewhere that has its
name point here says another). On any other address a token is needed, once, or the word of a listed reverse proxy. What
changes something must come from our own page: the Origin has to be ours, and the page's CSRF token has to come along.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.connections import Network
from core.errors import UserError
from core.network import LOOPBACK_NAMES, host_name, is_loopback

COOKIE = "proccorpus_session"
CSRF_HEADER = "x-csrf-token"
SAFE_METHODS, METHODS = ("GET", "HEAD"), ("GET", "HEAD", "POST", "DELETE")
MAX_BODY_BYTES = 1 << 20
MAX_URL_BYTES = MAX_HEADER_BYTES = 16 << 10
BODY_S = 30.0  # that a client may take to send it
MIN_TOKEN = 16
SESSION_S = 30 * 86400

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "media-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

Problem = tuple[int, str]  # why a request is refused: HTTP's status, and a sentence


class AccessError(UserError, ValueError):
    """Settings of who may come in that cannot be meant: what, and what to do."""


@dataclass(frozen=True)
class ExplorerAccess:
    """Who may come in. The default: whoever is on this machine.

    `token`: what everybody must show once. `user_header`: the header in which a reverse proxy at one of `proxies` names
    the user; from any other address it counts for nothing. `hosts`: names that the Host header may have; None: any.
    """

    token: str | None = None
    user_header: str | None = None
    proxies: tuple[Network, ...] = ()
    hosts: tuple[str, ...] | None = LOOPBACK_NAMES
    author: str = "somebody"  # whom a correction is by, where neither proxy nor page says
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @property
    def is_local(self) -> bool:
        """Is everybody who comes in on this machine?"""
        return self.token is None and self.user_header is None

    def session(self) -> str:
        """What the cookie of one who has shown the token holds; good for this process alone."""
        return self.signed(f"session {self.token}")

    def signed(self, text: str) -> str:
        return hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()


def access_for(
    host: str,
    *,
    token: str | None = None,
    user_header: str | None = None,
    proxies: tuple[str, ...] = (),
    hosts: tuple[str, ...] = (),
    author: str = "somebody",
) -> ExplorerAccess:
    """Who may come in at an address that is listened on; without any settings a token is made. Raises AccessError."""
    if token is not None and len(token) < MIN_TOKEN:
        raise AccessError(f"the token has {len(token)} characters; give at least {MIN_TOKEN}, or none to get a new one")
    # A header alone would be believed from anybody
    if bool(user_header) != bool(proxies):
        raise AccessError("--user-header needs --trusted-proxy: the addresses of proxies that may name the user")
    networks = _networks(proxies)

    # Without any settings, others than this machine need a token
    is_local = is_loopback(host)
    if not is_local and token is None and user_header is None:
        token = secrets.token_urlsafe(24)
    # Host names are checked where they are known; behind a public address the token is the guard
    names = (*LOOPBACK_NAMES, *hosts) if is_local or hosts else None
    header = user_header.lower() if user_header else None
    return ExplorerAccess(token, header, networks, names, author)


def _networks(proxies: tuple[str, ...]) -> tuple[Network, ...]:
    """Addresses and networks of reverse proxies. Raises AccessError."""
    try:
        return tuple(ipaddress.ip_network(p) for p in proxies)
    except ValueError as e:
        raise AccessError(f"--trusted-proxy: {e}") from e


class ExplorerGuard:
    """ASGI middleware: refuses what may not come in, and gives every answer its security headers.

    A request that passes has `state.user` (a name, or None where only the machine or the token is known) and
    `state.csrf`.
    """

    def __init__(self, app: ASGIApp, access: ExplorerAccess) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # No page uses WebSockets, so nothing but HTTP and the server's own start and end goes through
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        answer = self._judge(connection, scope)
        guarded = _with_headers(send)
        if isinstance(answer, Response):
            await answer(scope, receive, guarded)
            return
        scope.setdefault("state", {}).update(answer)
        # The body is counted as it comes, since a client may lie about its length
        limited = _Limited(receive)
        try:
            await self.app(scope, limited, guarded)
        except _TooLargeError:
            message = f"the request is larger than {MAX_BODY_BYTES} bytes"
            await _refusal(scope, 413, message)(scope, receive, guarded)
        except _TooSlowError:
            message = f"the request was not complete within {BODY_S:g} s"
            await _refusal(scope, 408, message)(scope, receive, guarded)

    def _judge(self, c: HTTPConnection, scope: Scope) -> Response | dict[str, Any]:
        """What the request's handlers find in its state, or the answer where it goes no further."""
        problem = self._malformed(c, scope)
        if problem:
            return _refusal(scope, *problem)

        # Who asks? A user whom the proxy names, or whoever shows the token: in the address, as a header, by a cookie
        user = self._proxy_user(c)
        login = self._login(c, scope)
        if login is not None:
            return login
        has_bearer = self._is_token(c.headers.get("authorization", "").removeprefix("Bearer "))
        may_come_in = self.access.is_local or user or has_bearer or self._has_session(c)
        if not may_come_in:
            return _refusal(scope, 401, "a token is needed: open the address that proccorpus explore printed")

        # A change comes from our own page; a program that shows the token as a header has no page
        csrf = self.access.signed(f"csrf {user or ''}")
        if scope["method"] not in SAFE_METHODS and not has_bearer:
            forgery = self._forged(c, csrf)
            if forgery:
                return _refusal(scope, 403, forgery)
        # A program shows the token; on this machine every browser says in a header which site asks
        return {"user": user, "csrf": csrf, "is_program": has_bearer or self.access.is_local}

    def _malformed(self, c: HTTPConnection, scope: Scope) -> Problem | None:
        """What makes a request one that no page of ours sends, from its first line to its length."""
        return (
            _too_long(scope)
            or _wrong_target(scope)
            or self._wrong_host(c.headers.getlist("host"))
            or _wrong_site(c.headers)
            or _wrong_length(c.headers.get("content-length", "0"))
        )

    def _wrong_host(self, hosts: list[str]) -> Problem | None:
        if len(hosts) != 1:
            return 400, "the request must have exactly one Host header"
        if self.access.hosts is not None and host_name(hosts[0]) not in self.access.hosts:
            return 421, "unknown host name; use the address that proccorpus explore printed"
        return None

    def _proxy_user(self, c: HTTPConnection) -> str | None:
        if self.access.user_header is None or c.client is None:
            return None
        try:
            address = ipaddress.ip_address(c.client.host)
        except ValueError:
            return None
        named = c.headers.getlist(self.access.user_header)
        if len(named) != 1 or not any(address in network for network in self.access.proxies):
            return None
        return named[0].strip()[:100] or None

    def _login(self, c: HTTPConnection, scope: Scope) -> Response | None:
        """With ?token=... in the address: the same address without it, and a cookie."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        tokens = [value for name, value in query if name == "token"]
        # Only reading requests are redirected: a form that is sent would lose its body
        if not tokens or self.access.token is None or scope["method"] not in SAFE_METHODS:
            return None
        if not self._is_token(tokens[0]):
            return _refusal(scope, 401, "wrong token")

        # The token must not stay in the address, where history and logs would keep it
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        address = f"{scope['path']}?{rest}" if rest else scope["path"]
        answer = RedirectResponse(address, 303)
        answer.set_cookie(
            COOKIE,
            self.access.session(),
            max_age=SESSION_S,
            path="/",
            httponly=True,
            samesite="strict",
            secure=scope.get("scheme") == "https",
        )
        return answer

    def _is_token(self, text: str) -> bool:
        return self.access.token is not None and hmac.compare_digest(text.encode(), self.access.token.encode())

    def _has_session(self, c: HTTPConnection) -> bool:
        cookie = c.cookies.get(COOKIE, "")
        return self.access.token is not None and hmac.compare_digest(cookie.encode(), self.access.session().encode())

    def _forged(self, c: HTTPConnection, csrf: str) -> str | None:
        """Why a request that changes something cannot be from our own page; None: it is."""
        origins = c.headers.getlist("origin")
        origin = origins[0] if len(origins) == 1 else ""
        if urlsplit(origin).netloc.lower() != c.headers.get("host", "").lower() or not origin:
            return "the request does not come from this explorer's own pages"
        if not hmac.compare_digest(c.headers.get(CSRF_HEADER, "").encode(), csrf.encode()):
            return "the page is out of date: reload it and try again"
        return None


def _too_long(scope: Scope) -> Problem | None:
    path = scope.get("raw_path") or scope["path"].encode()
    if len(path) + len(scope["query_string"]) > MAX_URL_BYTES:
        return 414, f"the address is longer than {MAX_URL_BYTES} bytes"
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        return 431, f"the headers are larger than {MAX_HEADER_BYTES} bytes"
    return None


def _wrong_target(scope: Scope) -> Problem | None:
    if scope["method"] not in METHODS:
        return 405, f"{scope['method']} is not supported here"
    path = scope["path"]
    climbs = any(part in (".", "..") for part in path.split("/"))
    has_control_character = any(character < " " or character == "\x7f" for character in path)
    if climbs or "//" in path or "\\" in path or has_control_character:
        return 400, "the path is not valid"
    return None


def _wrong_site(headers: Headers) -> Problem | None:
    is_of_another_site = headers.get("sec-fetch-site") == "cross-site"
    is_link = headers.get("sec-fetch-mode") == "navigate"
    if is_of_another_site and not is_link:
        return 403, "pages of other sites may only link to this explorer"
    return None


def _wrong_length(length: str) -> Problem | None:
    if not length.isdecimal() or not length.isascii():
        return 400, "the Content-Length is not a number"
    if int(length) > MAX_BODY_BYTES:
        return 413, f"the request is larger than {MAX_BODY_BYTES} bytes"
    return None


def _refusal(scope: Scope, status: int, message: str) -> Response:
    if scope["path"].startswith("/api/"):
        return JSONResponse({"error": message}, status)
    page = f"<!doctype html><html lang=en><title>Refused</title><h1>Refused</h1><p role=alert>{escape(message)}</p>"
    return HTMLResponse(page, status)


def _with_headers(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            have = {name.lower() for name, _ in message["headers"]}
            added = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in have]
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return guarded


class _TooLargeError(Exception):
    pass


class _TooSlowError(Exception):
    pass


class _Limited:
    """A request's body that ends in _TooLargeError where it is longer than allowed, whatever its headers say, and in
    _TooSlowError where it takes too long to come."""

    def __init__(self, receive: Receive) -> None:
        self.receive, self.seen, self.is_whole = receive, 0, False
        self.deadline = asyncio.get_running_loop().time() + BODY_S

    async def __call__(self) -> Message:
        try:
            # After the whole body a message only tells that the client has gone: waiting for it has no end
            async with asyncio.timeout_at(None if self.is_whole else self.deadline):
                message = await self.receive()
        except TimeoutError:
            raise _TooSlowError from None
        self.is_whole = not message.get("more_body", False)
        self.seen += len(message.get("body", b""))
        if self.seen > MAX_BODY_BYTES:
            raise _TooLargeError
        return message
