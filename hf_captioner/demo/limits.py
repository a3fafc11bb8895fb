"""What one visitor may use of the machine that serves the page."""

import ipaddress
import os
from urllib.parse import urlsplit

from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from hf_captioner import ConfigError
from hf_captioner.config import GenerationConfig

MAX_BODY_BYTES = 8 << 20
"""Of a request that uploads no file; the largest honest one is a photo's pixels as the model reads them, 1 MB."""
MAX_FILE_BYTES = 20 << 20
"""Of an uploaded file."""
UPLOAD_ROUTES = ("/gradio_api/upload", "/page/photo", "/page/row", "/page/compare")
"""They have the limit of a file."""
MAX_AT_ONCE = 2
"""Questions of the page that are answered at once; the others wait for their turn."""
MAX_QUESTIONS = 120
"""Questions that wait, each with its file in memory: a hundred visitors at once."""
MAX_FILES = 500
"""Photos of a batch."""
MAX_SEARCH = 2000
"""Hypotheses times words of one image's search."""
MAX_ALTERNATIVES = 50
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""Headers by which a proxy tells that it passes a request on."""


class BodyLimit(RequestBodyLimitMiddleware):
    """Answers 413 to a body of more than MAX_BODY_BYTES; uploads have a limit of their own for each file."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_upload = scope["type"] == "http" and scope["path"].endswith(UPLOAD_ROUTES)
        await (self.app if is_upload else super().__call__)(scope, receive, send)


def check_search(name: str, config: GenerationConfig) -> None:
    """Raise ConfigError where a checkpoint's own search is larger than the page's.

    A visitor's requests are bounded by it: at most 20 beams, or twice the words.
    """
    hypotheses = max(config.num_beams, config.num_return_sequences)
    for what, found, most in (
        ("num_beams x max_length", hypotheses * config.max_length, MAX_SEARCH),
        ("num_alternatives", config.num_alternatives, MAX_ALTERNATIVES),
    ):
        if found > most:
            raise ConfigError(f"{name} has {what} = {found:,}; the page takes at most {most:,}. Lower it in the model.")


def is_from_elsewhere(request: Request) -> bool:
    """Whether a page of another site asks, as every browser tells; programs tell nothing."""
    return request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


def is_local(request: Request) -> bool:
    """Whether a visitor sits at the machine that serves the page, as far as that can be told."""
    try:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname
        client = ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:  # a bracket that is not closed, or a client without an address
        return False
    return (
        "SPACE_ID" not in os.environ
        and not any(header in request.headers for header in FORWARDED)
        and host in LOCAL_HOSTS
        and client.is_loopback
    )
