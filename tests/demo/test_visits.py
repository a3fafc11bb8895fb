"""What a visitor asked for ends after a while, and when the visitor has left."""

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from starlette.requests import Request

from hf_captioner.demo import visits
from hf_captioner.demo.limits import MAX_QUESTIONS
from hf_captioner.demo.visits import Visits
from tests.conftest import generated
from tests.demo.asking import file_of, refused
from tests.demo.serving import Server, serving


def visitor(session_hash: str) -> gr.Request:
    return gr.Request(Request({"type": "http", "headers": [], "path": "/"}), session_hash=session_hash)


def test_only_what_was_asked_before_a_visitor_left_is_stopped() -> None:
    page = Visits()
    ann, ben = page.stopping_criteria(visitor("ann")), page.stopping_criteria(visitor("ben"))
    assert not ann() and not ben()
    page.leave(visitor("ann"))
    assert ann() and not ben()
    assert not page.stopping_criteria(visitor("ann"))(), "a connection that broke off comes back"


def test_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "TIME_LIMIT", 0)
    one, many = Visits().stopping_criteria(visitor("ann")), Visits().stopping_criteria(visitor("ann"), many=True)
    assert one() and not many()


SLOW = """
import sys, time
from hf_captioner.demo import app, routes, visits
from hf_captioner.modeling.decoder import Decoder
step = Decoder.step
def slow(*given):
    with open(sys.argv[2], "a") as file:
        file.write("step ")
    time.sleep(float(sys.argv[3]))
    return step(*given)
Decoder.step = slow
visits.TIME_LIMIT, routes.MAX_UPLOAD_SECONDS = float(sys.argv[4]), 8
app.serve(sys.argv[1], backend="torch")
"""
"""The page, with a note of each step of a search, the seconds that it takes besides, and other limits of time."""


@contextlib.contextmanager
def slow_page(checkpoint: Path, folder: Path, seconds: float, limit: float) -> Iterator[Server]:
    command = [sys.executable, "-c", SLOW, str(checkpoint), str(folder / "steps"), str(seconds), str(limit)]
    with serving(command, folder) as server:
        yield server


def test_a_search_that_takes_too_long_is_one_sentence(checkpoint: Path, image_path: Path, tmp_path: Path) -> None:
    with slow_page(checkpoint, tmp_path, seconds=0.2, limit=0.1) as server:
        client = Client(server.url, verbose=False)
        for arguments, name in (((handle_file(image_path),), "caption"), ((handle_file(image_path), "a"), "continue")):
            with pytest.raises(AppError, match="took too long and was stopped"):
                client.predict(*arguments, api_name=f"/{name}")
        answer = httpx.post(f"{server.url}/page/photo", content=image_path.read_bytes(), timeout=60)
        assert answer.status_code == 503 and "took too long and was stopped" in refused(answer)


@pytest.mark.parametrize("name", ["caption", "caption_batch"])
def test_a_search_ends_when_its_visitor_leaves(checkpoint: Path, image_path: Path, tmp_path: Path, name: str) -> None:
    steps = tmp_path / "steps"
    with slow_page(checkpoint, tmp_path, seconds=1, limit=600) as server:
        api = f"{server.url}/gradio_api"
        config = httpx.get(f"{server.url}/config").json()
        index = next(each["id"] for each in config["dependencies"] if each["api_name"] == name)
        path = httpx.post(f"{api}/upload", files={"files": ("a.jpg", image_path.read_bytes())}).json()[0]
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        data = [[file] * 9] if name == "caption_batch" else [file]
        with httpx.stream("GET", f"{api}/heartbeat/ann", timeout=60):
            httpx.post(f"{api}/queue/join", json={"data": data, "fn_index": index, "session_hash": "ann"})
            while not steps.exists():
                time.sleep(0.1)
        time.sleep(3)
        after = steps.stat().st_size
        time.sleep(3)
        assert steps.stat().st_size == after < 20 * len("step ")


PHOTO = file_of(generated(1))


async def ask_and_leave(server: Server, visitors: int, steps: Path) -> list[httpx.Response]:
    """Visitors who all ask at once, and break off when a search has begun; the answers of those who got one."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=httpx.Limits()) as page:
        asking = [asyncio.create_task(page.post("/page/row", content=PHOTO)) for _ in range(visitors)]
        async with asyncio.timeout(60):
            while not steps.exists() or sum(each.done() for each in asking) < visitors - MAX_QUESTIONS:
                await asyncio.sleep(0.1)
        answers = [each.result() for each in asking if each.done()]
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    return answers


def test_the_page_stops_work_that_nobody_waits_for_and_takes_no_more_questions_than_it_can_hold(
    checkpoint: Path, tmp_path: Path
) -> None:
    steps = tmp_path / "steps"
    with slow_page(checkpoint, tmp_path, seconds=1, limit=600) as server:
        for answer in asyncio.run(ask_and_leave(server, MAX_QUESTIONS + 5, steps)):
            assert answer.status_code == 503 and "Too many visitors" in refused(answer)
        time.sleep(4)
        after = steps.stat().st_size
        time.sleep(3)
        assert steps.stat().st_size == after < 20 * len("step "), "neither the searches that ran nor those that waited"
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/page/photo", content=PHOTO, timeout=4)
        assert steps.stat().st_size > after, "and the next visitor's turn comes at once"


def test_visitors_whose_connection_is_lost_make_room(checkpoint: Path, tmp_path: Path) -> None:
    with slow_page(checkpoint, tmp_path, seconds=0, limit=60) as server, contextlib.ExitStack() as lost:
        address = httpx.URL(server.url)
        for _ in range(MAX_QUESTIONS):
            half = lost.enter_context(socket.create_connection((address.host, address.port or 80)))
            half.sendall(b"POST /page/photo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + PHOTO[:500])
        answers = []
        for _ in range(60):
            answers.append(httpx.post(f"{server.url}/page/photo", content=PHOTO, timeout=60).status_code)
            if answers[-1] == 200:
                break
            time.sleep(0.5)
        assert answers[0] == 503 and answers[-1] == 200
        half.settimeout(5)
        assert half.recv(1000).startswith(b"HTTP/1.1 408")
