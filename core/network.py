"""The names of this machine, and the name that a request asks for: for servers that answer only to their own."""

import ipaddress
from urllib.parse import urlsplit

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")


def is_loopback(host: str) -> bool:
    """Is an address, or a name, this machine's own, which no other machine can reach?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_name(header: str) -> str:
    """The name in a Host header, in small letters and without its port; empty for what is none.

    Example: host_name("Localhost:7680") == "localhost".
    """
    try:
        parts = urlsplit(f"//{header}")
        is_plain = parts.netloc == header and "@" not in header and (parts.port or 0) >= 0
    except ValueError:  # no address, or no port
        return ""
    return (parts.hostname or "").lower() if is_plain else ""
