"""A web page of another site, which tries every way that a page has to make a server on this machine do something."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from urllib.parse import urlencode, urlsplit

from tests.kits.http_server import Answering, serving


@dataclass(frozen=True)
class Wish:
    """What the page wants asked: an address with what is asked for in it, or a body to post there."""

    url: str
    fields: dict[str, str]
    method: str = "POST"

    @property
    def address(self) -> str:
        if self.fields:
            return f"{self.url}?{urlencode(self.fields)}"
        return self.url

    @property
    def body(self) -> str:
        return json.dumps(
            {n: json.loads(v) if v.startswith("{") else v for n, v in self.fields.items()}
        )


def attacking(wishes: Sequence[Wish], number: int) -> str:
    """The page. What its script began and was answered is in `window.tried`."""
    parts = []
    for k, wish in enumerate(wishes):
        address = escape(wish.address)
        parts += [
            f'<img src="{address}">',
            f'<iframe hidden src="{address}"></iframe>',
            f'<script src="{address}"></script>',
            f'<link rel=stylesheet href="{address}">',
            f'<video src="{address}"></video>',
            f'<object data="{address}"></object>',
        ]
        hidden = "".join(
            f'<input name="{escape(n)}" value="{escape(v)}">' for n, v in wish.fields.items()
        )
        # What a form sends as text/plain can be JSON, with the "=" between its name and value inside a text
        start = escape(wish.body[:-1] + (', "x": "' if wish.fields else '"x": "'))
        text = f'<input name="{start}" value="{escape(chr(34) + "}")}">'
        for verb, inner in (
            ("get", hidden),
            ("post", hidden),
            ('post" enctype="text/plain', text),
            ('post" enctype="multipart/form-data', hidden),
        ):
            parts.append(f'<iframe hidden name="f{k}{len(parts)}"></iframe>')
            parts.append(
                f'<form hidden class=sent target="f{k}{len(parts) - 1}" action="{escape(wish.url)}" method="{verb}">'
                f"{inner}</form>"
            )
    wishes_json = json.dumps([[w.url, w.address, w.body, w.method] for w in wishes])
    return f"""<!doctype html><meta charset=utf-8><title>{number}</title>{"".join(parts)}<script>
window.tried = 0; window.read = [];
const done = () => window.tried++;
const say = answer => {{ window.read.push(answer.status); done(); }};
const types = ["text/plain", "application/json", "application/x-www-form-urlencoded"];
for (const [url, address, body, method] of {wishes_json}) {{
  for (const mode of ["no-cors", "cors"])
  for (const credentials of ["include", "omit"]) {{
    fetch(address, {{mode, credentials}}).then(mode == "cors" ? say : done, done);
    for (const type of types) {{
      const how = {{method: mode == "cors" ? method : "POST", mode, credentials, body}};
      fetch(url, {{...how, headers: {{"Content-Type": type}}}}).then(mode == "cors" ? say : done, done);
    }}
  }}
  navigator.sendBeacon(url, body);
  navigator.sendBeacon(url, new Blob([body], {{type: "text/plain"}}));
  const socket = new WebSocket(url.replace("http", "ws"), ["graphql-ws"]);
  socket.onopen = () => {{
    window.read.push("socket");
    socket.send(JSON.stringify({{type: "connection_init"}}));
    socket.send(JSON.stringify({{id: "1", type: "start", payload: JSON.parse(body)}}));
  }};
  socket.onerror = done;
}}
for (const form of document.querySelectorAll("form.sent")) form.submit();
</script>"""


@contextmanager
def other_site(pages: dict[str, str]) -> Iterator[str]:
    """Serves pages, by their paths, as `localhost`: another site than 127.0.0.1, as a public one is."""

    class Handler(Answering):
        def do_GET(self) -> None:
            text = pages.get(urlsplit(self.path).path, "")
            self.answer(text, 200 if text else 404)

    with serving(Handler) as address:
        yield address.replace("127.0.0.1", "localhost")
