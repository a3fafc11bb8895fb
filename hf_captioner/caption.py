"""What the user gets back: a sentence, and for each word how likely it was and where the model looked."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from hf_captioner import heatmap
from hf_captioner.images import ImageSource, open_image


@dataclass(frozen=True, eq=False)
class Word:
    text: str
    probability: float
    """Of this word at this place, under the model."""
    attention: np.ndarray = field(repr=False)
    """(h, w) float32, sums to 1; row 0 is the image's top."""
    alternatives: tuple[tuple[str, float], ...] = field(repr=False)
    """The likeliest words at this place with their probabilities, best first."""

    def to_dict(self, *, attention: bool = False) -> dict[str, Any]:
        """A JSON form; with the attention map as rows of numbers where asked for."""
        plain: dict[str, Any] = {
            "text": self.text,
            "probability": round(self.probability, 4),
            "alternatives": [[text, round(probability, 4)] for text, probability in self.alternatives],
        }
        if attention:
            plain["attention"] = [[round(float(cell), 5) for cell in row] for row in self.attention]
        return plain


@dataclass(frozen=True, eq=False)
class Caption:
    text: str
    words: tuple[Word, ...]
    score: float
    """What the search maximised: log-probability over length ** length_penalty; compares captions of one image."""
    finished: bool = True
    """False where the caption was cut at the longest length allowed."""
    confidence: float | None = None
    """0 to 1, calibrated; None for a checkpoint without calibration."""

    def __str__(self) -> str:
        return self.text

    def overlay(self, image: ImageSource, word: int) -> Image.Image:
        """The image at its own size, lit where the model looked for the word of this index."""
        if not -len(self.words) <= word < len(self.words):
            raise IndexError(f"word is {word}, but the caption has {len(self.words)} words, counted from 0.")
        return heatmap.overlay(open_image(image), self.words[word].attention)

    def contact_sheet(self, image: ImageSource) -> Image.Image:
        """The image, then one overlay a word with the word beneath it, in one image."""
        tiles = [(word.text, word.attention) for word in self.words]
        return heatmap.contact_sheet(open_image(image), tiles, title=self.text)

    def to_dict(self, *, attention: bool = False) -> dict[str, Any]:
        """A JSON form; with the attention maps where asked for."""
        return {
            "caption": self.text,
            "confidence": self.confidence,
            "score": round(self.score, 4),
            "finished": self.finished,
            "words": [word.to_dict(attention=attention) for word in self.words],
        }
