"""The page as a folder that any static host serves: the model runs in the visitor's browser."""

import base64
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from hf_captioner import CheckpointError, ImageCaptioner
from hf_captioner.demo.limits import check_search
from hf_captioner.demo.markup import BROWSER, DEVICE, EXAMPLES, STYLES, about, page_html, page_setup
from hf_captioner.demo.questions import ask_photo
from hf_captioner.hub.checkpoint import CARD, LICENSE
from hf_captioner.hub.packaged import data_path
from hf_captioner.hub.space import FILE_LIST, static_card
from hf_captioner.onnx.export import FOLDER
from hf_captioner.onnx.web_runtime import copy_web_runtime

AT_THE_ROOT = ("service_worker.js", "manifest.webmanifest", "icon.svg", "icon.png")
"""Of `browser/device`, what belongs beside index.html."""
NOT_LOADED = (".md", "ThirdPartyNotices.txt", ".wasm.gzip")
"""How names end of files that no browser loads, and of ONNX Runtime's modules, of which it loads one."""
NO_TERMS = "The owner of these weights has stated no licence for them.\n"


def write_static_page(folder: Path, model: str | None = None) -> None:
    """Write the page, with a captioner in int8 and ONNX Runtime Web, into a new or empty folder or one that was written
    by an earlier call, which it replaces.

    model: as `ImageCaptioner.from_pretrained` takes it. Raises MissingExtraError without npm, ConfigError for a
    captioner whose own search is larger than the page takes, and CheckpointError; the folder is then as it was.
    """
    if folder.exists() and not (folder / FILE_LIST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} holds something else than an earlier page; give a new or an empty folder.")
    captioner = ImageCaptioner.from_pretrained(model, device="cpu", backend="torch")
    check_search(model or "The bundled captioner", captioner.generation_config)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".page-", dir=folder.parent) as temporary:
            new, old = Path(temporary) / "new", Path(temporary) / "old"
            _write(new, captioner, model)
            if folder.exists():
                os.replace(folder, old)
            try:
                os.replace(new, folder)
            except OSError:
                if old.exists():
                    os.replace(old, folder)
                raise
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written ({error}).") from error


def loaded_bytes(folder: Path) -> int:
    """What a browser loads of a page at its first visit, with the larger of ONNX Runtime's modules: that for WebGPU."""
    files = json.loads((folder / FILE_LIST).read_text(encoding="utf-8"))["files"]
    modules = [about["size"] for name, about in files.items() if name.endswith(".wasm.gzip")]
    return max(modules) + sum(about["size"] for name, about in files.items() if not name.endswith(NOT_LOADED))


def _write(folder: Path, captioner: ImageCaptioner, model: str | None) -> None:
    copy_web_runtime(folder / "runtime")  # what may fail for want of a network comes first
    captioner.export_web(folder / "model")
    captioner.take_export(folder / "model" / FOLDER, torch.int8)
    (folder / "model" / LICENSE).write_text(captioner.weights_license or NO_TERMS, encoding="utf-8")
    _write_page(folder, captioner, model)
    shutil.copyfile(data_path(LICENSE), folder / LICENSE)
    (folder / CARD).write_text(static_card(model), encoding="utf-8")
    files = {name: _described(folder / name) for name in _names(folder)}
    build = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]
    worker = folder / "service_worker.js"
    worker.write_text(worker.read_text(encoding="utf-8").replace("{{build}}", build), encoding="utf-8")
    files[worker.name] = _described(worker)
    (folder / FILE_LIST).write_text(json.dumps({"build": build, "files": files}, indent=1), encoding="utf-8")


def _write_page(folder: Path, captioner: ImageCaptioner, model: str | None) -> None:
    """The markup, the styles, the JavaScript, and the examples with their captions."""
    page, examples = folder / "page", folder / "page" / "example"
    examples.mkdir(parents=True)
    content = page_html(captioner.evaluation, about(captioner, model), page_setup(model), DEVICE)
    template = (BROWSER / "device" / "index.html").read_text(encoding="utf-8")
    icon = base64.b64encode((BROWSER / "device" / "icon.svg").read_bytes()).decode()
    index = template.replace("<!-- page -->", content).replace("<!-- icon -->", f"data:image/svg+xml;base64,{icon}")
    (folder / "index.html").write_text(index, encoding="utf-8")
    for name in AT_THE_ROOT:
        shutil.copyfile(BROWSER / "device" / name, folder / name)
    for name in (*STYLES, "colours.css", "device/device.css"):
        (page / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(BROWSER / name, page / name)
    for path in BROWSER.rglob("*.js"):
        if path.name not in ("server.js", "service_worker.js"):
            shutil.copyfile(path, page / path.relative_to(BROWSER))
    source = data_path("space") / "examples"
    for key, name in EXAMPLES.items():
        answer = ask_photo(captioner, (source / name).read_bytes())(lambda: False)
        answer["photo"]["name"] = name
        (examples / f"{key}.json").write_text(json.dumps(answer), encoding="utf-8")
    shutil.copyfile(source / "ATTRIBUTION.md", examples / "ATTRIBUTION.md")


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _described(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
