"""Text that strangers chose, such as the names of files, made fit for a line, a terminal and a spreadsheet."""

import json
import re
from typing import Any

_CONTROLS = "\x00-\x1f\x7f-\x9f\u2028\u2029"
_REORDERING = "\u202a-\u202e\u2066-\u2069"
"""Marks that make what follows look as if it stood elsewhere."""
_NOT_UTF8 = "\ud800-\udfff"
"""How Python holds the bytes of a name that are not UTF-8."""
_UNPRINTABLE = re.compile(rf"(?<!\\)(\\*)(?:([{_CONTROLS}{_REORDERING}{_NOT_UTF8}])|(?=u[0-9a-f]{{4}}))")
_ESCAPE = re.compile(r"(?<!\\)(\\+)(u[0-9a-f]{4})")
_IN_JSON = re.compile(rf"[{_CONTROLS}{_REORDERING}{_NOT_UTF8}]")
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]|.*,[=+\-@\t\r\n]", re.DOTALL)


def printable(text: str) -> str:
    r"""Text of one line that changes no terminal's state and is valid UTF-8.

    A control character, and a byte that is not UTF-8, becomes an escape: `\u001b`, `\udce9`. Backslashes right before
    an escape, or before text that looks like one, are doubled, so that two names are never the same afterwards.
    """
    return _UNPRINTABLE.sub(lambda found: 2 * found[1] + (_escape(found[2]) if found[2] else ""), text)


def original(text: str) -> str:
    """What `printable` made this text of."""

    def unescaped(found: re.Match[str]) -> str:
        half, odd = divmod(len(found[1]), 2)
        return "\\" * half + (chr(int(found[2][1:], 16)) if odd else found[2])

    return _ESCAPE.sub(unescaped, text)


def json_line(value: Any) -> str:
    """A JSON value in a line, in which control characters are JSON's own escapes."""
    return _IN_JSON.sub(lambda found: _escape(found[0]), json.dumps(value, ensure_ascii=False)) + "\n"


def csv_cell(text: str) -> str:
    """Printable text, with an apostrophe before whatever a spreadsheet would run as a formula."""
    text = printable(text)
    return f"'{text}" if _FORMULA.match(text) else text


def from_csv_cell(cell: str) -> str:
    """The text of which `csv_cell` made this."""
    return original(cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell)


def _escape(character: str) -> str:
    return f"\\u{ord(character):04x}"
