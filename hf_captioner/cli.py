"""`hf-captioner`: caption images, open the page, train, push to the Hub. Results on stdout, everything else on stderr.

Exit codes: 0 all well; 1 some images failed, each named on stderr, or the work could not be done; 2 bad usage.
"""

import argparse
import io
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hf_captioner import __version__, caption_command, push_command
from hf_captioner.bulk.results import CSV_COLUMNS
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.errors import CaptionerError, ConfigError, one_line, require_extra
from hf_captioner.generation_flags import add_generation_flags, given_generation
from hf_captioner.modeling.device import BACKENDS, DTYPES, dtype_name
from hf_captioner.onnx.export import PACKAGES
from hf_captioner.training.command import TRAINING_PACKAGES, add_data_permissions

SHELLS = ("bash", "zsh", "tcsh")
FILES = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}
"""What shtab knows as completion by the names of files and folders."""
OFF = "(default: no)"

LIBRARIES = {"torch": "PyTorch", "onnx": "ONNX Runtime"}

logger = logging.getLogger("hf_captioner")

Commands = Any
"""argparse has no public name for what `add_subparsers` returns."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code. argv: the arguments, those of the process where it is None."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold any bytes
    logger.handlers, logger.propagate = [StderrHandler()], False
    logger.setLevel(logging.INFO)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = build_parser().parse_args(arguments)
        options.command = shlex.join(["hf-captioner", *arguments])
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CaptionerError, OSError) as error:
        logger.error("%s", error)
        return 2 if isinstance(error, ConfigError) else 1


class StderrHandler(logging.Handler):
    """Messages on stderr, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(f"hf-captioner: {one_line(self.format(record))}", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """Every command with its flags."""
    parser = argparse.ArgumentParser(
        prog="hf-captioner", description="Captions that show, for every word, where the model looked."
    )
    parser.add_argument("--version", action="version", version=f"hf-captioner {__version__}")
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        help="print a script that completes commands and flags in this shell, and exit (default: no)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_caption, _add_train, _add_evaluate, _add_demo, _add_push, _add_push_space, _add_export, _add_info):
        add(commands)
    return parser


class PrintCompletion(argparse.Action):
    """`--print-completion SHELL`: as `--version`, it prints and ends."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        require_extra("--print-completion", "completion", "shtab")
        import shtab

        print(shtab.complete(parser, values))
        parser.exit()


# -- caption -----------------------------------------------------------------------------------------------------------


def _add_caption(commands: Commands) -> None:
    parser = commands.add_parser("caption", help="caption images", description="Caption images.")
    paths = "an image; a folder of them; a .tar (WebDataset) or .parquet file, or a saved data set, that holds them; "
    paths += "hf://datasets/OWNER/NAME for one of the Hub; or - for paths on stdin"
    _add_path(parser, "paths", nargs="+", metavar="PATH", type=str, help=paths)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help=f"a JSON object a line, with every word's probability {OFF}")
    form.add_argument("--csv", action="store_true", help=f"columns {', '.join(CSV_COLUMNS)} {OFF}")
    out = (
        "write a .jsonl, .csv or .parquet, which the same command completes after any stop (default: path and caption "
    )
    _add_path(form, "--out", metavar="TABLE", help=out + "of each image on stdout)")
    null = f"the paths on stdin end with a NUL character, as find -print0 writes them, not with a line {OFF}"
    parser.add_argument("-0", "--null", action="store_true", help=null)
    parser._has_negative_number_optionals.clear()  # else -1.5 would be taken for a flag since -0 is one
    retry = f"also read again what failed in earlier runs into --out; new rows replace the old {OFF}"
    parser.add_argument("--retry-failed", action="store_true", help=retry)
    outside = f"also read images that a table names by a path outside its own folder {OFF}"
    parser.add_argument("--allow-outside-paths", action="store_true", help=outside)
    parser.add_argument(
        "--engine",
        choices=("here", "ray"),
        default="here",
        help="ray: on the cluster that RAY_ADDRESS names, or on this machine's cores (default: %(default)s)",
    )
    _add_path(parser, "--heatmaps", metavar="DIR", help="write a contact sheet for each image (default: none)")
    _add_batch_size(parser)
    _add_model(parser, computes=True)
    add_generation_flags(parser)
    parser.set_defaults(run=_caption)


def _caption(options: argparse.Namespace) -> int:
    options.generation, options.computing = given_generation(options), computing(options)
    return caption_command.run(options)


# -- train and evaluate ------------------------------------------------------------------------------------------------


def _add_train(commands: Commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train a captioner on your own images and captions",
        description="Train a captioner. After an interruption the same command goes on and ends with the same weights. "
        "On several processes or machines: accelerate launch -m hf_captioner train ...",
    )
    _add_data(parser, required=False)
    weights = "how often an epoch shows an image of each data set, in the order of DATA (default: 1 each)"
    parser.add_argument("--weights", type=float, nargs="+", metavar="W", help=weights)
    out = "where the state, the logs and the best checkpoint (best/) go; required"
    _add_path(parser, "--out", required=True, metavar="DIR", help=out)
    recipe = "YAML file of the model and its stages of training (default: one for what the training begins with)"
    _add_path(parser, "--recipe", metavar="FILE", help=recipe)
    begin = parser.add_mutually_exclusive_group()
    init = "begin with this captioner, a folder or Hub id (default: the bundled checkpoint, but for --backbone)"
    _add_path(begin, "--init", metavar="ID", type=str, help=init)
    backbone = "begin with an encoder's weights only: a safetensors file in torchvision's or timm's names, or "
    backbone += "torchvision, which downloads its own, or random (default: none)"
    _add_path(begin, "--backbone", metavar="WEIGHTS", type=str, help=backbone)
    device = "auto, cpu or cuda; the recipe says in which precision (default: %(default)s, CUDA where there is one)"
    parser.add_argument("--device", default="auto", help=device)
    licence = "text that is saved beside the weights as LICENSE (default: none)"
    _add_path(parser, "--weights-license", metavar="FILE", help=licence)
    language = "code of the captions' language for the card, such as de (default: as of what it begins with, or en)"
    parser.add_argument("--language", metavar="CODE", help=language)
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    require_extra("Training", "train", *TRAINING_PACKAGES)
    from hf_captioner.training import train_command

    return train_command.run(options)


def _add_evaluate(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="score a captioner on images with captions",
        description="Caption a split and score it: BLEU, METEOR, ROUGE-L, CIDEr.",
    )
    _add_data(parser)
    splits = ("train", "validation", "test")
    parser.add_argument(
        "--split", default="validation", choices=splits, help="which images to score (default: %(default)s)"
    )
    splits_file = "splits.json of the training run, where the data names no splits (default: the one beside --model)"
    _add_path(parser, "--splits", metavar="FILE", help=splits_file)
    limit = "only the first N images of each data set; CIDEr then means less (default: all)"
    parser.add_argument("--limit", type=int, metavar="N", help=limit)
    _add_path(parser, "--save", metavar="FILE", help="write every caption to this JSON file (default: none)")
    write = f"put the scores into the checkpoint's evaluation.json and card {OFF}"
    parser.add_argument("--write-results", action="store_true", help=write)
    _add_batch_size(parser)
    _add_model(parser, computes=True)
    add_generation_flags(parser)
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    require_extra("Evaluating", "train", *TRAINING_PACKAGES)
    from hf_captioner.training import evaluate

    options.generation, options.computing = given_generation(options), computing(options)
    return evaluate.run(options)


# -- demo, push, push-space, export and info ---------------------------------------------------------------------------


def _add_demo(commands: Commands) -> None:
    parser = commands.add_parser("demo", help="open the web page", description="Open the web page on this machine.")
    _add_model(parser, computes=True)
    parser.add_argument("--port", type=int, help="port of the page (default: the first free one from 7860 on)")
    folders = "visitors from other machines, too, may compare captioners in folders of this one (default: they may not)"
    parser.add_argument("--allow-folders", action="store_true", help=folders)
    parser.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    require_extra("The page", "demo", "gradio", "markdown_it")
    from hf_captioner.demo.app import serve

    serve(
        options.model,
        options.port,
        open_browser=sys.stdout.isatty(),
        allow_folders=options.allow_folders,
        **computing(options),
    )
    return 0


def _add_push(commands: Commands) -> None:
    parser = commands.add_parser("push", help="push a checkpoint", description="Push a checkpoint to the Hub.")
    _add_model(parser)
    push_command.add_push_flags(parser)


def _add_push_space(commands: Commands) -> None:
    parser = commands.add_parser(
        "push-space", help="push the web page as a Space", description="Create or update the web page as a Space."
    )
    _add_model(parser)
    push_command.add_push_space_flags(parser)


def _add_export(commands: Commands) -> None:
    parser = commands.add_parser(
        "export",
        help="write a checkpoint as ONNX graphs",
        description="Write a checkpoint as ONNX graphs, in float32 and in int8, into DIR/onnx.",
    )
    _add_path(parser, "folder", metavar="DIR", help="where to; made where it does not exist")
    web = f"write the web page instead, for any static host: the model, in int8, runs in each visitor's browser {OFF}"
    parser.add_argument("--web", action="store_true", help=web)
    _add_model(parser)
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    if options.web:
        return _export_page(options)
    require_extra("An export to ONNX", "onnx", *PACKAGES)
    ImageCaptioner.from_pretrained(options.model, device="cpu", backend="torch").export_onnx(options.folder)
    return 0


def _export_page(options: argparse.Namespace) -> int:
    require_extra("The page in the browser", "web", "markdown_it", "starlette", *PACKAGES)
    from hf_captioner.demo.static_page import loaded_bytes, write_static_page

    write_static_page(options.folder, options.model)
    print(f"{options.folder}: a visitor's browser loads {loaded_bytes(options.folder) / 1e6:.0f} MB, once.")
    return 0


def _add_info(commands: Commands) -> None:
    parser = commands.add_parser("info", help="what a checkpoint is", description="What a checkpoint is.")
    _add_model(parser, computes=True)
    parser.set_defaults(run=_info)


def _info(options: argparse.Namespace) -> int:
    captioner = ImageCaptioner.from_pretrained(options.model, **computing(options))
    parameters = sum(parameter.numel() for parameter in captioner.parameters())
    encoder, dtype = captioner.encoder, dtype_name(captioner.dtype)
    print(f"hf-captioner: {__version__}\nparameters: {parameters / 1e6:.1f} million")
    print(f"feature map: {encoder.height} x {encoder.width} x {encoder.channels}")
    print(f"computes on: {captioner.device}, in {dtype}, by {LIBRARIES[captioner.backend]}")
    parts = {"config": captioner.config, "generation_config": captioner.generation_config}
    for name, part in {**parts, "evaluation": captioner.evaluation}.items():
        print(f"{name}.json: {part.to_json()}", end="")
    return 0


# -- flags that several commands have ----------------------------------------------------------------------------------


def _add_path(parser: Any, name: str, **settings: Any) -> None:
    """An argument that is a path, and is completed as one."""
    parser.add_argument(name, **{"type": Path, **settings}).complete = FILES


def _add_data(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    data = "images and captions: a folder or file in a layout that docs/training.md lists, or a Hub data set's id; or "
    data += "several of them" + ("" if required else " (default: those that the recipe names)")
    _add_path(parser, "data", nargs="+" if required else "*", metavar="DATA", type=str, help=data)
    name = "what the card calls each data set, in the order of DATA (default: its Hub id; nothing, if it lies on this "
    parser.add_argument("--dataset", nargs="+", metavar="NAME", help=name + "machine)")
    add_data_permissions(parser)


def _add_model(parser: argparse.ArgumentParser, *, computes: bool = False) -> None:
    _add_path(parser, "--model", metavar="ID", type=str, help="a folder or Hub id (default: the bundled checkpoint)")
    if computes:
        device = "cpu, cuda, cuda:1 and so on (default: %(default)s, CUDA where there is one)"
        parser.add_argument("--device", default="auto", help=device)
        dtype = "what to compute in; int8 is ONNX Runtime's (default: %(default)s, as for --backend)"
        parser.add_argument("--dtype", default="auto", choices=("auto", *DTYPES), help=dtype)
        backend = (
            "torch; onnx, exported to ONNX where that was not done yet; or auto, what a page or onnx has measured "
        )
        backend += "to be the quickest on this machine, else torch in float32 (default: %(default)s)"
        parser.add_argument("--backend", default="auto", choices=("auto", *BACKENDS), help=backend)


def computing(options: argparse.Namespace) -> dict[str, Any]:
    """Where and in what a command computes, as `from_pretrained` takes it."""
    return {"device": options.device, "dtype": options.dtype, "backend": options.backend}


def _add_batch_size(parser: argparse.ArgumentParser) -> None:
    size = "images captioned at once (default: %(default)s)"
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help=size)
