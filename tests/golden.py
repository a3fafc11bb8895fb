"""What the bundled checkpoint says of some images, kept to the digit: `python -m tests.golden write|compare FILE DIR`.

`write` at one commit and `compare` at another show whether a change to the code changed a caption, a probability or an
attention map.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_captioner import ImageCaptioner

TOLERANCE = 2e-4
"""Largest difference of a probability, a confidence or a cell's attention that another processor's sums explain."""


def captions_of(folder: Path) -> dict[str, Any]:
    """File name -> what the bundled checkpoint says of it, as JSON holds it."""
    images = sorted(path for path in folder.iterdir() if path.suffix == ".jpg")
    captions = ImageCaptioner.from_pretrained().caption(images)
    return {path.name: caption.to_dict(attention=True) for path, caption in zip(images, captions, strict=True)}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs between two sets of captions, a line each."""
    found = [f"{name}: only in one of the two" for name in sorted(before.keys() ^ after.keys())]
    for name in sorted(before.keys() & after.keys()):
        old, new = before[name], after[name]
        if old["caption"] != new["caption"]:
            found.append(f"{name}: {new['caption']!r} and not {old['caption']!r}")
            continue
        for value in ("confidence", "score"):
            if abs(old[value] - new[value]) > TOLERANCE:
                found.append(f"{name}: {value} {new[value]} and not {old[value]}")
        for was, now in zip(old["words"], new["words"], strict=True):
            for value in ("probability", "attention"):
                distance = float(np.abs(np.array(was[value]) - np.array(now[value])).max())
                if distance > TOLERANCE:
                    found.append(f"{name}, {was['text']!r}: {value} differs by {distance:.5f}")
    return found


def main(arguments: Sequence[str]) -> int:
    action, file, folder = arguments
    found = captions_of(Path(folder))
    if action == "write":
        Path(file).write_text(json.dumps(found) + "\n", encoding="utf-8")
        return 0
    different = differences(json.loads(Path(file).read_text(encoding="utf-8")), found)
    print("\n".join([*different, f"{len(found)} images, {len(different)} differences"]))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
