"""Caption a split and score it.

`python -m hf_captioner.training.evaluate --data DIR [--model ID] [--split validation] [any search flag]`
"""

import argparse
import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from hf_captioner.caption import Caption
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.config import GenerationConfig
from hf_captioner.errors import CheckpointError, ConfigError, DataError, ImageError
from hf_captioner.flags import add_generation_flags, generation_options
from hf_captioner.hub.card import update_evaluation
from hf_captioner.hub.evaluation import Scores
from hf_captioner.hub.packaged import bundled_checkpoint
from hf_captioner.modeling.encoder import FeatureMap
from hf_captioner.training.data import Record, load_split
from hf_captioner.training.feature_cache import FeatureCache
from hf_captioner.training.metrics import NO_JAVA, caption_scores, has_java, tokenization

BAD_ENDINGS = frozenset(
    ["a", "an", "the", "of", "in", "on", "at", "to", "with", "and", "by", "for", "from", "is", "are"]
)
PHRASE = 3
"""Words that, said twice in a row or more in one caption, count as a repeated phrase."""


def caption_records(
    captioner: ImageCaptioner,
    records: Sequence[Record],
    *,
    grids: FeatureCache | None = None,
    batch_size: int = 32,
    **search: Any,
) -> list[Caption]:
    """The best caption of each record, from cached grids where they are given; `search` as in `caption`."""
    search["num_return_sequences"] = 1
    if grids is None:
        return captioner.caption([record.path for record in records], batch_size=batch_size, **search)
    found: list[Caption] = []
    settings = captioner.prepare_generation_config(search)
    device = captioner.decoder.embedding.weight.device
    height, width = captioner.encoder.height, captioner.encoder.width
    for start in range(0, len(records), batch_size):
        chunk = range(start, min(start + batch_size, len(records)))
        values = torch.stack([grids[index] for index in chunk]).float().to(device)
        found += captioner.caption_features(FeatureMap(values, height, width), settings)
    return found


def score(captions: Sequence[str], records: Sequence[Record], *, meteor: bool = True) -> dict[str, float]:
    """The caption metrics of one sentence a record against all of the record's captions."""
    return caption_scores(captions, [record.captions for record in records], meteor=meteor)


def describe(captions: Sequence[str]) -> dict[str, float]:
    """What the metrics do not see: variety, length, unfinished sentences, repeated phrases."""
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


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hf_captioner.training.evaluate", description=__doc__)
    parser.add_argument("--data", nargs=1, required=True, help="images and captions; see train/data.py")
    parser.add_argument("--model", help="folder or Hub id; without it the bundled checkpoint")
    parser.add_argument("--split", default="validation", choices=("train", "validation", "test"))
    parser.add_argument("--splits", type=Path, help="splits.json of the training run, where the data names no splits")
    parser.add_argument("--dataset", help="what the card calls the data; without it, the name of its folder or file")
    parser.add_argument("--limit", type=int, help="only the first so many images (CIDEr then means less)")
    parser.add_argument("--save", type=Path, help="write every caption to this JSON file")
    parser.add_argument(
        "--write-results", action="store_true", help="put the scores into the checkpoint's config and card"
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    add_generation_flags(parser)
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parser.parse_args(arguments)
    options.generation = generation_options(options)
    options.command = f"python -m hf_captioner.training.evaluate {shlex.join(arguments)}"
    try:
        return run(options)
    except (CheckpointError, ConfigError, DataError, ImageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def run(options: argparse.Namespace) -> int:
    """Evaluate as the options of `hf-captioner evaluate` say; `options.generation` holds the fields of GenerationConfig
    that were given. Raises CaptionerError or OSError."""
    data = Path(options.data[0])
    folder = Path(options.model) if options.model else bundled_checkpoint()
    if options.write_results and not folder.is_dir():
        raise CheckpointError(f"--write-results needs a local checkpoint folder; {folder} is none.")
    search, rounded_down = options.generation, options.dtype not in ("auto", "float32")
    if options.write_results and (search or options.limit or rounded_down):
        given = ", ".join([*search, *["limit"] * bool(options.limit), *["dtype"] * rounded_down])
        raise ConfigError(
            f"--write-results measures the whole split under the checkpoint's own search; leave out {given}."
        )
    records = load_split(data, options.split, split_file=options.splits, model=options.model)[: options.limit]
    captioner = ImageCaptioner.from_pretrained(options.model, device=options.device, dtype=options.dtype)
    began = time.perf_counter()
    paths = tqdm([record.path for record in records], unit="image", dynamic_ncols=True)
    captions = []
    for result in captioner.stream(paths, batch_size=options.batch_size, **search, num_return_sequences=1):
        if isinstance(result, ImageError):
            raise result
        captions.append(str(result))
    seconds = (time.perf_counter() - began) / len(records)
    scores = score(captions, records)
    used = captioner.prepare_generation_config({**search, "num_return_sequences": 1})
    _print_table(scores, captions, seconds, used, options.command)
    if not has_java():
        print(NO_JAVA, file=sys.stderr)
    if options.write_results:
        rounded = {name: round(value, 6) for name, value in scores.items()}
        dataset = options.dataset or data.resolve().stem
        scores_of = Scores(dataset, options.split, rounded, tokenization(), options.command, len(records))
        update_evaluation(folder, scores=captioner.evaluation.with_scores(scores_of))
    if options.save:
        rows = [
            {"image": record.path.name, "caption": caption, "references": record.captions}
            for record, caption in zip(records, captions, strict=True)
        ]
        options.save.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    return 0


def _print_table(
    scores: dict[str, float], captions: Sequence[str], seconds: float, search: GenerationConfig, command: str
) -> None:
    print(f"| {' | '.join(scores)} |\n|{'---|' * len(scores)}")
    print(f"| {' | '.join(f'{100 * value:.1f}' for value in scores.values())} |\n")
    print(f"images: {len(captions)}; tokenisation: {tokenization()}; {1000 * seconds:.0f} ms an image")
    ngram = search.no_repeat_ngram_size
    print(f"beams {search.num_beams}, length penalty {search.length_penalty}, no repeated {ngram}-gram")
    for name, value in describe(captions).items():
        print(f"{name}: {value:.4g}")
    print(f"command: {command}")


if __name__ == "__main__":
    sys.exit(main())
