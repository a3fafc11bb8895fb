"""What the user gets back: a sentence, and for each word how probable it was and where the model looked."""

import base64
import html
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from hf_captioner import heatmap
from hf_captioner.errors import ImageError
from hf_captioner.images import ImageSource, open_image

TOLERANCE = 2e-4
"""How far a number of `to_dict` may differ between two runs on the same image and machine, alone or in a batch: sums in
another order change it by less than half of this, and rounding to four digits does the rest. Alternatives that are
closer to each other than this may change places."""


@dataclass(frozen=True, eq=False)
class Word:
    """One word of a caption."""

    text: str
    probability: float
    """Of this word at this place, under the model."""
    attention: np.ndarray = field(repr=False)
    """(h, w) float32, sums to 1; row 0 is the top of the image."""
    alternatives: tuple[tuple[str, float], ...] = field(repr=False)
    """The most probable words that may stand at this place with their probabilities, best first; `<end>` ends the
    sentence."""

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
    """A sentence about an image."""

    text: str
    words: tuple[Word, ...]
    score: float
    """What generation maximised: log-probability over length ** length_penalty; compares captions of one image."""
    finished: bool = True
    """False where the caption was cut at `max_length`."""
    confidence: float | None = None
    """0 to 1, calibrated; None for a checkpoint without calibration."""
    image: ImageSource | None = field(default=None, repr=False)
    """The image that was captioned, as it was given; not a copy."""
    others: tuple["Caption", ...] = field(default=(), repr=False)
    """The other captions of the image where `num_return_sequences` asked for several, best first."""

    @property
    def candidates(self) -> tuple["Caption", ...]:
        """Every caption of the image, best first; this one is the first."""
        return (self, *self.others)

    def __str__(self) -> str:
        return self.text

    def overlay(self, word: int, image: ImageSource | None = None) -> Image.Image:
        """The image at its own size, lit where the model looked for the word of this index.

        image: another one in place of the image that was captioned. Raises IndexError where there is no such word and
        ImageError where there is no image or it cannot be read.
        """
        if not -len(self.words) <= word < len(self.words):
            raise IndexError(f"word is {word}, but the caption has {len(self.words)} words, counted from 0.")
        return heatmap.overlay(self._opened(image), self.words[word].attention)

    def contact_sheet(self, image: ImageSource | None = None) -> Image.Image:
        """The image, then one overlay a word with the word beneath it, in one picture. As `overlay` for its image."""
        tiles = [(word.text, word.attention) for word in self.words]
        return heatmap.contact_sheet(self._opened(image), tiles, title=self.text)

    def _opened(self, image: ImageSource | None) -> Image.Image:
        source = self.image if image is None else image
        if source is None:
            raise ImageError("This caption does not know its image; give one: caption.overlay(word, image=...).")
        return open_image(source)

    def to_dict(self, *, attention: bool = False) -> dict[str, Any]:
        """A JSON form; with the attention maps where asked for, and with `candidates` where there are several.

        The same for an image alone and in any batch: the words exactly, the numbers to within TOLERANCE.
        """
        plain: dict[str, Any] = {
            "caption": self.text,
            "confidence": self.confidence,
            "score": round(self.score, 4),
            "finished": self.finished,
            "words": [word.to_dict(attention=attention) for word in self.words],
        }
        if self.others:
            alone = [{**plain}, *(other.to_dict(attention=attention) for other in self.others)]
            plain["candidates"] = alone
        return plain

    def _repr_html_(self) -> str:
        """How a notebook shows it: the contact sheet, or the sentence alone where the image is not known."""
        sentence = html.escape(self.text)
        if self.image is None:
            return f"<p>{sentence}</p>"
        encoded = io.BytesIO()
        self.contact_sheet().save(encoded, "PNG")
        picture = base64.b64encode(encoded.getvalue()).decode()
        return f'<img alt="{sentence}" src="data:image/png;base64,{picture}">'
