"""Image captions that show, for every word, where the model looked.

Shapes, everywhere: B images, K hypotheses an image, R = B * K rows, N = h * w cells, C encoder channels, d width,
T words, V vocabulary, S the side in pixels that images are resized to.
"""

from hf_captioner.bulk.readers import iter_images
from hf_captioner.bulk.run import caption_many
from hf_captioner.caption import Caption, Word
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.config import CaptionerConfig, GenerationConfig
from hf_captioner.errors import CheckpointError, ConfigError, ImageError

__all__ = [
    "Caption",
    "CaptionerConfig",
    "CheckpointError",
    "ConfigError",
    "GenerationConfig",
    "ImageCaptioner",
    "ImageError",
    "Word",
    "__version__",
    "caption_many",
    "iter_images",
]

__version__ = "0.2.0"
