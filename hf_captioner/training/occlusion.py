"""Does attention mark the evidence?

`python -m hf_captioner.training.occlusion --data DATA [DATA ...] [--model ID] [--write]`

For each content word of the captions of validation images, the first 100 of each data set, a fifth of the image is
occluded with its mean colour: the fifth that the word attended to most, the least attended one, and a random one. Then
the word is scored again after the same prefix. Where the word rests on what was attended to, its probability falls most
in the first case. --write stores the results in the checkpoint's evaluation.json and card.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_packed_sequence
from tqdm import tqdm

from hf_captioner.caption import Caption
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.errors import ConfigError, DataError
from hf_captioner.hub.card import update_evaluation
from hf_captioner.hub.evaluation import OCCLUDED_REGIONS, Occlusion
from hf_captioner.images import occlude, read_pixels
from hf_captioner.modeling.encoder import FeatureMap
from hf_captioner.training.command import (
    checkpoint_folder,
    command_parser,
    load_captioner,
    measured_split,
    run_command,
)
from hf_captioner.training.data import Record
from hf_captioner.training.dataset import padded
from hf_captioner.training.evaluate import mean_scores, score_each

SHARE = 0.2
"""Of the feature map's cells that are occluded."""
TESTED_IMAGES = 100
"""Of each data set that are tested: they have some hundred content words, and of thousands of images the test would
take longer than all else that follows a training."""
FUNCTION_WORDS = frozenset(
    """
    a an the of in on at to with and or by for from is are be being was were has have his her their its he she it they
    him them this that these those who which while as into onto over under up down out off near next through across
    behind front around along other another some two three four
    """.split()
)


class OcclusionTally:
    """Sums over content words: their probabilities before and after, and how often the caption changed."""

    def __init__(self) -> None:
        self.words, self._before, self._after, self._halved, self._changed = 0, 0.0, 0.0, 0, 0

    def add(self, before: Sequence[float], after: Sequence[float], changed: Sequence[bool]) -> None:
        self.words += len(before)
        self._before += sum(before)
        self._after += sum(after)
        self._halved += sum(now < 0.5 * then for then, now in zip(before, after, strict=True))
        self._changed += sum(changed)

    @property
    def before(self) -> float:
        """Mean probability of the words on the whole image."""
        return self._before / self.words

    @property
    def after(self) -> float:
        """The same with the region occluded."""
        return self._after / self.words

    @property
    def changed(self) -> float:
        """Share of the captions that changed."""
        return self._changed / self.words

    def row(self, name: str) -> str:
        halved = 100 * self._halved / self.words
        return f"| {name} | {self.before:.3f} | {self.after:.3f} | {halved:.1f} | {100 * self.changed:.1f} |"


@torch.inference_mode()
def measure_occlusion(captioner: ImageCaptioner, records: Sequence[Record], seed: int = 1) -> dict[str, OcclusionTally]:
    """The tally for each occluded region of every record's image. Raises DataError without content words."""
    generator = torch.Generator().manual_seed(seed)
    tallies = {name: OcclusionTally() for name in OCCLUDED_REGIONS}
    for record in tqdm(records, unit=" images", dynamic_ncols=True):
        pixels = read_pixels(record.path, captioner.config)
        caption = captioner.caption_features(captioner.encode(pixels[None]), captioner.generation_config)[0]
        content = [i for i, word in enumerate(caption.words) if word.text not in FUNCTION_WORDS]
        if not content:
            continue
        cells = torch.stack([_occluded_cells(caption, i, generator) for i in content])  # (content words, 3, N)
        occluded = captioner.encode(occlude(pixels, cells.view(-1, *caption.words[0].attention.shape)))
        probabilities = _word_probabilities(captioner, caption, occluded).unflatten(
            0, (len(content), len(OCCLUDED_REGIONS))
        )
        baseline = _word_probabilities(captioner, caption, captioner.encode(pixels[None]))[0]
        texts = [caption.text for caption in captioner.caption_features(occluded, captioner.generation_config)]
        for region, name in enumerate(OCCLUDED_REGIONS):
            after = [float(probabilities[place, region, word]) for place, word in enumerate(content)]
            changed = [text != caption.text for text in texts[region :: len(OCCLUDED_REGIONS)]]
            tallies[name].add([float(baseline[word]) for word in content], after, changed)
    if not tallies[OCCLUDED_REGIONS[0]].words:
        raise DataError("No caption has a content word, so there is nothing to measure.")
    return tallies


def _occluded_cells(caption: Caption, word: int, generator: torch.Generator) -> Tensor:
    """(3, N) bool: the cells that each of the three regions holds."""
    attention = torch.from_numpy(caption.words[word].attention).flatten()
    count = round(SHARE * len(attention))
    order = attention.argsort(descending=True)
    chosen = (order[:count], torch.randperm(len(attention), generator=generator)[:count], order[-count:])
    return torch.stack([torch.zeros(len(attention), dtype=torch.bool).index_fill(0, cells, True) for cells in chosen])


def _word_probabilities(captioner: ImageCaptioner, caption: Caption, features: FeatureMap) -> Tensor:
    """(R, T): the probability of each of the caption's words, given those before it, on each of the R feature maps."""
    ids = [captioner.tokenizer.encode(word.text)[0] for word in caption.words]
    rows = len(features.values)
    words, targets, lengths = padded([ids] * rows)
    device = features.values.device
    logits, _ = captioner.decoder.teacher_forced(features, words.to(device), lengths)
    log_probs, _ = pad_packed_sequence(logits, batch_first=True)
    return log_probs.float().softmax(-1).gather(2, targets[:, :, None].to(device)).squeeze(2)


def mean_image(captioner: ImageCaptioner, records: Sequence[Record]) -> tuple[str, float]:
    """The caption of the mean of all images, and its CIDEr if said of each; the mean over the data sets."""
    total = torch.zeros(3, captioner.config.image_size, captioner.config.image_size)
    for record in records:
        total += read_pixels(record.path, captioner.config)
    features = captioner.encode((total / len(records))[None])
    text = captioner.caption_features(features, captioner.generation_config)[0].text
    return text, mean_scores(score_each([text] * len(records), records, meteor=False))["CIDEr"]


def measure_attention(
    captioner: ImageCaptioner, records: Sequence[Record]
) -> tuple[dict[str, OcclusionTally], Occlusion]:
    """The tallies, and what a checkpoint keeps of them and of the mean image.

    Raises ConfigError for a captioner without attention, DataError without content words.
    """
    if captioner.config.attention == "none":
        raise ConfigError("This captioner has no attention, so there is nothing to test; take one with attention.")
    tallies = measure_occlusion(captioner, records)
    return tallies, _measured(len(records), tallies, *mean_image(captioner, records))


def _measured(images: int, tallies: dict[str, OcclusionTally], text: str, cider: float) -> Occlusion:
    first = tallies[OCCLUDED_REGIONS[0]]
    occluded = {name: round(tally.after, 4) for name, tally in tallies.items()}
    changed = {name: round(tally.changed, 4) for name, tally in tallies.items()}
    return Occlusion(images, first.words, round(first.before, 4), occluded, changed, text, round(cider, 4))


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_parser("occlusion", __doc__)
    parser.add_argument("--limit", type=int, help=f"test so many images of each data set (default: {TESTED_IMAGES})")
    parser.add_argument("--write", action="store_true", help="store the results in the checkpoint")
    options = parser.parse_args(argv)
    return run_command(parser.prog, partial(_run, options))


def _run(options: argparse.Namespace) -> None:
    folder = checkpoint_folder(options.model) if options.write else None
    if options.write and options.limit:
        tested = f"{TESTED_IMAGES} images of each data set"
        raise ConfigError(f"--write stores what was measured on {tested}; leave out --limit.")
    captioner = load_captioner(options)
    records = measured_split(options, captioner, limit=options.limit or TESTED_IMAGES)
    tallies, found = measure_attention(captioner, records)
    print(f"{len(records)} images, {tallies[OCCLUDED_REGIONS[0]].words} content words\n")
    print("| occluded | probability before | after | halved, % | caption changed, % |\n|---|---|---|---|---|")
    print("\n".join(tally.row(name) for name, tally in tallies.items()))
    said, cider = found.mean_image, 100 * found.mean_image_cider
    print(f"\nThe caption of the mean image: {said} (CIDEr {cider:.1f} if said of every image)")
    if folder is not None:
        update_evaluation(folder, occlusion=found)


if __name__ == "__main__":
    sys.exit(main())
