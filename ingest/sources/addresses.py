"""Addresses of folders below a source, and what a source is called by its address."""

from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote


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
