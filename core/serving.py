"""What our three servers begin with: who may use them, their token, a listening socket; and a server until a signal."""

import ipaddress
import os
import secrets
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import uvicorn.config

from core.errors import UserError
from core.files import HALF_FILE
from core.paths import Workspace
from core.web import LOOPBACK_NAMES, Access

SHORTEST_TOKEN, MOST_TOKEN, END_S = 16, 4096, 9
# Of all servers here, Dagster's as well: headers of some 64 KB at most; httptools takes any, before it asks for a token
uvicorn.config.HTTP_PROTOCOLS["auto"] = uvicorn.config.HTTP_PROTOCOLS["h11"]
# By server: the variable with its token
TOKENS = {"explore": "PROCCORPUS_EXPLORE_TOKEN", "serve": "PROCCORPUS_REWARD_TOKEN", "ui": "PROCCORPUS_UI_TOKEN"}


def token_for(
    server: str, space: Workspace, file: Path | None = None, *, none: bool = False
) -> tuple[str | None, str | None]:
    """The token of a server (one of TOKENS), and what a printed link shows of it: one that was given is not repeated.

    It comes from a file, else from the environment, else from where the workspace keeps it; never from an option, as
    every user of the machine can read arguments. `none`: there is none, which is said on standard error. Raises
    UserError.
    """
    if none and file:
        raise UserError("--no-token and --token-file exclude each other")
    if none:
        print("note: no token: every user of this machine may do everything here", file=sys.stderr)
        return None, None
    if file is not None:
        return _read(file, f"--token-file {file}"), None
    if given := os.environ.get(TOKENS[server]):
        return given, None
    kept, made = space.token(server), secrets.token_urlsafe(24)
    try:
        if not kept.exists():
            half = kept.with_name(f"{HALF_FILE}{secrets.token_hex(8)}")
            write_private(half, made)
            half.replace(kept)
        kept.open().close()
    # No workspace, one that may only be read, or another user's: a token for this time alone
    except OSError:
        return made, made
    token = _read(kept, str(kept))
    return token, token


def write_private(path: Path, text: str) -> None:
    """A new file that its owner alone may read. Raises OSError."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)


def _read(file: Path, where: str) -> str:
    """A token. Raises UserError for a file that others may read, or others than its owner may write."""
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            token = opened.read(MOST_TOKEN + 1).decode().strip()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{where} cannot be read: {e}") from e
    if stat.S_ISREG(status.st_mode):  # a pipe of the shell's has no others
        if status.st_mode & stat.S_IROTH:
            raise UserError(f"{where} can be read by every user of this machine: chmod 600 {file}")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UserError(f"{where} can be written by others than its owner: chmod 600 {file}")
        if status.st_uid not in (0, os.getuid()):
            raise UserError(f"{where} belongs to another user, who can change it: make one of your own")
    return token


def access_for(
    host: str, *, token: str | None = None, hosts: tuple[str, ...] = (), proxies: tuple[str, ...] = (),
    user_header: str | None = None, author: str = "somebody",
) -> Access:  # fmt: skip
    """Who may use a server that listens on `host`; `hosts` are further names of it. Raises UserError."""
    _check(token)
    # Anybody can send a header
    if bool(user_header) != bool(proxies):
        raise UserError("--user-header needs --trusted-proxy: the addresses of proxies that may name the user")
    is_local = is_loopback(host)
    if not is_local and token is None and not user_header:
        raise UserError(f"other machines can reach {host}: give a token of {SHORTEST_TOKEN} characters or more")
    # Host names are checked where they are known; behind a public address the token decides
    names = (*LOOPBACK_NAMES, *map(str.lower, hosts)) if is_local or hosts else None
    header = user_header.lower() if user_header else None
    return Access(token, names, header, _networks(proxies), author, is_local and not hosts and not header)


def _check(token: str | None) -> None:
    is_good = token is None or (SHORTEST_TOKEN <= len(token) <= MOST_TOKEN and token.isascii() and token.isprintable())
    if not is_good:
        raise UserError(f"a token needs at least {SHORTEST_TOKEN} printable ASCII characters, {MOST_TOKEN} at most")


def _networks(addresses: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
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
    return f"{page}?{urlencode({'token': token})}" if token else url


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0: a free one. Raises UserError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as e:
        raise UserError(f"cannot listen on {host}:{port}: {e.strerror or e}; try --port 0 for a free one") from e


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

        def handle_exit(self, sig: int, frame: Any) -> None:
            signal.alarm(END_S)  # then the system ends it, whatever a decoder's thread does
            super().handle_exit(sig, frame)

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
