"""Look at a captioner's captions.

`python -m hf_captioner.training.report --data DATA [DATA ...] --out report.html [--model ID] [--each N] [--write]`

One HTML file with the best, the worst and random validation captions by their own CIDEr: the image with its heatmaps,
the caption with its confidence, and what people wrote. It holds images of the data set, whose terms apply to it.
The words that the captioner says too often or too seldom are printed (`bias_report.py`); --write stores them in the
checkpoint's evaluation.json and card.
"""

import argparse
import base64
import io
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jinja2

from hf_captioner.atomic import write_text
from hf_captioner.caption import Caption
from hf_captioner.hub.card import update_evaluation
from hf_captioner.training.bias_report import bias_report, to_markdown
from hf_captioner.training.command import (
    checkpoint_folder,
    command_parser,
    load_captioner,
    measured_split,
    run_command,
)
from hf_captioner.training.data import Record
from hf_captioner.training.evaluate import cider_of_records

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Captions of {{ model }}</title>
<style>
body { font: 16px/1.4 system-ui, sans-serif; max-width: 1060px; margin: 2em auto; padding: 0 1em }
figure { margin: 0 0 2.5em } img { max-width: 100% } li { color: #555 }
</style>
<h1>{{ count }} validation captions of {{ model }}</h1>
<p>Mean CIDEr {{ means }}. Under each image: the caption's own CIDEr and confidence, then what people
wrote.</p>
{% for title, examples in groups %}
<h2>{{ title }}</h2>
{% for example in examples %}
<figure>
<img src="data:image/jpeg;base64,{{ example.image }}" alt="{{ example.caption }}">
<figcaption><b>{{ example.caption }}</b>: CIDEr {{ "%.0f" % example.cider
}}{% if example.caption.confidence is not none %}, confidence {{ "%.2f" % example.caption.confidence }}{% endif %}
 ({{ example.record.path.name }})
<ul>{% for sentence in example.record.captions %}<li>{{ sentence }}</li>{% endfor %}</ul></figcaption>
</figure>
{% endfor %}
{% endfor %}
</html>
"""


@dataclass(frozen=True)
class Example:
    record: Record
    caption: Caption
    cider: float
    """x 100"""

    @property
    def image(self) -> str:
        """The contact sheet as base64 JPEG."""
        encoded = io.BytesIO()
        self.caption.contact_sheet(self.record.path).save(encoded, "JPEG", quality=85)
        return base64.b64encode(encoded.getvalue()).decode()


def report(captions: Sequence[Caption], records: Sequence[Record], model: str, each: int) -> str:
    """The page as HTML: `each` examples of the best, the worst and random captions."""
    ciders = cider_of_records([caption.text for caption in captions], records)
    examples = [Example(r, c, 100 * cider) for r, c, cider in zip(records, captions, ciders, strict=True)]
    ranked = sorted(examples, key=lambda example: example.cider, reverse=True)
    sample = random.Random(1).sample(examples, min(each, len(examples)))
    groups = [("Random", sample), ("Worst", ranked[: -each - 1 : -1]), ("Best", ranked[:each])]
    found: dict[str, list[float]] = {}
    for example in examples:
        found.setdefault(example.record.data_set, []).append(example.cider)
    means = [(f"{name} " if len(found) > 1 else "") + f"{statistics.mean(own):.1f}" for name, own in found.items()]
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(PAGE)
    return page.render(model=model, count=len(examples), means=", ".join(means), groups=groups)


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_parser("report", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="the HTML file to write")
    parser.add_argument("--each", type=int, default=20, help="how many of the best, the worst and random captions")
    parser.add_argument("--write", action="store_true", help="store the word counts in the checkpoint")
    options = parser.parse_args(argv)
    return run_command(parser.prog, partial(_run, options))


def _run(options: argparse.Namespace) -> None:
    folder = checkpoint_folder(options.model) if options.write else None
    captioner = load_captioner(options)
    records = measured_split(options, captioner)
    captions = captioner.caption([record.path for record in records], num_return_sequences=1, progress=True)
    write_text(options.out, report(captions, records, options.model or "the bundled checkpoint", options.each))
    habits = bias_report([caption.text for caption in captions], [record.captions for record in records])
    print(f"{to_markdown(habits)}\n\n{options.out}")
    if folder is not None:
        update_evaluation(folder, habits=habits)


if __name__ == "__main__":
    sys.exit(main())
