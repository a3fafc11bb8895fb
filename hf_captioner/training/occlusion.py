"""Is the attention true? `python -m hf_captioner.training.occlusion --data DIR [--model ID] [--limit N] [--write]`.

For each content word of each validation caption a fifth of the image is painted over with its mean colour: the fifth
that the word attended to most, the least attended one, and a random one. Where the word rests on what was looked at,
its probability falls most in the first case. The words before it are given, so only the image differs. With --write
the figures go into the checkpoint's config and card.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_packed_sequence
from tqdm import tqdm

from hf_captioner.caption import Caption
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.errors import CheckpointError, ConfigError, DataError, ImageError
from hf_captioner.hub.card import update_evaluation
from hf_captioner.hub.evaluation import OCCLUDED_REGIONS, Occlusion
from hf_captioner.hub.packaged import bundled_checkpoint
from hf_captioner.images import occlude, read_pixels
from hf_captioner.modeling.encoder import FeatureMap
from hf_captioner.training.data import Record, load_split
from hf_captioner.training.dataset import padded
from hf_captioner.training.evaluate import score

SHARE = 0.2
"""Of the grid's cells that are painted over."""
FUNCTION_WORDS = frozenset(
    """
    a an the of in on at to with and or by for from is are be being was were has have his her their its he she it they
    him them this that these those who which while as into onto over under up down out off near next through across
    behind front around along other another some two three four
    """.split()
)


class OcclusionTally:
    """Sums over content words: how far the probability fell, and how often the caption became another."""

    def __init__(self) -> None:
        self.words, self._before, self._after, self._fell, self._changed = 0, 0.0, 0.0, 0, 0

    def add(self, before: Sequence[float], after: Sequence[float], changed: Sequence[bool]) -> None:
        self.words += len(before)
        self._before += sum(before)
        self._after += sum(after)
        self._fell += sum(now < 0.5 * then for then, now in zip(before, after, strict=True))
        self._changed += sum(changed)

    @property
    def before(self) -> float:
        """Mean probability of the words on the whole image."""
        return self._before / self.words

    @property
    def after(self) -> float:
        """The same with a part hidden."""
        return self._after / self.words

    @property
    def changed(self) -> float:
        """Share of the captions that became another."""
        return self._changed / self.words

    def row(self, name: str) -> str:
        fell = 100 * self._fell / self.words
        return f"| {name} | {self.before:.3f} | {self.after:.3f} | {fell:.1f} | {100 * self.changed:.1f} |"


@torch.inference_mode()
def measure_occlusion(captioner: ImageCaptioner, records: Sequence[Record], seed: int = 1) -> dict[str, OcclusionTally]:
    """The tally for each way of hiding a fifth of every record's image. Raises DataError without content words."""
    generator = torch.Generator().manual_seed(seed)
    tallies = {name: OcclusionTally() for name in OCCLUDED_REGIONS}
    for record in tqdm(records, unit="image", dynamic_ncols=True):
        pixels = read_pixels(record.path, captioner.config)
        caption = captioner.caption_features(captioner.encode(pixels[None]), captioner.generation_config)[0]
        content = [i for i, word in enumerate(caption.words) if word.text not in FUNCTION_WORDS]
        if not content:
            continue
        cells = torch.stack([_hidden_cells(caption, i, generator) for i in content])  # (content words, 3, N)
        grid = captioner.encode(occlude(pixels, cells.view(-1, *caption.words[0].attention.shape)))
        probabilities = _word_probabilities(captioner, caption, grid).unflatten(
            0, (len(content), len(OCCLUDED_REGIONS))
        )
        untouched = _word_probabilities(captioner, caption, captioner.encode(pixels[None]))[0]
        texts = [caption.text for caption in captioner.caption_features(grid, captioner.generation_config)]
        for way, name in enumerate(OCCLUDED_REGIONS):
            after = [float(probabilities[place, way, word]) for place, word in enumerate(content)]
            changed = [text != caption.text for text in texts[way :: len(OCCLUDED_REGIONS)]]
            tallies[name].add([float(untouched[word]) for word in content], after, changed)
    if not tallies[OCCLUDED_REGIONS[0]].words:
        raise DataError("No caption has a content word, so there is nothing to measure.")
    return tallies


def _hidden_cells(caption: Caption, word: int, generator: torch.Generator) -> Tensor:
    """(3, N) bool: the cells hidden in each of the three ways."""
    attention = torch.from_numpy(caption.words[word].attention).flatten()
    count = round(SHARE * len(attention))
    order = attention.argsort(descending=True)
    chosen = (order[:count], torch.randperm(len(attention), generator=generator)[:count], order[-count:])
    return torch.stack([torch.zeros(len(attention), dtype=torch.bool).index_fill(0, cells, True) for cells in chosen])


def _word_probabilities(captioner: ImageCaptioner, caption: Caption, grid: FeatureMap) -> Tensor:
    """(R, T): the probability of each of the caption's words, given those before it, on each of the R grids."""
    ids = [captioner.tokenizer.encode(word.text)[0] for word in caption.words]
    rows = len(grid.values)
    words, targets, lengths = padded([ids] * rows)
    logits, _ = captioner.decoder.teacher_forced(grid, words, lengths)
    log_probs, _ = pad_packed_sequence(logits, batch_first=True)
    return log_probs.float().softmax(-1).gather(2, targets[:, :, None]).squeeze(2)


def mean_image(captioner: ImageCaptioner, records: Sequence[Record]) -> tuple[str, float]:
    """What the captioner says of the mean of the images, and the CIDEr of saying it of each of them."""
    total = torch.zeros(3, captioner.config.image_size, captioner.config.image_size)
    for record in records:
        total += read_pixels(record.path, captioner.config)
    grid = captioner.encode((total / len(records))[None])
    text = captioner.caption_features(grid, captioner.generation_config)[0].text
    return text, score([text] * len(records), records, meteor=False)["CIDEr"]


def _figures(images: int, tallies: dict[str, OcclusionTally], text: str, cider: float) -> Occlusion:
    whole = tallies[OCCLUDED_REGIONS[0]]
    hidden = {name: round(tally.after, 4) for name, tally in tallies.items()}
    changed = {name: round(tally.changed, 4) for name, tally in tallies.items()}
    return Occlusion(images, whole.words, round(whole.before, 4), hidden, changed, text, round(cider, 4))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hf_captioner.training.occlusion", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="images and captions; see train/data.py")
    parser.add_argument("--model", help="folder or Hub id; without it the bundled checkpoint")
    parser.add_argument("--splits", type=Path, help="splits.json of the training run, where the data names no splits")
    parser.add_argument("--limit", type=int, help="only the first so many images")
    parser.add_argument("--write", action="store_true", help="put the figures into the checkpoint's config and card")
    options = parser.parse_args(argv)
    folder = Path(options.model) if options.model else bundled_checkpoint()
    try:
        if options.write and (options.limit or not folder.is_dir()):
            raise ConfigError("--write needs a local checkpoint folder and the whole split; leave out --limit.")
        records = load_split(options.data, "validation", split_file=options.splits, model=options.model)[
            : options.limit
        ]
        captioner = ImageCaptioner.from_pretrained(options.model)
        if captioner.config.attention == "none":
            raise ConfigError("This captioner has no attention, so there is nothing to test.")
        tallies = measure_occlusion(captioner, records)
        text, cider = mean_image(captioner, records)
        print(f"{len(records)} images, {tallies[OCCLUDED_REGIONS[0]].words} content words\n")
        print("| hidden | probability before | after | fell by half, % | caption changed, % |\n|---|---|---|---|---|")
        print("\n".join(tally.row(name) for name, tally in tallies.items()))
        print(f"\nOf the mean image it says: {text} (CIDEr {100 * cider:.1f} if said of every image)")
        if options.write:
            update_evaluation(folder, occlusion=_figures(len(records), tallies, text, cider))
    except (CheckpointError, ConfigError, DataError, ImageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
