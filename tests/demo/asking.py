"""Photos and questions as the page's JavaScript sends them, and what it gets back."""

import base64
import io
from typing import Any

import httpx
from PIL import Image

SECRETS = ("/tmp", "site-packages", "Traceback", "hf_captioner", "GenerationConfig", "the bytes given", "\n")
"""What no sentence for a visitor holds: the server's paths, and names of code."""


def file_of(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def image_in(url: str) -> Image.Image:
    """The picture of a data URL."""
    return Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2])))


def question(model_input: str, **asked: Any) -> dict[str, Any]:
    """What `page/again` is asked: of a photo whose first caption has five words, a caption just as the first one."""
    request = {"prefix": "", "bad_words": "", "length": "Normal", "style": "Most likely", "several": False, "seed": 0}
    return {"input": model_input, "covered": [], "words": 5, **request, **asked}


def answered(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def refused(answer: httpx.Response) -> str:
    """The one sentence that says why there is no answer."""
    assert answer.status_code >= 400 and answer.headers["content-type"] == "application/json"
    (sentence,) = answer.json().values()
    assert list(answer.json()) == ["error"] and sentence[0].isupper() and sentence[-1] == "." and len(sentence) < 400
    assert not any(secret in sentence for secret in SECRETS)
    return str(sentence)
