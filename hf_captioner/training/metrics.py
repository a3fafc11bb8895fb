"""BLEU, METEOR, ROUGE-L and CIDEr as an `evaluate.Metric`, on pycocoevalcap with its PTB tokenisation.

References are given raw, as people wrote them; predictions and references go through the same Penn Treebank tokeniser,
the one of the COCO caption evaluation. Scores are fractions: a CIDEr of 0.52 is what tables print as 52.
"""

import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import evaluate
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

PTB = "PTB"
PLAIN = "plain words (no Java: not comparable with PTB scores)"
NO_JAVA = (
    "No `java` on this machine: METEOR is left out and sentences are split by a plain rule, so these scores are not "
    "comparable with others. Install a Java runtime (Debian: openjdk-17-jre-headless)."
)

Sentences = dict[int, list[str]]


def has_java() -> bool:
    """Whether the PTB tokeniser and METEOR, which are Java programs, can run."""
    return shutil.which("java") is not None


def tokenization() -> str:
    """How `CaptionMetric` splits sentences on this machine."""
    return PTB if has_java() else PLAIN


class CaptionMetric(evaluate.Metric):
    """predictions: sentences; references: for each the list of sentences that people wrote.

    compute(predictions=..., references=..., meteor=True) returns {"BLEU-1": ..., ..., "CIDEr": ...}; METEOR needs Java
    and, with `meteor=False`, is not computed (it takes ten seconds to start).
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The COCO caption metrics without SPICE.",
            citation="Chen et al. 2015, Microsoft COCO Captions: Data Collection and Evaluation Server",
            inputs_description=str(self.__doc__),
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}
            ),
        )

    def _compute(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]], meteor: bool = True
    ) -> dict[str, float]:
        written, found = _tokenized(references), _tokenized([[sentence] for sentence in predictions])
        bleu, _ = Bleu(4).compute_score(written, found, verbose=0)
        scores = {f"BLEU-{n}": float(value) for n, value in enumerate(bleu, 1)}
        if meteor and has_java():
            scores["METEOR"] = _meteor(written, found)
        scores["ROUGE-L"] = float(Rouge().compute_score(written, found)[0])
        scores["CIDEr"] = float(Cider().compute_score(written, found)[0])
        return scores


def caption_scores(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, meteor: bool = True
) -> dict[str, float]:
    """`CaptionMetric` of sentences in memory."""
    scores: dict[str, float] = CaptionMetric().compute(
        predictions=list(predictions), references=[list(sentences) for sentences in references], meteor=meteor
    )
    return scores


def cider_of_each(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """The CIDEr of each sentence; their mean is the CIDEr of `caption_scores`."""
    _, each = Cider().compute_score(_tokenized(references), _tokenized([[sentence] for sentence in predictions]))
    return [float(value) for value in each]


def _tokenized(sentences: Sequence[Sequence[str]]) -> Sentences:
    one_line = [[" ".join(sentence.split()) for sentence in group] for group in sentences]
    if not has_java():
        return {i: [" ".join(re.findall(r"[^\W_]+", s.lower())) for s in group] for i, group in enumerate(one_line)}
    with _english_java(), _quiet():
        tokenized: Sentences = PTBTokenizer().tokenize(
            {i: [{"caption": sentence} for sentence in group] for i, group in enumerate(one_line)}
        )
    return tokenized


def _meteor(written: Sentences, found: Sentences) -> float:
    with _english_java(), _quiet():
        meteor = Meteor()
        try:
            return float(meteor.compute_score(written, found)[0])
        finally:
            meteor.meteor_p.stdin.close()
            meteor.meteor_p.stdout.close()
            meteor.meteor_p.stderr.close()
            meteor.meteor_p.kill()
            meteor.meteor_p.wait()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what Java prints on stderr, unless the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def _english_java() -> Iterator[None]:
    """METEOR prints numbers in the machine's locale and reads them in English: a decimal comma would break it."""
    before: Any = os.environ.get("JAVA_TOOL_OPTIONS")
    os.environ["JAVA_TOOL_OPTIONS"] = f"{before or ''} -Duser.language=en -Duser.country=US".strip()
    try:
        yield
    finally:
        if before is None:
            del os.environ["JAVA_TOOL_OPTIONS"]
        else:
            os.environ["JAVA_TOOL_OPTIONS"] = before
