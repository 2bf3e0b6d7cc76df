"""Whether a piece of HTML is safe to put into a report: it runs nothing and loads nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import final

_ACTIVE = frozenset({"base", "embed", "form", "frame", "iframe", "link", "meta", "object", "script", "style"})
_LINKS = frozenset({"action", "background", "data", "formaction", "href", "poster", "src", "srcset", "xlink:href"})
_OWN = re.compile(r"\s*(#|data:(?!text/html))", re.IGNORECASE)


def unsafe(html: str) -> str | None:
    """The first thing in it that runs or loads something; None where nothing does.

    >>> unsafe('<p onclick="steal()">2 &lt; 3</p>')
    'onclick in <p>'
    >>> unsafe('<img src="data:;base64,AA==">') is None
    True
    """
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.found


@final
class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in [("", None), *attrs]:
            outside = name in _LINKS and not _OWN.match(value or "#")
            loads = name == "style" and re.search(r"url\s*\(|expression|@import", value or "", re.IGNORECASE)
            if not name and tag in _ACTIVE:
                self.found = self.found or f"<{tag}>"
            elif name.startswith("on") or outside or loads:
                self.found = self.found or f"{name} in <{tag}>"
