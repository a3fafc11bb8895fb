"""The image files that a data set names: found, and in its own folder."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from hf_captioner.errors import DataError
from hf_captioner.images import IMAGE_SUFFIXES
from hf_captioner.training.rows import complain, listed


def find_images(root: Path, names: Sequence[str], inside: Sequence[Path], *, allow_outside: bool) -> dict[str, Path]:
    """Each name's file: where the name says, else anywhere below `root` by its base name.

    inside: the folders in which the files lie, links followed. Raises DataError for missing images, for base names that
    several files have, and, unless `allow_outside`, for files that lie elsewhere: whoever wrote the captions named
    them, and they are this machine's.
    """
    found = {name: file for name in names for file in _places(root, name) if _is_file(file)}
    missing = [name for name in names if name not in found]
    if missing:
        found |= _by_base_name(root, missing)
    absent = (name for name in names if name not in found)
    complain("captions of missing images", absent, "add the images, or remove these captions")
    outside = [] if allow_outside else [name for name in names if not _lies_in(found[name], inside)]
    if outside:
        lie = "image lies" if len(outside) == 1 else "images lie"
        raise DataError(
            f"{len(outside)} {lie} outside of {root}: {listed(outside)}; only those in the data's own folder are "
            "read, unless --allow-outside-paths is given."
        )
    return found


def _places(root: Path, name: str) -> list[Path]:
    """Where a file of this name may lie, the likeliest last: named from above `root` on, or from `root` itself on.

    The captions that `hf-captioner caption FOLDER` writes name files from above the folder on.
    """
    parts, own = Path(name).parts, root.resolve().name
    below = [root.joinpath(*parts[place + 1 :]) for place in range(len(parts) - 1) if parts[place] == own]
    return [*below, root / name]


def _by_base_name(root: Path, names: Iterable[str]) -> dict[str, Path]:
    """The only file below `root` with each name's base name, whole or without its suffix. Raises DataError for two."""
    everywhere: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            everywhere.setdefault(path.name, []).append(path)
            everywhere.setdefault(path.stem, []).append(path)
    found = {name: everywhere[Path(name).name] for name in names if Path(name).name in everywhere}
    ambiguous = {name: [str(path.relative_to(root)) for path in paths] for name, paths in found.items() if paths[1:]}
    several = (f"{name} ({', '.join(paths)})" for name, paths in ambiguous.items())
    complain("image names that several files have", several, "write their paths from the data's folder on")
    return {name: path for name, (path,) in found.items()}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the file system knows, or a folder that may not be read
        return False


def _lies_in(path: Path, folders: Iterable[Path]) -> bool:
    resolved = path.resolve()
    return any(resolved.is_relative_to(folder) for folder in folders)
