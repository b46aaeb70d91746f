"""The report as one file: whole, by itself, and whatever stands in the rows is text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from backend_watcher.reconcile.compare import Difference, Kind
from backend_watcher.reconcile.page import DIFFERENCES_SHOWN, page
from backend_watcher.reconcile.report import TableResult

EVIL = '<script src="http://evil.example/x.js">alert(1)</script>&"\''


class Tags(HTMLParser):
    """Notes every tag, and that they are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "onclick", "onerror"}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def proof(*tables: TableResult, **more: Any) -> dict[str, Any]:
    plain = {"watcher": EVIL, "verdict": "different", "interrupted": False, "error": None, "left_out": {EVIL: EVIL}}
    return plain | {"tables": [one.as_plain() for one in tables], **more}


def test_what_came_from_rows_is_text_and_nothing_comes_from_elsewhere() -> None:
    value = b'{"note": "' + EVIL.replace('"', '\\"').encode() + b'"}'
    one = TableResult(EVIL, EVIL, where=EVIL, rows=1234, notes=[EVIL], extras_unknown=EVIL)
    one.unsettled[EVIL] = 2
    one.differences = [Difference(EVIL.encode(), Kind.DIFFERENT, value, b"{}")]
    made = page(proof(one, interrupted=True, error=EVIL), "begin", "end")
    tags = Tags()
    tags.feed(made)
    assert not tags.open
    assert not {"script", "link", "img", "iframe", "form", "object"} & set(tags.seen)
    assert tags.text.count(EVIL) >= 9
    assert "default-src 'none'" in made
    assert not re.search(r"url\(|@import", made)
    assert "1,234" in tags.text


def test_no_more_differences_than_can_be_read() -> None:
    one = TableResult("cache", "a", differences=[Difference(b"k", Kind.MISSING, b"{}", None)] * (DIFFERENCES_SHOWN + 5))
    assert "and 5 more" in page(proof(one), "", "")
