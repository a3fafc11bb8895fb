"""Image captions that show, for every word, where the model looked.

Shapes, everywhere: B images, K hypotheses an image, R = B * K rows, N = h * w cells, C encoder channels, d width,
T words, V vocabulary, S the side in pixels that photographs are resized to.
"""

from hf_captioner.caption import Caption, Word
from hf_captioner.config import CaptionerConfig, ConfigError, SearchConfig
from hf_captioner.hub import CheckpointError
from hf_captioner.images import ImageError
from hf_captioner.many import caption_many
from hf_captioner.model import ImageCaptioner
from hf_captioner.sources import photographs

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
