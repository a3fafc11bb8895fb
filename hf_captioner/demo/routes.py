"""The page's own routes. A question holds all that its answer needs; the server keeps nothing of it, nor writes any."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from hf_captioner import CheckpointError, ConfigError, ImageCaptioner, ImageError
from hf_captioner.demo.compare import load_captioner, load_error
from hf_captioner.demo.limits import MAX_AT_ONCE, MAX_FILE_BYTES, MAX_QUESTIONS, is_from_elsewhere, is_local
from hf_captioner.demo.markup import BROWSER
from hf_captioner.demo.questions import Work, ask_again, ask_caption, ask_photo, ask_row, sentence
from hf_captioner.demo.visits import TOO_LONG, waiting_visitor
from hf_captioner.errors import GenerationStopped

TOO_MANY = "Too many visitors are asking at once. Try again in a minute."
TOO_LARGE = f"This file is too large. Use one of at most {MAX_FILE_BYTES >> 20} MB."
TOO_SLOW = "The photo did not arrive in time. Check the connection, then try again."
ELSEWHERE = "Only the page itself may ask this."
MAX_UPLOAD_SECONDS = 120
"""What has not arrived by then, as from a phone that lost its network, makes room for others."""
Handler = Callable[[Request], Awaitable[Response]]


class Modules(StaticFiles):
    """The page's JavaScript; a browser asks each time whether its copy is still the newest."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


class Answers:
    """Answers questions, a few at once and the others after them."""

    def __init__(self, at_once: int) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._asked = 0

    def route(self, path: str, question: Callable[[Request, bytes], Work]) -> Route:
        """A route that takes POST. question: from a request and its body to what answers it, here without a wait."""

        async def answer(request: Request) -> Response:
            if is_from_elsewhere(request):
                return _error(403, ELSEWHERE)
            try:
                with self._place():
                    content = await _content(request)
                    return JSONResponse(await self._work(request, lambda: question(request, content)))
            except HTTPException as error:
                return _error(error.status_code, error.detail)
            except ClientDisconnect:  # nobody is there to be told
                return Response(status_code=400)

        return Route(path, answer, methods=["POST"])

    async def _work(self, request: Request, question: Callable[[], Work]) -> dict[str, Any]:
        def work() -> dict[str, Any]:
            if stopping_criteria():
                raise GenerationStopped(TOO_LONG)
            return question()(stopping_criteria)

        try:
            async with waiting_visitor(request) as stopping_criteria, self._turns:
                return await asyncio.to_thread(work)
        except (ImageError, ConfigError) as error:
            raise HTTPException(400, sentence(error)) from error
        except GenerationStopped as error:
            raise HTTPException(503, TOO_LONG) from error

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        if self._asked >= MAX_QUESTIONS:
            raise HTTPException(503, TOO_MANY)
        self._asked += 1
        try:
            yield
        finally:
            self._asked -= 1


def page_routes(captioner: ImageCaptioner, examples: Mapping[str, Path], *, allow_folders: bool) -> list[BaseRoute]:
    """examples: key -> file. allow_folders: every visitor may compare folders of this machine, not only a local one."""

    def compared(request: Request, content: bytes) -> Work:
        name, folders = request.query_params.get("model", "").strip(), allow_folders or is_local(request)
        try:
            model = load_captioner(name, captioner.device, captioner.dtype, folders=folders)
        except (CheckpointError, ConfigError) as error:
            raise ConfigError(load_error(name, error, folders=folders)) from error
        return ask_caption(model, content)

    answers = Answers(MAX_AT_ONCE)
    return [
        answers.route("/page/photo", lambda _, content: ask_photo(captioner, content)),
        answers.route("/page/again", lambda _, content: ask_again(captioner, content)),
        answers.route("/page/row", lambda _, content: ask_row(captioner, content)),
        answers.route("/page/frame", lambda _, content: ask_caption(captioner, content)),
        Answers(1).route("/page/compare", compared),  # one at a time, for each may load a model
        *_example_routes(captioner, examples),
        Mount("/page", Modules(directory=BROWSER)),
    ]


def _example_routes(captioner: ImageCaptioner, examples: Mapping[str, Path]) -> list[BaseRoute]:
    found: dict[str, dict[str, Any]] = {}
    turn = asyncio.Lock()

    def captioned(key: str) -> dict[str, Any]:
        answer = ask_photo(captioner, examples[key].read_bytes())(lambda: False)
        return answer | {"photo": answer["photo"] | {"name": examples[key].name}}

    async def example(request: Request) -> Response:
        key = request.path_params["key"]
        if key not in examples:
            return _error(404, "There is no such example. Try one of those on the page.")
        async with turn:
            if key not in found:
                found[key] = await asyncio.to_thread(captioned, key)
        return JSONResponse(found[key])

    files = [Route(f"/page/example/{key}.jpg", _file(path)) for key, path in examples.items()]
    return [*files, Route("/page/example/{key}", example)]


def _file(path: Path) -> Handler:
    async def handler(request: Request) -> Response:
        return FileResponse(path)

    return handler


async def _content(request: Request) -> bytes:
    """A body of at most MAX_FILE_BYTES, within MAX_UPLOAD_SECONDS."""
    content = bytearray()
    try:
        async with asyncio.timeout(MAX_UPLOAD_SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > MAX_FILE_BYTES:
                    raise HTTPException(413, TOO_LARGE)
    except TimeoutError as error:
        raise HTTPException(408, TOO_SLOW) from error
    return bytes(content)


def _error(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status)
