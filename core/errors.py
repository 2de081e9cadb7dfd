"""Errors that a person can mend: the command line shows each as one line, and ends with its exit code.

Secrets in addresses are cut out of whatever is printed, stored, released or logged, and refused
where one is given.
"""

import re
from typing import Any

CUT = "***"
# As a path it has one slash
ADDRESS = re.compile(r"([a-z][\w+.-]*:/+)([^\s'\"<>]+)", re.IGNORECASE)
LOGIN = re.compile(r"^[^/?#]*@")  # before the host
# With a slash in it, or before another part than the host; a port is none: http://host:80/a@b
PASSWORD = re.compile(r"(?:^|(?<=[/@]))(?!\[)[^/?#@:]*:(?!\d{1,5}/)[^?#]*@")
POSTGRES_USER = re.compile(r"postgres(?:ql)?:/+$", re.IGNORECASE), re.compile(r"^[^:@/?#]*@[^@]*$")
FRAGMENT = re.compile(r"#.+")
# Values whose name says that they are secret: of an address, of a connection's settings, of a header
VALUE = re.compile(
    r"((?:[\w.-]*(?:token|secret|signature|passw(?:or)?d|credential|api_?key|access_?key(?:_?id)?)|[?&](?:key|sig|auth))"
    r"\s?=\s?['\"]?|\bBearer )(?!\*\*\*|\[key\])[^\s&;,'\"]+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """A text whose addresses have *** for logins, passwords, keys, signatures and what stands behind '#'.

    Example: without_secrets("no answer from s3://key:secret@bucket/a") == "no answer from s3://***@bucket/a".
    """
    if ":/" in text:
        text = ADDRESS.sub(_cut, text)
    if "=" in text or "earer " in text:
        return VALUE.sub(rf"\1{CUT}", text)
    return text


def _cut(match: re.Match[str]) -> str:
    scheme = match[1]
    address = match[2]
    # Postgres asks for the password elsewhere: its users may be named
    if not (POSTGRES_USER[0].match(scheme) and POSTGRES_USER[1].match(address)):
        address = PASSWORD.sub(f"{CUT}@", LOGIN.sub(f"{CUT}@", address))
    return scheme + FRAGMENT.sub(f"#{CUT}", address)


class UserError(Exception):
    """Something asked for cannot be done as asked: what was wrong, where, and what to do."""

    exit_code = 2

    def __str__(self) -> str:
        return without_secrets(super().__str__())


class SecretInAddress(UserError, ValueError):  # noqa: N818, as pydantic's validators raise it as well
    """An address with a password, key or signature in it, which is not repeated."""


def checked_address(address: str) -> str:
    """The address, or path, as given. Raises SecretInAddress."""
    if ADDRESS.match(address) and without_secrets(address) != address:
        raise SecretInAddress(
            "no user, password, key or signature in an address, and nothing behind a '#': it is stored with the "
            "corpus; give it in the environment, as docs/security.md says"
        )
    return address


class FailedError(UserError):
    """A valid request failed: a server, a disk, a model or a file did not work."""

    exit_code = 1


class SqlError(UserError):
    """A user's query that is refused or fails; one sentence for people."""


def first_line(e: BaseException) -> str:
    """The first line of an error's message."""
    return str(e).strip().split("\n", 1)[0]


def install_hint(extra: str) -> str:
    """How the packages of an extra of `pyproject.toml` come in: proccorpus itself is on no package index."""
    return f"in proccorpus's checkout, run `make setup` or `pip install -e '.[{extra}]'`"


def validation_message(e: Any) -> str:
    """A pydantic ValidationError in one line: the fields, and what is wrong with each."""
    parts = []
    for error in e.errors():
        # A part such as <one> is no field, but which of several forms of a value was looked at
        parts_of_field = [str(part) for part in error["loc"] if not str(part).startswith("<")]
        field = ".".join(parts_of_field) or "the file"
        if error["type"] == "extra_forbidden":
            problem = "is not a known field"
        else:
            problem = error["msg"].lower().removeprefix("value error, ")
        parts.append(f"{field}: {problem}")
    return "; ".join(parts)
