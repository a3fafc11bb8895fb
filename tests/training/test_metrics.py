"""The metrics are pycocoevalcap's own numbers, and say so where they cannot be."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from hf_captioner.training.metrics import PTB, caption_scores, cider_of_each, tokenization

FOUND = ["a brown dog runs through the grass", "two men talk", "a girl in a pink dress"]
WRITTEN = [
    ["A brown dog runs through tall grass .", "The dog's running !"],
    ["Two men, talking on a bench .", "Men talk"],
    ["A little girl in a pink dress .", "A girl wearing pink"],
]
needs_java = pytest.mark.skipif(
    shutil.which("java") is None, reason="needs Java: apt-get install openjdk-17-jre-headless"
)


@needs_java
def test_the_numbers_are_pycocoevalcaps_own() -> None:
    tokenizer = PTBTokenizer()
    written = tokenizer.tokenize({i: [{"caption": s} for s in group] for i, group in enumerate(WRITTEN)})
    found = tokenizer.tokenize({i: [{"caption": s}] for i, s in enumerate(FOUND)})
    scores = caption_scores(FOUND, WRITTEN)
    bleu, _ = Bleu(4).compute_score(written, found, verbose=0)
    assert [scores[f"BLEU-{n}"] for n in range(1, 5)] == pytest.approx(bleu, abs=1e-12)
    assert scores["ROUGE-L"] == pytest.approx(float(Rouge().compute_score(written, found)[0]), abs=1e-12)
    assert scores["CIDEr"] == pytest.approx(float(Cider().compute_score(written, found)[0]), abs=1e-12)
    each = cider_of_each(FOUND, WRITTEN)
    assert sum(each) / len(each) == pytest.approx(scores["CIDEr"], abs=1e-12)
    assert 0.3 < scores["METEOR"] < 0.6
    assert tokenization() == PTB
    assert "METEOR" not in caption_scores(FOUND, WRITTEN, meteor=False)


@needs_java
def test_a_perfect_caption_scores_one_and_an_empty_one_nought() -> None:
    perfect = caption_scores([w[0] for w in WRITTEN], [[w[0]] for w in WRITTEN])
    assert perfect["BLEU-4"] == pytest.approx(1, abs=1e-6)
    assert perfect["ROUGE-L"] == pytest.approx(1)
    assert perfect["METEOR"] == pytest.approx(1, abs=0.01)
    nothing = caption_scores(["", "", ""], WRITTEN)
    assert max(nothing.values()) < 1e-6


@needs_java
def test_line_breaks_and_case_do_not_matter() -> None:
    broken = [sentence.upper().replace(" ", "\u2028\n") for sentence in FOUND]
    assert caption_scores(broken, WRITTEN, meteor=False) == caption_scores(FOUND, WRITTEN, meteor=False)


def test_one_bigram_of_two_by_hand() -> None:
    """`a b c` against `a b d`: 2 of 3 words, 1 of 2 pairs; the geometric mean of 2/3 and 1/2."""
    scores = caption_scores(["alpha beta gamma"], [["alpha beta delta"]], meteor=False)
    assert scores["BLEU-1"] == pytest.approx(2 / 3, abs=1e-6)
    assert scores["BLEU-2"] == pytest.approx((2 / 3 * 1 / 2) ** 0.5, abs=1e-6)


def test_without_java_the_other_metrics_come_and_are_marked() -> None:
    code = (
        "import json; from hf_captioner.training.metrics import *;"
        f"print(json.dumps([caption_scores({FOUND!r}, {WRITTEN!r}), tokenization(), has_java()]))"
    )
    environment = os.environ | {"PATH": "/nowhere"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    scores, how, java = json.loads(done.stdout)
    assert not java
    assert list(scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    assert "not comparable" in how


def test_mismatched_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="Mismatch"):
        caption_scores(FOUND[:2], WRITTEN)
