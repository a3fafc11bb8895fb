"""Image captions that show, for every word, where the model looked.

Shapes, everywhere: B images, K hypotheses an image, R = B * K rows, N = h * w cells, C encoder channels, d width,
T words, V vocabulary, S the side in pixels that photographs are resized to.
"""

from hf_captioner.bulk.readers import photographs
from hf_captioner.bulk.run import caption_many
from hf_captioner.caption import Caption, Word
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.config import CaptionerConfig, SearchConfig
from hf_captioner.errors import CheckpointError, ConfigError, ImageError

__all__ = [
    "Caption",
    "CaptionerConfig",
    "CheckpointError",
    "ConfigError",
    "ImageCaptioner",
    "ImageError",
    "SearchConfig",
    "Word",
    "__version__",
    "caption_many",
    "photographs",
]

__version__ = "0.1.0"
