"""Addresses that are written into a corpus, its configurations and its logs: they may hold no password or key."""

import re
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qsl, quote, unquote, urlsplit

SECRET_NAMES = re.compile(r"token|secret|signature|password|passwd|credential|api_?key|^key$|^sig$", re.IGNORECASE)


def without_secret(address: str) -> str:
    """The address as given. Raises ValueError, which does not repeat it, when it holds a password, key or signature."""
    if "://" not in address:
        return address
    # urlsplit's own message may repeat the address
    try:
        parts = urlsplit(address)
        names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
        # A login stands before the host; keys and signatures are parameters
        secret = "@" in parts.netloc or any(map(SECRET_NAMES.search, names))
    except ValueError:
        raise ValueError("this is no address") from None
    if secret:
        raise ValueError(
            "no user, password, key or signature in an address: it is stored with the corpus; give it in the "
            "environment, as docs/security.md says"
        )
    return address


def address_below(source: str, folder: str) -> str:
    """The address of a folder below an address or a local folder; "" is the source itself."""
    if not folder:
        return source
    if source.startswith(("http://", "https://")):
        return f"{source}{quote(folder)}/"
    return f"{source.rstrip('/')}/{folder}" if "://" in source else str(Path(source) / folder)


def last_name(source: str) -> str:
    """What a source is called by its address: its folder's name, or that of a file without its suffix."""
    if "://" not in source:
        path = Path(source).resolve()
        return path.stem if path.is_file() else path.name
    name = unquote(source.rstrip("/").rpartition("/")[2])
    # On a web server an address that does not end in '/' is a file's
    is_file = source.startswith(("http://", "https://")) and not source.endswith("/")
    return PurePosixPath(name).stem if is_file else name
