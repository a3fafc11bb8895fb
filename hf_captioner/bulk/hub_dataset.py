"""Data sets of the Hugging Face Hub, named `hf://datasets/OWNER/NAME`, optionally with `@REVISION` after it."""

import re

from huggingface_hub import snapshot_download

from hf_captioner.bulk.tables import TABLE_SUFFIX
from hf_captioner.bulk.tar import TAR_SUFFIXES
from hf_captioner.errors import CheckpointError, DataError
from hf_captioner.hub.download import one_sentence
from hf_captioner.images import IMAGE_SUFFIXES

HUB_SCHEME = "hf://"
READ_FROM_HUB = [
    pattern
    for suffix in (*sorted(IMAGE_SUFFIXES), *TAR_SUFFIXES, TABLE_SUFFIX)
    for pattern in (f"*{suffix}", f"*{suffix.upper()}")
]


def download_dataset(source: str) -> str:
    """Download the images, tar files and Parquet files of a Hub data set into the cache, unless they are there.

    Returns their folder. Raises DataError where the name is not one, or the data set cannot be downloaded.
    """
    name = re.fullmatch(r"hf://datasets/([^/@]+/[^/@]+?)(?:@(.+?))?/?", source)
    if name is None:
        raise DataError(f"{source} does not name a data set of the Hub; expected hf://datasets/OWNER/NAME.")
    repo_id, revision = name.groups()
    try:
        with one_sentence(source):
            return snapshot_download(repo_id, repo_type="dataset", revision=revision, allow_patterns=READ_FROM_HUB)
    except CheckpointError as error:
        raise DataError(str(error)) from error
