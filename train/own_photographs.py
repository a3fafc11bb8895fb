"""What 120 photographs of one's own teach: `python -m train.own_photographs --data DATA --old OLD --out DIR`.

Of the training photographs of DATA it takes such as hold words that the captioner lacks, trains the captioner further
on them as `hf-captioner train` does, and prints what that brought and what it cost: how often the captioner says a new
word of the photographs that were not taken and whose captions name one; and the CIDEr on the validation images of OLD,
which the captioner was trained on before. Started again it goes on.
"""

import argparse
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hf_captioner import cli
from hf_captioner.atomic import write_text
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.errors import CaptionerError, DataError
from hf_captioner.modeling.tokenizer import CaptionTokenizer
from hf_captioner.training.command import run_command
from hf_captioner.training.data import Record, load_records
from hf_captioner.training.evaluate import caption_records, score
from hf_captioner.training.feature_cache import cached_features

MOST = 10
"""Photographs that are taken for the sake of one word."""
SHOWN = 10
"""Captions that are printed."""


@dataclass(frozen=True)
class Learned:
    """What a captioner says of photographs that it was not trained on, and whose captions name a new word."""

    said: int
    """Captions with a new word."""
    right: int
    """Captions with a new word that a person used of that photograph."""
    examples: list[str]


def choose(records: Sequence[Record], tokenizer: CaptionTokenizer, photographs: int) -> list[Record]:
    """Photographs with words that the vocabulary lacks.

    The words in turn, the one of most photographs first, then by alphabet; of each the first MOST among every other
    photograph of the data, so that as many are left to ask about. Raises DataError where there are not enough.
    """
    holds = defaultdict(list)
    for index, record in enumerate(records):
        for word in words_of(record, tokenizer):
            if not tokenizer.knows(word):
                holds[word].append(index)
    chosen: dict[int, None] = {}
    for word in sorted(holds, key=lambda word: (-len(holds[word]), word)):
        chosen |= dict.fromkeys([index for index in holds[word] if index % 2 == 0][:MOST])
    if len(chosen) < photographs:
        raise DataError(f"The data has {len(chosen)} such photographs with new words; give --photographs fewer.")
    return [records[index] for index in list(chosen)[:photographs]]


def words_of(record: Record, tokenizer: CaptionTokenizer) -> set[str]:
    return {word for caption in record.captions for word in tokenizer.split(caption)}


def train(photographs: Sequence[Record], init: str | None, out: Path) -> Path:
    """Train further on these photographs alone, as anybody would; the folder of the captioner."""
    folder = out / "photographs"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"file_name": record.path.name, "captions": record.captions}) for record in photographs]
    for record in photographs:
        shutil.copy2(record.path, folder / record.path.name)
    write_text(folder / "metadata.jsonl", "\n".join(rows) + "\n")
    start = [] if init is None else ["--init", init]
    if cli.main(["train", str(folder), "--out", str(out / "mine"), *start]):
        raise CaptionerError("The training ended with the error above; nothing was measured.")
    return out / "mine" / "best"


def compare(captions: Sequence[str], held_out: Sequence[Record], new: set[str], tokenizer: CaptionTokenizer) -> Learned:
    spoken = [new & {*caption.split()} for caption in captions]
    right = [words & words_of(record, tokenizer) for words, record in zip(spoken, held_out, strict=True)]
    examples = [
        f"{record.path.name}: {caption} (a person: {record.captions[0]})"
        for record, caption, words in zip(held_out, captions, spoken, strict=True)
        if words
    ]
    return Learned(sum(map(bool, spoken)), sum(map(bool, right)), examples[:SHOWN])


def say(captioner: ImageCaptioner, records: Sequence[Record], features: Path) -> list[str]:
    """A caption of each record; features: where feature maps are cached, the same for captioners of one encoder."""
    paths = [record.path for record in records]
    cache = cached_features(captioner.encoder, captioner.config, paths, features)
    return [caption.text for caption in caption_records(captioner, records, features=cache)]


def run(options: argparse.Namespace) -> None:
    before = ImageCaptioner.from_pretrained(options.init)
    records = [record for record in load_records(options.data) if record.split == "train"]
    photographs = choose(records, before.tokenizer, options.photographs)
    after = ImageCaptioner.from_pretrained(train(photographs, options.init, options.out))
    new = {*after.tokenizer.words[len(before.tokenizer) :]}
    taken = {record.path for record in photographs}
    held_out = [record for record in records if record.path not in taken and new & words_of(record, after.tokenizer)]
    features = options.out / "features"
    learned = compare(say(after, held_out, features), held_out, new, after.tokenizer)
    old = [record for record in load_records(options.old) if record.split == "validation"][: options.limit]
    was, now = (100 * score(say(captioner, old, features), old, meteor=False)["CIDEr"] for captioner in (before, after))
    print(f"{len(photographs)} photographs added {len(new)} words")
    print(f"{len(held_out)} others have captions that name a new word: {learned.said} get a caption with a new word,")
    print(f"{learned.right} with one that a person used of that photograph; the first {len(learned.examples)}:")
    print(*(f"  {example}" for example in learned.examples), sep="\n")
    print(f"CIDEr on {len(old)} validation images of the old data: {was:.1f} before, {now:.1f} after")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.own_photographs", description=__doc__)
    parser.add_argument("--data", required=True, help="images and captions, with splits")
    parser.add_argument("--old", required=True, help="the data that the captioner was trained on, with splits")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the photographs and the captioner")
    parser.add_argument("--init", metavar="ID", help="a captioner's folder or Hub id (default: the bundled one)")
    parser.add_argument("--photographs", type=int, default=120, help="how many are taken (default: 120)")
    parser.add_argument("--limit", type=int, help="validation images of the old data (default: all)")
    options = parser.parse_args(argv)
    return run_command("own_photographs", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
