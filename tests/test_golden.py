"""The bundled checkpoint says of the example images what it has always said."""

import json
from pathlib import Path

from tests.golden import captions_of, differences

HERE = Path(__file__).resolve().parent


def test_the_example_images_get_the_captions_they_always_had() -> None:
    before = json.loads((HERE / "golden.json").read_text(encoding="utf-8"))
    assert differences(before, captions_of(HERE.parent / "space" / "examples")) == []
