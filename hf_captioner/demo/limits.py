"""What one visitor may use of the machine that serves the page."""

import ipaddress
import os
from urllib.parse import urlsplit

import gradio as gr
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import Receive, Scope, Send

from hf_captioner import ConfigError
from hf_captioner.config import GenerationConfig

MAX_BODY_BYTES = 8 << 20
"""Of a request that uploads no file; the largest honest one is Batch's table of 500 rows with thumbnails, 3 MB."""
UPLOAD_ROUTE = "/gradio_api/upload"
MAX_SEARCH = 2000
"""Hypotheses times words of one image's search."""
MAX_ALTERNATIVES = 50
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""Headers by which a proxy tells that it passes a request on."""


class BodyLimit(RequestBodyLimitMiddleware):
    """Answers 413 to a body of more than MAX_BODY_BYTES; uploads have Gradio's own limit for each file."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_upload = scope["type"] == "http" and scope["path"].endswith(UPLOAD_ROUTE)
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


def is_local(request: gr.Request) -> bool:
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
