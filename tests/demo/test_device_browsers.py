"""The page without a server in browsers that are not like others, and against Python on fifty photographs."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import expect, sync_playwright

from hf_captioner import Caption, CaptionerConfig, ImageCaptioner
from hf_captioner.config import ConfidenceConfig
from hf_captioner.demo.static_page import loaded_bytes, write_static_page
from hf_captioner.modeling.tokenizer import CaptionTokenizer
from tests.conftest import SENTENCES, generated
from tests.demo.browsing import CHROMIUM, give, needs_browser, panel, words
from tests.demo.static_host import hosted
from train.backends import changes
from train.benchmark import write_images
from train.browser import in_browser, served

pytestmark = needs_browser
GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
"""A graphics card of software."""


@pytest.fixture(scope="module")
def bundled_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundled") / "page"
    write_static_page(folder)
    assert loaded_bytes(folder) <= 45e6
    return folder


def test_fifty_photographs_have_the_captions_that_python_gives_them(bundled_page: Path, tmp_path: Path) -> None:
    captioner = ImageCaptioner.from_pretrained(backend="torch")
    captioner.take_export(bundled_page / "model" / "onnx", torch.int8)
    paths = write_images(tmp_path, 50)
    with served(bundled_page) as address:
        found = list(in_browser(address, paths))
    expected = [caption.to_dict(attention=True) for caption in captioner.caption(paths, batch_size=1)]
    differing, _, confidence, _, attention = changes(expected, found)
    assert differing == "0 of 50"
    assert float(confidence) <= 0.001 and float(attention.rstrip(" %")) <= 0.1


def test_a_gpu_writes_the_same(static_page: Path, in_python: ImageCaptioner, tmp_path: Path) -> None:
    path = tmp_path / "mine.png"
    generated(5).save(path)
    with hosted(static_page) as host:
        (found,) = in_browser(host.url, [path], *GPU)
        assert "runtime/ort-wasm-simd-threaded.asyncify.wasm.gzip" in host.asked
        assert "runtime/ort-wasm-simd-threaded.wasm.gzip" not in host.asked
    expected: Caption = in_python.caption(path)
    assert found["caption"] == expected.text
    assert [word["probability"] for word in found["words"]] == pytest.approx(
        [word.probability for word in expected.words], abs=1e-3
    )


def test_another_kind_of_captioner_runs_in_the_browser(tiny_config: CaptionerConfig, tmp_path: Path) -> None:
    """With one recurrent state, attention to nothing, and a confidence."""
    torch.manual_seed(0)
    confidence = ConfidenceConfig(-1.0, 9.0, 6.0, 0.7)
    config = dataclasses.replace(tiny_config, decoder="gru", attention="none", confidence=confidence)
    tokenizer = CaptionTokenizer.build(SENTENCES, min_count=1)
    ImageCaptioner(config, tokenizer).save_pretrained(tmp_path / "saved")
    write_static_page(tmp_path / "page", str(tmp_path / "saved"))
    captioner = ImageCaptioner.from_pretrained(tmp_path / "saved", backend="torch")
    captioner.take_export(tmp_path / "page" / "model" / "onnx", torch.int8)
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        generated(seed).save(path)
    with served(tmp_path / "page") as address:
        found = list(in_browser(address, paths))
    for one, other in zip(found, captioner.caption(paths), strict=True):
        assert one["caption"] == other.text
        assert one["confidence"] == pytest.approx(other.confidence, abs=1e-5)
        assert np.allclose(one["words"][0]["attention"], other.words[0].attention, atol=1e-5)


OLD = "its WebAssembly is missing or too old. Use a newer browser, or another one."
WITHOUT = "delete globalThis.WebAssembly;"
UNKNOWN_CODE = """
const compile = WebAssembly.instantiate;
WebAssembly.instantiate = (bytes, ...rest) => compile(Uint8Array.of(...new Uint8Array(bytes).slice(0, 8), 99), ...rest);
"""
"""As for a browser that does not know WebAssembly's newer instructions."""


@pytest.mark.parametrize(
    ("flag", "script", "sentence"),
    [
        ("", WITHOUT, OLD),
        ("", UNKNOWN_CODE, OLD),
        ("--js-flags=--wasm-max-mem-pages=64", "", "too little memory for the model. Close other pages"),
    ],
    ids=["no WebAssembly", "an old one", "little memory"],
)
def test_what_a_browser_lacks_is_told_and_the_examples_stay(
    static_page: Path, flag: str, script: str, sentence: str, image_path: Path
) -> None:
    worker = (static_page / "page" / "device" / "worker.js").read_text()
    with hosted(static_page) as host, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *filter(None, [flag])])
        page = browser.new_page()
        answer = {"body": worker + script, "content_type": "text/javascript"}
        page.route("**/worker.js", lambda route: route.fulfill(**answer))
        page.goto(host.url)
        expect(page.locator("[data-part=loading]")).to_contain_text(sentence, timeout=20_000)
        expect(words(page).first).to_be_visible()
        give(page, image_path)
        expect(panel(page, "Caption").get_by_text(sentence)).to_be_visible()
        page.locator("#example-coffee").click()
        expect(page.locator("#example-coffee")).to_have_attribute("aria-pressed", "true")
        browser.close()
