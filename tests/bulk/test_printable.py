"""A stranger's name for a file breaks no line, paints no terminal, runs no formula, and is told from every other."""

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from hf_captioner.bulk.printable import csv_cell, from_csv_cell, json_line, original, printable

NAMES = st.text(
    st.sampled_from("\\ue9dc0=,+-@'\"\n\r\t\x1b\x7f\x9b\u2028\u202e\udce9\udc41é漢") | st.characters(), max_size=12
)


@given(NAMES)
def test_every_name_is_one_harmless_line_and_can_be_undone(name: str) -> None:
    for text in (printable(name), csv_cell(name), json_line(name).rstrip("\n")):
        assert len(f"{text}.".splitlines()) == 1
        assert text.encode("utf-8").decode("utf-8") == text
        assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert original(printable(name)) == from_csv_cell(csv_cell(name)) == json.loads(json_line(name)) == name
    assert csv_cell(name)[:1] not in {"=", "+", "-", "@"} - {""}


def test_a_long_run_of_backslashes_takes_no_time() -> None:
    assert original(printable("\\" * 1_000_000 + "x")) == "\\" * 1_000_000 + "x"
