"""The recipe in use where none is given: the size of the data chooses it, and the device.

| training begins with | training images | the recipe |
|---|---|---|
| a captioner | fewer than MANY | further_few.yaml |
| a captioner | MANY or more | further.yaml |
| a captioner whose encoder is a ResNet, on a GPU | MANY or more | further_encoder.yaml |
| a backbone | any number | from_backbone.yaml |
"""

from pathlib import Path

from hf_captioner.training.recipe import RECIPES

MANY = 1000
"""Training images; fewer teach the decoder only, gently and in small batches."""


def default_recipe(images: int, encoder: str | None, *, gpu: bool) -> tuple[Path, str]:
    """The recipe's file, and a sentence for the log that says why.

    images: those to train on. encoder: that of the captioner that is trained further; None: training begins from a
    backbone.
    """
    found = f"{images:,} training image{'s' * (images != 1)}"
    if encoder is None:
        name, why = "from_backbone.yaml", "training begins from a backbone"
    elif images < MANY:
        name, why = "further_few.yaml", f"{found}, fewer than {MANY:,}: small batches, the encoder stays as it is"
    elif gpu and encoder.startswith("resnet"):
        name, why = "further_encoder.yaml", f"{found} and a GPU: the encoder learns along"
    else:
        name, why = "further.yaml", f"{found}: the encoder stays as it is"
    return RECIPES / name, f"recipe {name} ({why}); --recipe FILE takes another"
