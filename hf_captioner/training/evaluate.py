"""Caption a split and score the captions, of each data set apart: `hf-captioner evaluate DATA [DATA ...]`."""

import argparse
import contextlib
import dataclasses
import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from hf_captioner.atomic import write_text
from hf_captioner.caption import Caption
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.config import GenerationConfig
from hf_captioner.errors import ConfigError, ImageError
from hf_captioner.hub.card import update_evaluation
from hf_captioner.hub.evaluation import Evaluation, Scores, without_paths
from hf_captioner.modeling.encoder import FeatureMap
from hf_captioner.training.agreed_words import says_agreed_word
from hf_captioner.training.command import checkpoint_folder, measured_split
from hf_captioner.training.data import Record, by_data_set
from hf_captioner.training.feature_cache import FeatureCache
from hf_captioner.training.rows import counted

logger = logging.getLogger(__name__)

BAD_ENDINGS = frozenset(
    ["a", "an", "the", "of", "in", "on", "at", "to", "with", "and", "by", "for", "from", "is", "are"]
)
PHRASE = 3
"""Words that, said twice in a row or more in one caption, count as a repeated phrase."""


def caption_records(
    captioner: ImageCaptioner,
    records: Sequence[Record],
    *,
    features: FeatureCache | None = None,
    batch_size: int = 32,
    **generation: Any,
) -> list[Caption]:
    """The best caption of each record, from cached features where they are given; `generation` as in `caption`."""
    generation["num_return_sequences"] = 1
    if features is None:
        return captioner.caption([record.path for record in records], batch_size=batch_size, **generation)
    found: list[Caption] = []
    generation_config = captioner.prepare_generation_config(generation)
    height, width = captioner.encoder.height, captioner.encoder.width
    for start in range(0, len(records), batch_size):
        chunk = range(start, min(start + batch_size, len(records)))
        values = torch.stack([features[index] for index in chunk]).float().to(captioner.device)
        found += captioner.caption_features(FeatureMap(values, height, width), generation_config)
    return found


def score(captions: Sequence[str], records: Sequence[Record], *, meteor: bool = True) -> dict[str, float]:
    """The caption metrics of one sentence a record against all of the record's captions."""
    from hf_captioner.training.metrics import caption_scores

    return caption_scores(captions, [record.captions for record in records], meteor=meteor)


def apart(captions: Sequence[str], records: Sequence[Record]) -> dict[str, tuple[list[str], list[Record]]]:
    """The captions and records of each data set, by what the log calls it."""
    found: dict[str, tuple[list[str], list[Record]]] = {}
    for caption, record in zip(captions, records, strict=True):
        said, own = found.setdefault(record.data_set, ([], []))
        said.append(caption)
        own.append(record)
    return found


def score_each(
    captions: Sequence[str], records: Sequence[Record], *, meteor: bool = True
) -> dict[str, dict[str, float]]:
    """`score` of each data set, by what the log calls it."""
    return {name: score(said, own, meteor=meteor) for name, (said, own) in apart(captions, records).items()}


def mean_scores(each: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The plain mean of every metric over the data sets: a small one counts as much as a large one."""
    first = next(iter(each.values()))
    return {metric: sum(scores[metric] for scores in each.values()) / len(each) for metric in first}


def cider_of_records(captions: Sequence[str], records: Sequence[Record]) -> list[float]:
    """The CIDEr of each caption, with the document frequencies of its own data set."""
    from hf_captioner.training.metrics import cider_of_each

    found = {
        name: iter(cider_of_each(said, [record.captions for record in own]))
        for name, (said, own) in apart(captions, records).items()
    }
    return [next(found[record.data_set]) for record in records]


def describe(captions: Sequence[str]) -> dict[str, float]:
    """Statistics beside the metrics: variety, length, unfinished sentences, repeated phrases."""
    words = [caption.split() for caption in captions]
    return {
        "different captions": len(set(captions)),
        "words a caption": sum(map(len, words)) / len(words),
        "end in an article or preposition": sum(sentence[-1] in BAD_ENDINGS for sentence in words if sentence),
        "repeat a phrase": sum(_repeats(sentence) for sentence in words),
    }


def _repeats(words: Sequence[str]) -> bool:
    phrases = Counter(tuple(words[i : i + PHRASE]) for i in range(len(words) - PHRASE + 1))
    return bool(phrases) and max(phrases.values()) > 1


def run(options: argparse.Namespace) -> int:
    """`hf-captioner evaluate`; `options.generation` holds the generation fields that were given, `options.computing`
    where and in what it computes.

    Returns 0. Raises CaptionerError or OSError for what a user can cause.
    """
    from hf_captioner.training.metrics import NO_JAVA, has_java

    folder = None
    if options.write_results:
        folder = checkpoint_folder(options.model)
        _require_own_settings(options)
    captioner = ImageCaptioner.from_pretrained(options.model, **options.computing)
    records = measured_split(options, captioner, options.split, options.limit)
    generation = {**options.generation, "num_return_sequences": 1}
    began = time.perf_counter()
    captions = _captions(captioner, records, options.batch_size, generation)
    seconds = (time.perf_counter() - began) / len(records)
    scores = score_each(captions, records)
    for name, (said, own) in apart(captions, records).items():
        print(f"\n{name}:\n\n" if len(scores) > 1 else "", end="")
        _print_table(scores[name], said, own, seconds, captioner.prepare_generation_config(generation))
    if len(scores) > 1:
        print(f"\nmean CIDEr of the {len(scores)} data sets: {100 * mean_scores(scores)['CIDEr']:.1f}")
    print(f"command: {options.command}")
    if not has_java():
        logger.warning(NO_JAVA)
    if folder is not None:
        places = dict.fromkeys(options.data, "DATA")
        places |= {options.model: "MODEL", options.splits: "FILE", options.save: "FILE"}
        here = {
            str(given): what for given, what in places.items() if given and (what == "FILE" or Path(given).exists())
        }
        command = without_paths(options.command, here)
        measured = with_scores(captioner.evaluation, scores, records, options.split, command)
        update_evaluation(folder, scores=measured.scores)
    if options.save:
        rows = [
            {"image": record.path.name, "caption": caption, "references": record.captions}
            | ({"data_set": record.data_set} if len(scores) > 1 else {})
            for record, caption in zip(records, captions, strict=True)
        ]
        write_text(options.save, json.dumps(rows, indent=1, ensure_ascii=False))
    return 0


def with_scores(
    evaluation: Evaluation,
    scores: Mapping[str, Mapping[str, float]],
    records: Sequence[Record],
    split: str,
    command: str,
) -> Evaluation:
    """The evaluation with the scores of each data set, and with the command that measured them."""
    from hf_captioner.training.metrics import tokenization

    for name, own in by_data_set(records).items():
        rounded = {metric: round(value, 6) for metric, value in scores[name].items()}
        measured = Scores(own[0].card_name, split, rounded, tokenization(), command, len(own))
        evaluation = dataclasses.replace(evaluation, scores=evaluation.with_scores(measured))
    return evaluation


def _captions(
    captioner: ImageCaptioner, records: Sequence[Record], batch_size: int, generation: dict[str, Any]
) -> list[str]:
    paths, captions = [record.path for record in records], []
    with contextlib.closing(captioner.stream(paths, batch_size=batch_size, **generation)) as results:
        for result in tqdm(results, total=len(paths), unit=" images", dynamic_ncols=True):
            if isinstance(result, ImageError):
                raise result
            captions.append(result.text)
    return captions


def _require_own_settings(options: argparse.Namespace) -> None:
    """Raise ConfigError unless the scores will be those of the checkpoint as it is."""
    given = [*options.generation, *(["limit"] if options.limit else [])]
    given += ["dtype"] if options.dtype not in ("auto", "float32") else []
    if given:
        raise ConfigError(
            "--write-results measures the whole split in float32 under the checkpoint's own generation settings; "
            f"leave out {', '.join(given)}."
        )


def _print_table(
    scores: Mapping[str, float],
    captions: Sequence[str],
    records: Sequence[Record],
    seconds: float,
    generation: GenerationConfig,
) -> None:
    from hf_captioner.training.metrics import tokenization

    print(f"| {' | '.join(scores)} |\n|{'---|' * len(scores)}")
    print(f"| {' | '.join(f'{100 * value:.1f}' for value in scores.values())} |\n")
    print(f"images: {len(captions)}; tokenisation: {tokenization()}; {1000 * seconds:.0f} ms an image")
    settings = ("num_beams", "length_penalty", "no_repeat_ngram_size")
    print(", ".join(f"{name} {getattr(generation, name)}" for name in settings))
    for name, value in describe(captions).items():
        print(f"{name}: {value:.4g}")
    if says := says_agreed_word(captions, [record.captions for record in records]):
        print(f"say an agreed word: {100 * sum(says) / len(says):.1f} % of {counted(len(says), 'image')}")
