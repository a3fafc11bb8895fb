"""ONNX Runtime Web: what computes the graphs in a browser, from its package on npm."""

import gzip
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import constants

from hf_captioner.atomic import Writer, write_files
from hf_captioner.errors import CheckpointError, MissingExtraError, install_line

VERSION = "1.30.0"
SHA512 = (
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
"""Of the package as npm sends it."""
SCRIPTS = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
)
MODULES = ("ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.asyncify.wasm")
PACKED = ".gzip"
"""The end of the name of a module, which is compressed: few hosts compress what they send, but of a file `.gz` some say
that the browser must unpack it."""
TERMS = ("LICENSE", "ThirdPartyNotices.txt")
"""Of ONNX Runtime, from its Python package; the one on npm has none."""
NPM_SECONDS = 600


def copy_web_runtime(folder: Path) -> None:
    """Copy its files into a folder; the first time on a machine they are fetched by npm, and kept.

    Raises MissingExtraError without npm, CheckpointError where it cannot fetch the package or fetched another one.
    """
    kept = Path(constants.HF_ASSETS_CACHE) / "hf-captioner" / f"onnxruntime-web-{VERSION}"
    names = (*SCRIPTS, *(f"{name}{PACKED}" for name in MODULES))
    try:
        if not all((kept / name).is_file() for name in names):
            _fetch(kept)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(kept / name, folder / name)
        spec = find_spec("onnxruntime")
        assert spec is not None and spec.origin is not None
        for name in TERMS:
            shutil.copyfile(Path(spec.origin).parent / name, folder / name)
    except OSError as error:
        raise CheckpointError(f"ONNX Runtime Web cannot be copied ({error}).") from error


def _fetch(kept: Path) -> None:
    npm = shutil.which("npm") or shutil.which("npm", path=str(Path(sys.executable).parent))
    if npm is None:
        raise MissingExtraError(
            f"npm, which fetches ONNX Runtime Web {VERSION}, is not installed; install Node.js, or run: "
            f"{install_line('web')}"
        )
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", "--silent", f"onnxruntime-web@{VERSION}"]
        try:
            done = subprocess.run(command, cwd=temporary, capture_output=True, text=True, timeout=NPM_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise CheckpointError(f"npm did not fetch ONNX Runtime Web {VERSION} within {NPM_SECONDS} s.") from error
        found = list(Path(temporary).glob("*.tgz"))
        if done.returncode or len(found) != 1:
            reason = (done.stderr.strip() or done.stdout.strip()).partition("\n")[0]
            raise CheckpointError(f"npm cannot fetch ONNX Runtime Web {VERSION} ({reason}). Check the network.")
        content = found[0].read_bytes()
        if hashlib.sha512(content).hexdigest() != SHA512:
            raise CheckpointError(
                f"What npm fetched as ONNX Runtime Web {VERSION} is not what was published; check npm's registry."
            )
        with tarfile.open(found[0]) as archive:
            files = {name: _member(archive, name) for name in (*SCRIPTS, *MODULES)}
    packed = {f"{name}{PACKED}": gzip.compress(files.pop(name), mtime=0) for name in MODULES}
    write_files(kept, {name: _writer(content) for name, content in {**files, **packed}.items()})


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(f"package/dist/{name}")
    assert file is not None
    return file.read()


def _writer(content: bytes) -> Writer:
    return lambda path: path.write_bytes(content)
