"""`hf-captioner`: caption images, open the page, push to the Hub. Results on stdout, everything else on stderr.

Exit codes: 0 all well; 1 some images failed, each named on stderr, or the work could not be done; 2 bad usage.
"""

import argparse
import contextlib
import csv
import functools
import io
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from hf_captioner.bulk.readers import read_sources, shards
from hf_captioner.bulk.results import CaptionResult, Row, SeenKeys
from hf_captioner.bulk.run import BulkResult, caption_to_writer, run_fingerprint
from hf_captioner.bulk.shards import Discovered, NamedImage
from hf_captioner.bulk.writers import CaptionWriter, open_writer
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.errors import CaptionerError, ConfigError, ImageError
from hf_captioner.flags import add_generation_flags, generation_options
from hf_captioner.hub.push import push_space
from hf_captioner.images import IMAGE_SUFFIXES
from hf_captioner.modeling.device import resolve_dtype

T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")  # file names may hold any bytes
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CaptionerError, OSError) as error:
        print(f"hf-captioner: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1


def build_parser() -> argparse.ArgumentParser:
    """Every command with its flags."""
    parser = argparse.ArgumentParser(prog="hf-captioner", description="Captions that show where the model looked.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    caption = commands.add_parser("caption", help="caption images", description="Caption images.")
    caption.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="an image; a folder of them; a .tar (WebDataset) or .parquet file, or a saved data set, that holds them; "
        "hf://datasets/OWNER/NAME for one of the Hub; or - for paths on stdin",
    )
    form = caption.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a JSON object a line, with every word's probability")
    form.add_argument("--csv", action="store_true", help="columns path, caption, score")
    form.add_argument(
        "--out", type=Path, metavar="TABLE", help="a .jsonl, .csv or .parquet that a run begun again goes on with"
    )
    caption.add_argument(
        "--engine", choices=("here", "ray"), default="here", help="ray: on the cluster that RAY_ADDRESS names, or here"
    )
    caption.add_argument("--heatmaps", type=Path, metavar="DIR", help="write a contact sheet for each image")
    caption.add_argument("--batch-size", type=int, default=32)
    caption.add_argument("--bfloat16", action="store_true", help="quicker where the processor has it; see the README")
    _add_model(caption)
    add_generation_flags(caption)
    caption.set_defaults(run=_caption)

    demo = commands.add_parser("demo", help="open the web page on this machine")
    _add_model(demo)
    demo.add_argument("--port", type=int, help="the first free one from 7860 on without it")
    demo.set_defaults(run=_demo)

    push = commands.add_parser("push", help="push a checkpoint to the Hub")
    push.add_argument("repo_id", metavar="REPO_ID")
    push.add_argument("--checkpoint", dest="model", metavar="DIR", help="a folder; without it the bundled checkpoint")
    push.add_argument("--private", action="store_true", default=None)
    push.add_argument("--overwrite-card", action="store_true", help="also replace a card that is there already")
    push.set_defaults(run=_push)

    space = commands.add_parser("push-space", help="create or update the web page as a Space")
    space.add_argument("repo_id", metavar="REPO_ID")
    _add_model(space)
    space.add_argument("--private", action="store_true", default=None)
    space.set_defaults(run=_push_space)

    info = commands.add_parser("info", help="what a checkpoint is")
    _add_model(info)
    info.set_defaults(run=_info)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="ID", help="a folder or Hub id; without it the bundled checkpoint")


def _caption(options: argparse.Namespace) -> int:
    if options.engine == "ray":
        return _failed(_on_ray(options))
    discovered = Discovered()
    images = _some(read_sources(_places(options.paths), discovered), options)
    if options.heatmaps:
        options.heatmaps.mkdir(parents=True, exist_ok=True)

    def on_result(index: int, image: NamedImage, outcome: CaptionResult) -> None:
        if isinstance(outcome, ImageError):
            tqdm.write(f"hf-captioner: {outcome}", file=sys.stderr)
        elif options.heatmaps and not isinstance(image.image, ImageError):
            sheet = options.heatmaps / f"{index:06d}-{Path(image.name).stem[:100]}.png"
            outcome.contact_sheet().save(sheet)

    captioner, search = ImageCaptioner.from_pretrained(options.model), generation_options(options)
    captioner.dtype = resolve_dtype("bfloat16" if options.bfloat16 else "auto")
    settings = captioner.prepare_generation_config(search)
    with contextlib.ExitStack() as stack:
        if options.out:
            table: CaptionWriter = stack.enter_context(open_writer(options.out, run_fingerprint(captioner, settings)))
        else:
            table = StdoutWriter(options)
        tally = caption_to_writer(
            table,
            captioner,
            images,
            discovered=discovered,
            batch_size=options.batch_size,
            progress=True,
            on_result=on_result,
            **search,
        )
    return _failed(tally)


def _on_ray(options: argparse.Namespace) -> BulkResult:
    if options.out is None or options.heatmaps:
        raise ConfigError("--engine ray writes a table and no heatmaps; give --out TABLE.parquet, without --heatmaps.")
    from hf_captioner.bulk.ray import caption_on_ray

    discovered = Discovered()
    dtype = "bfloat16" if options.bfloat16 else "auto"
    return caption_on_ray(
        functools.partial(ImageCaptioner.from_pretrained, options.model, device="auto", dtype=dtype),
        _some(shards(_places(options.paths), discovered), options),
        options.out,
        discovered=discovered,
        batch_size=options.batch_size,
        **generation_options(options),
    )


def _failed(tally: BulkResult) -> int:
    if tally.failed:
        count = tally.failed + tally.captioned
        print(f"hf-captioner: {tally.failed} of {count} images failed.", file=sys.stderr)
    return 1 if tally.failed else 0


def _some(found: Iterator[T], options: argparse.Namespace) -> Iterator[T]:
    """What was found on the paths. Raises ConfigError where that is nothing; what stdin will name is not awaited."""
    if "-" in options.paths:
        return found
    for first in found:
        return itertools.chain([first], found)
    raise ConfigError(f"There is no image in {', '.join(options.paths)}; expected {', '.join(sorted(IMAGE_SUFFIXES))}.")


def _places(given: Iterable[str]) -> Iterator[str]:
    """The places named, those that stdin names where the name is a dash."""
    for name in given:
        if name == "-":
            yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
        else:
            yield name


class StdoutWriter:
    """The table on stdout: a line a caption."""

    done = SeenKeys()

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        if options.csv:
            csv.writer(sys.stdout, lineterminator="\n").writerow(["path", "caption", "score"])

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            candidates = row.pop("candidates", [row])
            for candidate in candidates if "caption" in row else []:
                self._print({"path": row["path"], **candidate})
        sys.stdout.flush()

    def _print(self, caption: Row) -> None:
        if self.options.json:
            print(json.dumps(caption, ensure_ascii=False))
        elif self.options.csv:
            score = f"{caption['score']:.4f}"
            csv.writer(sys.stdout, lineterminator="\n").writerow([caption["path"], caption["caption"], score])
        else:
            print(f"{caption['path']}\t{caption['caption']}")


def _demo(options: argparse.Namespace) -> int:
    from hf_captioner.demo.app import serve

    serve(options.model, options.port, open_browser=sys.stdout.isatty())
    return 0


def _push(options: argparse.Namespace) -> int:
    captioner = ImageCaptioner.from_pretrained(options.model)
    print(captioner.push_to_hub(options.repo_id, private=options.private, overwrite_card=options.overwrite_card))
    return 0


def _push_space(options: argparse.Namespace) -> int:
    print(push_space(options.repo_id, model=options.model, private=options.private))
    return 0


def _info(options: argparse.Namespace) -> int:
    captioner = ImageCaptioner.from_pretrained(options.model)
    parameters = sum(parameter.numel() for parameter in captioner.parameters())
    grid = f"{captioner.encoder.height} x {captioner.encoder.width} x {captioner.encoder.channels}"
    print(f"parameters: {parameters / 1e6:.1f} million\ngrid: {grid}\n{captioner.config.to_json()}", end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
