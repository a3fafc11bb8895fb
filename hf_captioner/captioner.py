"""The captioner: images from anywhere in, captions out."""

import contextlib
import dataclasses
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Unpack, overload

from tqdm import tqdm

from hf_captioner.bulk.readers import Source, iter_images
from hf_captioner.bulk.shards import NamedImage
from hf_captioner.caption import Caption
from hf_captioner.config import GenerationConfig, GenerationOptions
from hf_captioner.errors import ConfigError, ImageError
from hf_captioner.images import ImageSource
from hf_captioner.model import CaptionModel
from hf_captioner.modeling.generation import StoppingCriteria
from hf_captioner.modeling.generation_settings import check_results
from hf_captioner.reading import ReadBatch, read_ahead, readers_for


class ImageCaptioner(CaptionModel):
    """An image in, a sentence with its attention out.

    It can be pickled, copied, moved to a device, and asked by several threads at once. A caption depends neither on
    what else is in its batch nor on the thread that asked.
    """

    @overload  # a string is a sequence of strings, too
    def caption(  # type: ignore[overload-overlap]
        self,
        images: ImageSource,
        *,
        batch_size: int = 32,
        progress: bool = False,
        stopping_criteria: StoppingCriteria | None = None,
        **generation: Unpack[GenerationOptions],
    ) -> Caption: ...

    @overload
    def caption(
        self,
        images: Sequence[ImageSource],
        *,
        batch_size: int = 32,
        progress: bool = False,
        stopping_criteria: StoppingCriteria | None = None,
        **generation: Unpack[GenerationOptions],
    ) -> list[Caption]: ...

    def caption(
        self,
        images: Any,
        *,
        batch_size: int = 32,
        progress: bool = False,
        stopping_criteria: StoppingCriteria | None = None,
        **generation: Unpack[GenerationOptions],
    ) -> Caption | list[Caption]:
        """Caption one image, or a sequence of them in the same order.

        images: a path, bytes, a file, a Pillow image, an array or a tensor (see `ImageSource`), or a sequence of them.
        progress: a bar on stderr. generation: fields of GenerationConfig; the others are as `generation_config` says.
        stopping_criteria: asked before every word, from this thread; once it returns True, GenerationStopped is raised.
        With num_return_sequences > 1 all captions of an image are in the `candidates` of its best one.
        Raises ImageError for an image that cannot be read, ConfigError for settings that make no sense or would take
        too much memory, TypeError for a keyword that GenerationConfig does not have.
        """
        several = isinstance(images, Sequence) and not isinstance(images, str | bytes | bytearray | memoryview)
        given = images if several else [images]
        generation_config = self.prepare_generation_config(generation)
        check_results(generation_config, self._cells, len(given))
        captions = []
        with contextlib.closing(
            self._stream(_named(given), batch_size, generation_config, stopping_criteria)
        ) as results:
            for result in tqdm(results, total=len(given), unit=" images", disable=not progress, dynamic_ncols=True):
                if isinstance(result, ImageError):
                    raise result
                captions.append(result)
        return captions if several else captions[0]

    def forward(self, images: Any, **options: Any) -> Caption | list[Caption]:
        """`captioner(images)` is `captioner.caption(images)`."""
        return self.caption(images, **options)

    def stream(
        self,
        images: Source | Iterable[Any],
        *,
        batch_size: int = 32,
        stopping_criteria: StoppingCriteria | None = None,
        **generation: Unpack[GenerationOptions],
    ) -> Generator[Caption | ImageError, None, None]:
        """Caption whatever `iter_images` reads, in its order, reading at most two batches ahead of what was taken.

        On a GPU it reads three batches ahead, and of more than a few images in processes of its own.
        images: a source that holds many images, such as a folder, a tar file or a data set; or any iterable of images.
        An image that cannot be read comes out as an ImageError in its place, and the others go on.
        Raises at once, before anything is read, what `caption` raises for its keywords.
        """
        return self._stream(
            iter_images(images), batch_size, self.prepare_generation_config(generation), stopping_criteria
        )

    def _stream(
        self,
        images: Iterator[NamedImage],
        batch_size: int,
        generation_config: GenerationConfig,
        stopping_criteria: StoppingCriteria | None,
    ) -> Generator[Caption | ImageError, None, None]:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected at least 1.")
        return self._batches(images, batch_size, generation_config, stopping_criteria)

    def _batches(
        self,
        images: Iterator[NamedImage],
        batch_size: int,
        generation_config: GenerationConfig,
        stopping_criteria: StoppingCriteria | None,
    ) -> Generator[Caption | ImageError, None, None]:
        readers = readers_for(self.config, self.device)
        with contextlib.closing(read_ahead(images, batch_size, readers)) as batches:
            for batch in batches:
                yield from self._caption_batch(batch, generation_config, stopping_criteria)

    def _caption_batch(
        self, batch: ReadBatch, generation_config: GenerationConfig, stopping_criteria: StoppingCriteria | None
    ) -> Iterator[Caption | ImageError]:
        captions: Iterator[Caption] = iter(())
        if batch.pixels is not None:
            captions = self._in_parts(self.encode(batch.pixels), generation_config, stopping_criteria)
        for named, error in zip(batch.images, batch.errors, strict=True):
            if error is not None:
                yield error
            elif not isinstance(named.image, ImageError):
                yield _with_image(next(captions), named.image)


def _named(images: Iterable[ImageSource]) -> Iterator[NamedImage]:
    return (NamedImage(f"#{index}", image) for index, image in enumerate(images))


def _with_image(caption: Caption, image: ImageSource) -> Caption:
    """The caption and its candidates, with a reference to the image."""
    others = tuple(dataclasses.replace(other, image=image) for other in caption.others)
    return dataclasses.replace(caption, image=image, others=others)
