"""The page's endpoints for programs (`gradio_client`, HTTP) and assistants (MCP)."""

from typing import Any

import gradio as gr

from hf_captioner import ConfigError, ImageCaptioner, ImageError
from hf_captioner.demo.limits import MAX_FILES
from hf_captioner.demo.uploads import Upload, files_input, image_input, upload_error
from hf_captioner.demo.visits import TOO_LONG, Visits
from hf_captioner.errors import GenerationStopped
from hf_captioner.modeling.generation import StoppingCriteria


def add_endpoints(captioner: ImageCaptioner, visits: Visits) -> None:
    """Add `caption`, `continue` and `caption_batch` to the page being built; their docstrings are the tools' own."""

    def caption(image: Upload | None, visitor: gr.Request) -> dict[str, Any]:
        """Caption an image: the sentence, and for each word its probability, alternatives and attention.

        Args:
            image: An image file.
        """
        return _caption(captioner, image, visits.stopping_criteria(visitor))

    def continue_caption(image: Upload | None, prefix: str, visitor: gr.Request) -> dict[str, Any]:
        """Caption an image with a sentence that begins with the words given.

        Args:
            image: An image file.
            prefix: The caption's first words.
        """
        return _caption(captioner, image, visits.stopping_criteria(visitor), prefix=prefix)

    def caption_batch(images: list[Upload], visitor: gr.Request) -> list[dict[str, Any]]:
        """Caption several images, in order; one that cannot be read has an `error` in place of its caption.

        Args:
            images: Image files.
        """
        if not images:
            raise gr.Error("There are no images; expected a list of image files.", print_exception=False)
        if len(images) > MAX_FILES:
            raise gr.Error(
                f"{len(images)} photos are too many; upload at most {MAX_FILES} at a time.", print_exception=False
            )
        criteria = visits.stopping_criteria(visitor, many=True)
        paths = [upload.path for upload in images]
        results = captioner.stream(paths, stopping_criteria=criteria, num_return_sequences=1)
        try:
            return [
                {"error": upload_error(result, upload)} if isinstance(result, ImageError) else result.to_dict()
                for upload, result in zip(images, results, strict=True)
            ]
        except GenerationStopped as error:
            raise gr.Error(TOO_LONG, print_exception=False) from error

    # Events of input boxes and not gr.api: Gradio then takes uploads (and addresses), no path of the server's.
    result = gr.JSON(visible=False, label="caption")
    results = gr.JSON(visible=False, label="captions")
    prefix = gr.Textbox(visible=False, label="prefix")
    image = image_input(visible=False, label="image")
    files = files_input(visible=False, label="images")
    gr.Button(visible=False).click(caption, image, result, api_name="caption")
    gr.Button(visible=False).click(continue_caption, [image, prefix], result, api_name="continue")
    gr.Button(visible=False).click(caption_batch, files, results, api_name="caption_batch")


def _caption(
    captioner: ImageCaptioner, image: Upload | None, stopping_criteria: StoppingCriteria, **options: Any
) -> dict[str, Any]:
    if image is None:
        raise gr.Error("There is no image; expected an image file.", print_exception=False)
    try:
        caption = captioner.caption(image.path, stopping_criteria=stopping_criteria, num_return_sequences=1, **options)
    except ImageError as error:
        raise gr.Error(upload_error(error, image), print_exception=False) from error
    except ConfigError as error:
        raise gr.Error(str(error), print_exception=False) from error
    except GenerationStopped as error:
        raise gr.Error(TOO_LONG, print_exception=False) from error
    return caption.to_dict(attention=True)
