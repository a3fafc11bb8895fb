"""What the browser computes by itself is what Python computes: each module of the page by itself."""

import base64
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Page
from safetensors.torch import save
from torch import Tensor

from hf_captioner import CaptionerConfig, GenerationConfig, ImageCaptioner
from hf_captioner.caption import Caption, Word
from hf_captioner.config import ConfidenceConfig
from hf_captioner.demo.recaption import CaptionRequest, generation_options, most_different
from hf_captioner.images import occlude, preprocess
from hf_captioner.modeling.confidence import Confidence
from hf_captioner.modeling.generation import generate
from hf_captioner.modeling.tokenizer import CaptionTokenizer
from tests.demo.browsing import needs_browser
from tests.demo.static_host import hosted

pytestmark = needs_browser
START, END, WORDS = 0, 1, 9


@pytest.fixture(scope="module")
def modules(static_page: Path, browser: Browser) -> Iterator[Page]:
    with hosted(static_page) as host:
        page = browser.new_page()
        page.goto(f"{host.url}manifest.webmanifest")  # a place without a page of its own
        yield page
        page.close()


def run(page: Page, module: str, code: str, argument: Any = None) -> Any:
    """The value of an expression over a module `m` and an argument `x`."""
    load = f"import(new URL('page/device/{module}.js', document.baseURI))"
    return page.evaluate(f"async (x) => {{ const m = await {load}; return {code}; }}", argument)


@pytest.mark.parametrize("size", [(500, 375), (64, 64), (40, 1000), (17, 23), (1, 1), (1300, 700)])
@pytest.mark.parametrize("side", [64, 256])
def test_a_photo_is_resized_as_by_pillow_to_the_bit(modules: Page, size: tuple[int, int], side: int) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    levels[..., 3] = 255
    code = """(() => {
      const [width, height, side, text] = x, levels = Uint8ClampedArray.from(atob(text), (c) => c.charCodeAt(0));
      const resizer = m.createResizer(width, height, side);
      for (let top = 0; top < height; top += 100) {
        const rows = Math.min(100, height - top);
        resizer.add(levels.subarray(top * width * 4), rows);
      }
      return [...resizer.finish()];
    })()"""
    found = run(modules, "resize", code, [*size, side, base64.b64encode(levels.tobytes()).decode()])
    expected = Image.fromarray(levels[..., :3]).resize((side, side), Image.Resampling.BILINEAR)
    assert np.array_equal(np.array(found, np.uint8).reshape(side, side, 3), np.asarray(expected))


def test_pixels_are_normalised_and_covered_as_in_python(modules: Page, tiny_config: CaptionerConfig) -> None:
    side = tiny_config.image_size
    levels = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    covered = np.random.default_rng(2).integers(0, 2, (32, 32)).astype(bool)
    config = {"image_mean": tiny_config.image_mean, "image_std": tiny_config.image_std}
    asked = [levels.ravel().tolist(), config, covered.ravel().astype(int).tolist(), side]
    plain, painted = run(
        modules,
        "pixels",
        "[[], x[2]].map((cells) => [...m.occlude(m.pixelsOf(Uint8Array.from(x[0]), x[1]), cells, x[3])])",
        asked,
    )
    expected = preprocess(Image.fromarray(levels), tiny_config)
    assert np.array_equal(np.array(plain, np.float32), expected.ravel().numpy())
    hidden = occlude(expected, torch.from_numpy(covered)[None])[0]
    assert np.allclose(painted, hidden.ravel().numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "A dog's black-and-white FENCE!",
        "  two\tchildren /play\non  the beach. ",
        "Été caf\u0065\u0301 ΣΑΣ straße İ",
        "",
        "3 dogs, 2 cats 🐕 e\u0301\u0302",
        "<end> </s>",
    ],
)
def test_sentences_become_the_same_words(modules: Page, text: str, tiny_tokenizer: CaptionTokenizer) -> None:
    file = json.loads(tiny_tokenizer.to_json())
    make = "(() => { const t = m.createTokenizer(x[0]); return [t.split(x[1]), t.encode(x[1]), t.knows(x[1])]; })()"
    expected = [tiny_tokenizer.split(text), tiny_tokenizer.encode(text), tiny_tokenizer.knows(text)]
    assert run(modules, "tokenizer", make, [file, text]) == expected
    ids = [*range(len(tiny_tokenizer))]
    decoded = run(modules, "tokenizer", "m.createTokenizer(x[0]).decode(x[1])", [file, ids])
    assert decoded == tiny_tokenizer.decode(ids)


def test_the_confidence_is_that_of_the_package(modules: Page, tmp_path: Path) -> None:
    torch.manual_seed(0)
    fitted = ConfidenceConfig(-1.5, 9.0, 6.0, 0.7)
    confidence = Confidence(fitted, 16)
    confidence.center.copy_(torch.randn(16))
    confidence.directions.copy_(torch.linalg.qr(torch.randn(16, 4)).Q.T)
    values, log_probs = torch.randn(6, 16), [-0.1, -0.5, -1.2]
    tensors = base64.b64encode(save({name: t.detach() for name, t in confidence.named_parameters()})).decode()
    code = """(() => {
      const file = Uint8Array.from(atob(x[0]), (c) => c.charCodeAt(0)).buffer;
      const found = m.createConfidence(x[1], m.readTensors(file)), far = found.distance(Float32Array.from(x[2]));
      return [far, found.confidence(far, x[3]), found.confidence(far, [])];
    })()"""
    found = run(modules, "confidence", code, [tensors, vars(fitted), values.ravel().tolist(), log_probs])
    distance = float(confidence.distance(values.mean(0)[None]))
    assert found == pytest.approx([distance, confidence(distance, log_probs), 0.0], rel=1e-5)


@dataclass
class Table:
    """A decoder whose next word depends on the last two words only."""

    log_probs: Tensor
    ids: Tensor

    def step(self, words: Tensor, state: "Table") -> "Table":
        ids = torch.cat([state.ids, words[:, None]], 1)
        before = ids[:, -2] if ids.shape[1] > 1 else torch.zeros(len(ids), dtype=torch.long)
        return Table(self.table[before, words], ids)

    @property
    def table(self) -> Tensor:
        return TABLE

    @property
    def state(self) -> "Table":
        return self

    @property
    def attention(self) -> Tensor:
        return self.ids[:, -1:].float()

    def select(self, rows: Tensor, kept: Tensor | None = None) -> "Table":
        return Table(self.log_probs, self.ids[rows])


TABLE = torch.randn(WORDS, WORDS, WORDS, generator=torch.Generator().manual_seed(3)).mul(2).log_softmax(-1)
IN_JAVASCRIPT = """(() => {
  const [table, config, limits] = x;
  let kept = [[]];
  const step = async (hypotheses, parents) => {
    kept = parents.map((parent, i) => [...kept[parent], hypotheses[i].at(-1)]);
    if (JSON.stringify(kept) !== JSON.stringify(hypotheses)) throw new Error("a hypothesis has another's state");
    return {
      logProbs: hypotheses.map((ids) => Float32Array.from(table[ids.at(-2) ?? 0][ids.at(-1)])),
      attention: hypotheses.map((ids) => Float32Array.of(ids.at(-1))),
    };
  };
  return m.generate({ step }, config, limits).then((found) => found.map((each) => ({
    ...each,
    words: each.words.map((word) => ({ ...word, before: null, attention: [...word.attention] })),
  })));
})()"""


def searches() -> list[dict[str, Any]]:
    chosen = random.Random(0)
    found: list[dict[str, Any]] = [{}, {"num_beams": 1}, {"num_beams": 20, "max_length": 4}]
    for _ in range(60):
        groups, size = chosen.choice([1, 1, 2, 3]), chosen.choice([1, 2, 3, 5])
        found.append(
            {
                "num_beams": groups * size,
                "num_beam_groups": groups,
                "num_return_sequences": chosen.randint(1, groups * size),
                "diversity_penalty": chosen.choice([0.5, 3.0]),
                "length_penalty": chosen.choice([0.0, 0.8, 1.5]),
                "no_repeat_ngram_size": chosen.choice([0, 1, 2, 3]),
                "min_length": chosen.choice([1, 1, 4]),
                "max_length": chosen.choice([4, 6, 12]),
                "num_alternatives": chosen.choice([1, 3, 5]),
            }
        )
    return found


@pytest.mark.parametrize(("banned", "prefix"), [([], []), ([0, 2], []), ([0], [4, 5]), ([0, 3], [6])])
def test_every_search_finds_what_python_finds(modules: Page, banned: Sequence[int], prefix: Sequence[int]) -> None:
    for options in searches():
        config = GenerationConfig(**{"max_length": 10, **options})
        limits = {"start": START, "end": END, "banned": banned, "prefix": prefix}
        found = run(modules, "generation", IN_JAVASCRIPT, [TABLE.tolist(), config.to_dict(), limits])
        start = Table(torch.empty(0), torch.empty(1, 0, dtype=torch.long))
        (expected,) = generate(start, torch.tensor([START]), start, config, end_id=END, banned=banned, prefix=prefix)
        assert [each["ids"] for each in found] == [each.ids for each in expected], options
        for one, other in zip(found, expected, strict=True):
            assert one["finished"] == other.finished
            assert one["score"] == pytest.approx(other.score, abs=1e-5)
            assert [word["logProb"] for word in one["words"]] == pytest.approx(other.log_probs, abs=1e-5)
            assert [word["attention"] for word in one["words"]] == other.attention.tolist()
            for word, alternatives in zip(one["words"], other.alternatives, strict=True):
                assert [i for i, _ in word["alternatives"]] == [i for i, _ in alternatives]


def test_samples_follow_the_distribution_and_repeat_with_their_seed(modules: Page) -> None:
    limits = {"start": START, "end": END, "banned": [START], "prefix": []}

    def sampled(seed: int, **options: Any) -> list[int]:
        config = GenerationConfig(do_sample=True, num_return_sequences=100, max_length=1, seed=seed, **options)
        found = run(modules, "generation", IN_JAVASCRIPT, [TABLE.tolist(), config.to_dict(), limits])
        return [each["ids"][0] if each["ids"] else END for each in found]

    assert sampled(1) == sampled(1) != sampled(2)
    drawn = [word for seed in range(20) for word in sampled(seed, min_length=1)]
    shares = np.bincount(drawn, minlength=WORDS) / len(drawn)
    possible = TABLE[0, START].exp().clone()
    possible[[START, END]] = 0
    assert np.abs(shares - (possible / possible.sum()).numpy()).max() < 4 * math.sqrt(0.25 / len(drawn))
    order = TABLE[0, START].index_fill(0, torch.tensor([START]), -math.inf).argsort(descending=True).tolist()
    assert set(sampled(3, top_k=2, temperature=9.0)) == set(order[:2])
    shares = possible.index_fill(0, torch.tensor([END]), float(TABLE[0, START, END].exp()))[order]
    nucleus = order[: 1 + int((shares.cumsum(0) / shares.sum() < 0.8).sum())]
    assert len(nucleus) > 1 and set(sampled(3, top_p=0.8)) == set(nucleus)
    assert len(set(sampled(3, temperature=0.01))) == 1


@pytest.mark.parametrize("length", ["Normal", "Shorter", "Longer"])
@pytest.mark.parametrize("style", ["Most likely", "More varied"])
@pytest.mark.parametrize("several", [False, True])
def test_what_a_visitor_asks_becomes_the_same_settings(
    modules: Page, length: str, style: str, several: bool, tiny_captioner: ImageCaptioner
) -> None:
    for prefix, bad_words, words in (("", "", 7), ("a brown", "dog, Fence", 7), ("a", " grass", 2)):
        request = CaptionRequest(prefix, bad_words, length, style, several, 5)
        expected = tiny_captioner.prepare_generation_config(generation_options(tiny_captioner, request, words))
        own, file = tiny_captioner.generation_config.to_dict(), json.loads(tiny_captioner.tokenizer.to_json())
        code = "m.generationConfig(x[0], x[1], (await import(new URL('page/device/tokenizer.js', document.baseURI)))"
        code += ".createTokenizer(x[2]), x[3])"
        found = run(modules, "recaption", code, [own, vars(request), file, words])
        unused = {"num_beams"} if style == "More varied" else set()
        expected_dict = json.loads(json.dumps(expected.to_dict()))
        assert {k: v for k, v in found.items() if k not in unused} == {
            k: v for k, v in expected_dict.items() if k not in unused
        }


def test_the_same_captions_are_the_most_different(modules: Page) -> None:
    chosen = random.Random(1)
    for _ in range(100):
        sentences = [
            [chosen.choice("a dog runs in the green grass".split()) for _ in range(chosen.randint(0, 8))]
            for _ in range(chosen.randint(1, 8))
        ]
        captions = [Caption(" ".join(each), tuple(map(word, each)), 0.0) for each in sentences]
        asked = [{"caption": c.text, "words": [{"text": w.text} for w in c.words]} for c in captions]
        found = run(modules, "recaption", "m.mostDifferent(x)", asked)
        assert [each["caption"] for each in found] == [each.text for each in most_different(captions)]


def word(text: str) -> Any:
    return Word(text, 0.5, np.ones((1, 1), np.float32), ())
