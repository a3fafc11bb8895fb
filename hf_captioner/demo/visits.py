"""What visitors asked for ends after a while, and when they have left."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import gradio as gr
from starlette.requests import Request

from hf_captioner.modeling.generation import StoppingCriteria

TIME_LIMIT, BATCH_TIME_LIMIT = 60, 1200
"""Seconds for the captions of one photo, and of many."""
TOO_LONG = "This took too long and was stopped. Try again later, or with fewer photos."
LOOK_INTERVAL = 0.25
"""Seconds between two looks whether a visitor of the page still waits."""


class Visits:
    """When each caller of the endpoints has left, as far as that still matters."""

    def __init__(self) -> None:
        self._left: dict[str, float] = {}

    def leave(self, request: gr.Request) -> None:
        """For `Blocks.unload`, which Gradio calls when a visitor's connection ends."""
        now = time.monotonic()
        # A copy, for another visitor's thread may be here too.
        self._left = {hash_: at for hash_, at in self._left.items() if now - at < BATCH_TIME_LIMIT}
        if request.session_hash:
            self._left[request.session_hash] = now

    def stopping_criteria(self, request: gr.Request, *, many: bool = False) -> StoppingCriteria:
        """For what the visitor asks now, of one photo or of many: whether the time is up, or the visitor has left.

        A visitor whose connection broke off may come back with the same session, and ask anew.
        """
        session_hash, began = request.session_hash or "", time.monotonic()
        seconds = BATCH_TIME_LIMIT if many else TIME_LIMIT
        return lambda: time.monotonic() - began > seconds or self._left.get(session_hash, began) > began


@contextlib.asynccontextmanager
async def waiting_visitor(request: Request) -> AsyncIterator[StoppingCriteria]:
    """For one question of the page, whose body has been read: whether the time is up, or nobody waits any more."""
    began, gone = time.monotonic(), False

    async def look() -> None:
        nonlocal gone
        while not await request.is_disconnected():
            await asyncio.sleep(LOOK_INTERVAL)
        gone = True

    looking = asyncio.create_task(look())
    try:
        yield lambda: gone or time.monotonic() - began > TIME_LIMIT
    finally:
        looking.cancel()
