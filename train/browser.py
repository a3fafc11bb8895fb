"""The page without a server against Python: `python -m train.browser --data DATA` captions photographs in both.

The page is written to a folder, served as any host would, and asked in headless Chromium by its own JavaScript, on
WebAssembly without threads; Python has the same int8 graphs and ONNX Runtime.
"""

import argparse
import base64
import contextlib
import functools
import io
import shutil
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.demo.static_page import loaded_bytes, write_static_page
from hf_captioner.errors import require_extra
from hf_captioner.images import read_resized
from hf_captioner.onnx.export import FOLDER
from hf_captioner.training.command import command_parser, measured_split, run_command
from train.backends import CHANGES, Answer, changes
from train.benchmark import Row, print_table

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ASK = """
async () => {
  const { askDevice } = await import(new URL("page/device/ask.js", document.baseURI));
  let loaded;
  const done = new Promise((done) => (loaded = done));
  window.device = askDevice(new Map(), { progress() {}, loaded, lost: loaded, failed: loaded });
  window.device.load();
  return done;
}
"""
"""Loads the model; what it returns is true where the browser has kept it."""
CAPTION = """
async (content) => {
  const file = new Blob([Uint8Array.from(atob(content), (character) => character.charCodeAt(0))]);
  const began = performance.now();
  const { photo, captions } = await window.device.photo(file, "photo.jpg");
  return { ...captions[0], input: photo.input, seconds: (performance.now() - began) / 1000 };
}
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder on a static host; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def in_browser(address: str, paths: Sequence[Path], *arguments: str) -> Iterator[Answer]:
    """Each photograph's caption by the page at an address, as `Caption.to_dict` and with the `input` that the model
    read, a PNG in base64, and the `seconds` from the file to the caption. arguments: Chromium's."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *arguments])
        page = browser.new_page()
        page.set_default_timeout(0)
        page.goto(address)
        page.evaluate(ASK)
        for path in paths:
            yield page.evaluate(CAPTION, base64.b64encode(path.read_bytes()).decode())
        browser.close()


def rows(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    captioner = ImageCaptioner.from_pretrained(options.model, device="cpu", backend="torch")
    captioner.take_export(folder / "model" / FOLDER, torch.int8)
    paths = [record.path for record in measured_split(options, captioner, limit=options.limit)]
    expected = [caption.to_dict(attention=True) for caption in captioner.caption(paths, batch_size=1)]
    with served(folder) as address:
        found = list(in_browser(address, paths))
    levels = [
        np.abs(_levels(read_resized(path, captioner.config)) - _levels(_image(each["input"]))).mean()
        for path, each in zip(paths, found, strict=True)
    ]
    for one, other, path, off in zip(expected, found, paths, levels, strict=True):
        if one["caption"] != other["caption"]:
            print(f"{path.name}, levels {off:.2f} apart: {one['caption']} | {other['caption']}", file=sys.stderr)
    seconds = [each["seconds"] for each in found]
    times = f"{statistics.median(seconds):.2f} s", f"{max(seconds):.2f} s"
    yield "browser", *changes(expected, found), f"{max(levels):.2f}", *times, f"{loaded_bytes(folder) / 1e6:.1f} MB"


def _levels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, float)


def _image(png: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")  # it has an alpha channel, all opaque


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_parser("browser", __doc__)
    parser.prog = "python -m train.browser"
    parser.add_argument("--limit", type=int, default=25, help="validation images of each data set (default: 25)")
    options = parser.parse_args(argv)
    return run_command(parser.prog, lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    require_extra("This comparison", "dev", "playwright")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "page"
        write_static_page(folder, options.model)
        print_table(
            ("against Python", *CHANGES, "levels, at most", "a caption", "slowest", "loaded"), rows(options, folder)
        )


if __name__ == "__main__":
    sys.exit(main())
