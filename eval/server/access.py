"""Who may ask the reward server."""

import hmac
from dataclasses import dataclass

from core.network import LOOPBACK_NAMES, host_name
from eval.server.limits import Refused

OPEN_PATHS = ("/healthz", "/readyz", "/docs", "/openapi.json", "/static-offline-docs")  # tell nothing of anybody's data


@dataclass(frozen=True)
class Access:
    """`token`: what every request must bring; `hosts`: what its Host header may name, None for anything."""

    token: str | None = None
    hosts: tuple[str, ...] | None = LOOPBACK_NAMES

    def check(self, path: str, headers: dict[bytes, bytes]) -> None:
        """Raises Refused. A page of another origin, or one whose name was bound to this machine, is refused too."""
        host = headers.get(b"host", b"").decode("latin-1")
        if self.hosts is not None and host_name(host) not in self.hosts:
            raise Refused(421, "wrong_host", f"this server answers to {', '.join(self.hosts)}, not to {host!r}")
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").partition("://")[2] != host:
            raise Refused(403, "wrong_origin", "pages of other origins may not use this server")
        if self.token is not None and not _is_open(path):
            _check_token(headers.get(b"authorization", b""), self.token)


def _is_open(path: str) -> bool:
    return any(path == p or path.startswith(p + "/") for p in OPEN_PATHS)


def _check_token(header: bytes, token: str) -> None:
    """Raises Refused. The comparison takes the same time for all wrong tokens."""
    kind, _, given = header.partition(b" ")
    if kind.lower() != b"bearer" or not hmac.compare_digest(given.strip(), token.encode()):
        raise Refused(401, "token", "the header 'Authorization: Bearer TOKEN' is missing or wrong")
