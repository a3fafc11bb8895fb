"""`hf-captioner push` and `hf-captioner push-space`; each prints the URL of its commit or pull request."""

import argparse
import tempfile
from pathlib import Path

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.errors import require_extra
from hf_captioner.hub.space import push_space, push_static_space
from hf_captioner.onnx.export import PACKAGES


def add_push_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `push` but for --model."""
    _add_common(parser, "a card on the Hub")
    revision = "an existing branch of the repository to push to (default: main)"
    parser.add_argument("--revision", metavar="BRANCH", help=revision)
    create_pr = "open a pull request in place of committing (default: commit)"
    parser.add_argument("--create-pr", action="store_true", help=create_pr)
    message = "the commit's title (default: %(default)s)"
    parser.add_argument("--commit-message", default="Push captioner", metavar="TEXT", help=message)
    onnx = "also push it as ONNX graphs, in float32 and in int8 (default: no, and those of an earlier push go)"
    parser.add_argument("--onnx", action="store_true", help=onnx)
    parser.set_defaults(run=_push)


def add_push_space_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `push-space` but for --model."""
    _add_common(parser, "a README.md of the Space")
    static = "a page without a server: the model runs in each visitor's browser (default: one that Gradio serves)"
    parser.add_argument("--static", action="store_true", help=static)
    parser.set_defaults(run=_push_space)


def _add_common(parser: argparse.ArgumentParser, card: str) -> None:
    parser.add_argument("repo_id", metavar="REPO_ID", help="OWNER/NAME on the Hub; made where it does not exist")
    private = "make it private (default: as the account does)"
    parser.add_argument("--private", action="store_true", default=None, help=private)
    overwrite = f"also replace {card} that a person wrote or edited (default: keep it)"
    parser.add_argument("--overwrite-card", action="store_true", help=overwrite)


def _push(options: argparse.Namespace) -> int:
    captioner = ImageCaptioner.from_pretrained(options.model, device="cpu", backend="torch")
    commit = captioner.push_to_hub(
        options.repo_id,
        private=options.private,
        branch=options.revision,
        create_pr=options.create_pr,
        commit_message=options.commit_message,
        overwrite_card=options.overwrite_card,
        onnx=options.onnx,
    )
    print(commit.pr_url or commit)
    return 0


def _push_space(options: argparse.Namespace) -> int:
    where = {"private": options.private, "overwrite_card": options.overwrite_card}
    if not options.static:
        print(push_space(options.repo_id, model=options.model, **where))
        return 0
    require_extra("The page in the browser", "web", "markdown_it", "starlette", *PACKAGES)
    from hf_captioner.demo.static_page import write_static_page

    with tempfile.TemporaryDirectory() as temporary:
        write_static_page(Path(temporary) / "page", options.model)
        print(push_static_space(options.repo_id, Path(temporary) / "page", **where))
    return 0
