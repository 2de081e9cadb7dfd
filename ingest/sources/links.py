"""The links of a page."""

from html.parser import HTMLParser


class Links(HTMLParser):
    """Collects in `links` where the links of a page that it is fed lead, as the page has them."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]
