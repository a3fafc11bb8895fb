"""Everything that reads what strangers made, as functions of bytes, for `tests/fuzz.py` and `tests/test_corpus.py`.

A reader may refuse its input with one of the package's own errors, in one printable line. Whatever else it does is a
finding: another exception, a hang, too much memory. `tests/corpus/TARGET/` holds the inputs that fuzzing
begins with, and those that were a finding once.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from hf_captioner.bulk.readers import iter_images
from hf_captioner.config import CaptionerConfig, GenerationConfig
from hf_captioner.demo.card_view import card_html, without_header
from hf_captioner.errors import CaptionerError
from hf_captioner.hub.checkpoint import CONFIG, EVALUATION, GENERATION, read_description
from hf_captioner.images import open_image, read_pixels
from hf_captioner.modeling.tokenizer import CaptionTokenizer
from hf_captioner.training.data import load_records

CORPUS = Path(__file__).parent / "corpus"
PIXELS = CaptionerConfig(vocabulary_size=5, image_size=32)


def config(data: bytes, folder: Path) -> None:
    """The three JSON files of a checkpoint; what is accepted is written and read again unchanged."""
    for name in (CONFIG, GENERATION, EVALUATION):
        for other in (CONFIG, GENERATION, EVALUATION):
            (folder / other).unlink(missing_ok=True)
        (folder / CONFIG).write_text(PIXELS.to_json())
        (folder / name).write_bytes(data)
        found = read_description(folder)
        for written, text in found.texts().items():
            (folder / written).write_text(text)
        assert read_description(folder) == found
    GenerationConfig.from_json(data.decode(errors="replace"))


def tokenizer(data: bytes, folder: Path) -> None:
    """A tokenizer.json, used and written again."""
    (folder / "tokenizer.json").write_bytes(data)
    found = CaptionTokenizer.load(folder / "tokenizer.json")
    text = "A dog's half-eaten 2 DOGS \u0130\u00df \U0001f415" + "a" * 1000
    (folder / "tokenizer.json").write_text(found.to_json())
    assert CaptionTokenizer.load(folder / "tokenizer.json").encode(text) == found.encode(text)


def table(data: bytes, folder: Path) -> None:
    """A table of images, and one of captions to train on; the first byte chooses the format."""
    suffix = ("jsonl", "csv", "tsv", "parquet", "txt", "json")[data[0] % 6] if data else "csv"
    path = folder / f"table.{suffix}"
    path.write_bytes(data[1:])
    try:
        load_records(path, seed=1)
    finally:
        for named in iter_images(path):
            assert named.name


def tar(data: bytes, folder: Path) -> None:
    """A tar archive, compressed in any way."""
    (folder / "images.tar").write_bytes(data)
    for named in iter_images(folder / "images.tar"):
        assert named.name


def card(data: bytes, folder: Path) -> None:
    """A card as the page shows it: nothing that a browser would fetch, send or run."""
    shown = card_html(without_header(data.decode(errors="replace"))).lower()
    for forbidden in ("<img", "<form", "<script", "<style", "<iframe", "<svg", "<input", "javascript:", "data:text"):
        if forbidden.startswith("<"):
            assert forbidden not in shown
        else:
            assert f'href="{forbidden}' not in shown


def image(data: bytes, folder: Path) -> None:
    """An image file."""
    open_image(data)
    read_pixels(data, PIXELS)


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "config": config,
    "tokenizer": tokenizer,
    "table": table,
    "tar": tar,
    "card": card,
    "image": image,
}


def check(target: str, data: bytes) -> None:
    """Give a target an input. Raises whatever is a finding."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            TARGETS[target](data, Path(folder))
        except CaptionerError as error:
            message = str(error)
            assert message.isprintable() and message, repr(message)
