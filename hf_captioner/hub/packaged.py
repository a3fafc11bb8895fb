"""What the package carries beside its code: the bundled checkpoint, the card's template, the Space's folder."""

import importlib.resources
from pathlib import Path

PACKAGE = Path(str(importlib.resources.files("hf_captioner")))


def data_path(name: str) -> Path:
    """`model_card.md` or `space`: inside the package where a wheel was installed, beside it in a clone."""
    installed = PACKAGE / "_data" / name
    return installed if installed.exists() else PACKAGE.parent / name


def example_images() -> list[Path]:
    """The page's examples, which a Space has beside the package."""
    folders = (data_path("space") / "examples", PACKAGE.parent / "examples")
    return next((found for folder in folders if (found := sorted(folder.glob("*.jpg")))), [])


def bundled_checkpoint() -> Path:
    """The folder of the checkpoint that comes with the package."""
    return PACKAGE / "checkpoint"
