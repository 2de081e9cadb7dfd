"""Secrets in addresses: cut out of whatever is printed, stored, released or logged, and refused where one is given."""

import re

CUT = "***"
ADDRESS = re.compile(r"([a-z][\w+.-]*:/+)([^\s'\"<>]+)", re.IGNORECASE)  # as a path it has one slash
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
    return VALUE.sub(rf"\1{CUT}", text) if "=" in text or "earer " in text else text


def _cut(found: re.Match[str]) -> str:
    scheme, rest = found[1], found[2]
    # Postgres asks for the password elsewhere: its users may be named
    if not (POSTGRES_USER[0].match(scheme) and POSTGRES_USER[1].match(rest)):
        rest = PASSWORD.sub(f"{CUT}@", LOGIN.sub(f"{CUT}@", rest))
    return scheme + FRAGMENT.sub(f"#{CUT}", rest)
