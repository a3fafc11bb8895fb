"""The page's endpoints in the real server, asked as programs ask them."""

import asyncio
import base64
import contextlib
import http.client
import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from hf_captioner import CheckpointError, ImageCaptioner
from hf_captioner.demo.compare import load_captioner
from tests.conftest import generated
from tests.demo.serving import Server, serving

SPACE = Path(__file__).resolve().parents[2] / "space"


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return Client(server.url, verbose=False, httpx_kwargs={"timeout": 60})


def test_the_endpoint_gives_the_caption_that_python_gives(
    client: Client, saved_captioner: ImageCaptioner, image_path: Path
) -> None:
    answer = client.predict(handle_file(image_path), api_name="/caption")
    caption = saved_captioner.caption(image_path)
    assert answer["caption"] == caption.text
    assert [word["text"] for word in answer["words"]] == [word.text for word in caption.words]
    assert sum(map(sum, answer["words"][0]["attention"])) == pytest.approx(1, abs=1e-2)


def test_a_caption_is_continued(client: Client, saved_captioner: ImageCaptioner, image_path: Path) -> None:
    answer = client.predict(handle_file(image_path), "two dog", api_name="/continue")
    assert answer["caption"] == saved_captioner.caption(image_path, prefix="two dog").text
    with pytest.raises(AppError, match="doesn't know 'submarine'"):
        client.predict(handle_file(image_path), "a submarine", api_name="/continue")


def test_a_batch_goes_on_past_a_bad_image(
    client: Client, saved_captioner: ImageCaptioner, image_path: Path, bad_path: Path
) -> None:
    answers = client.predict([handle_file(image_path), handle_file(bad_path)], api_name="/caption_batch")
    assert answers[0]["caption"] == saved_captioner.caption(image_path).text
    assert answers[1]["error"].startswith("This file isn't an image")


def test_a_bad_image_is_one_sentence_without_the_servers_paths(client: Client, bad_path: Path) -> None:
    with pytest.raises(AppError, match="This file isn't an image") as error:
        client.predict(handle_file(bad_path), api_name="/caption")
    assert "tmp" not in str(error.value)


def called(server: Server, name: str, data: list[Any]) -> str:
    """The events of a call made by hand."""
    call = f"{server.url}/gradio_api/call/{name}"
    event = httpx.post(call, json={"data": data}).json()["event_id"]
    return httpx.get(f"{call}/{event}", timeout=60).text


def uploaded(server: Server, name: str, content: bytes) -> str:
    """Where the server keeps an upload."""
    return httpx.post(f"{server.url}/gradio_api/upload", files={"files": (name, content)}).json()[0]


def answer_to(server: Server, path: str) -> tuple[int, bytes]:
    """The answer to a GET whose path is sent as it is, dots and all."""
    with contextlib.closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


MARK = {"meta": {"_type": "gradio.FileData"}}
"""Gradio's, for a file."""


def test_a_models_name_that_is_too_long_is_one_sentence() -> None:
    """The page escapes it; it could not escape what Gradio itself shows of an error of another kind."""
    for folders in (False, True):
        for name in ("<b>" * 100, "a" * 5000):
            with pytest.raises(CheckpointError, match="Hub id"):
                load_captioner(name, folders=folders)


def test_an_image_of_the_servers_own_is_not_captioned(server: Server, image_path: Path) -> None:
    path = {"path": str(image_path)}
    climbing = {"path": f"{uploaded(server, 'a.jpg', b'')}/../../../..{image_path}"}
    files = [path | MARK, path, path | {"meta": {}}, path | {"meta": {"_type": "mine"}}, climbing, climbing | MARK]
    for name, data in (
        ("caption", [str(image_path)]),
        ("caption", [None]),
        *(("caption", [file]) for file in files),
        *(("continue", [file, "a"]) for file in files),
        *(("caption_batch", [[file]]) for file in files),
    ):
        answer = called(server, name, data)
        assert "event: error" in answer, (name, data)
        assert "probability" not in answer


def test_whether_the_server_has_a_file_is_not_told(server: Server) -> None:
    answers = [
        called(server, "caption", [{"path": path} | mark]) for path in ("/etc/passwd", "/etc/no") for mark in ({}, MARK)
    ]
    assert [answer.replace("passwd", "no") for answer in answers[:2]] == answers[2:]


def test_no_file_of_the_server_is_read_through_it(server: Server, checkpoint: Path) -> None:
    files = [Path("/etc/passwd"), SPACE / "app.py", checkpoint / "config.json", server.folder / "log"]
    forms = [str(path) for path in files]
    forms += [
        f"{up}{path}" for path in files for up in ("/..", "..", "../" * 9, "%2e%2e/" * 9, "..%2f" * 9, "....//" * 9)
    ]
    forms += [str(path).replace("/", code) for path in files for code in ("%2f", "%252f", "%5c", "/./", "//")]
    forms += ["app.py", "./app.py", "space/app.py", "/proc/self/environ", "file:///etc/passwd", "/etc/passwd%00.jpg"]
    roots = ["/gradio_api/file=", "/gradio_api/file/", "/static/", "/assets/", "/svelte/", "/gradio_api/proxy="]
    secrets = [path.read_bytes()[:60] for path in files if path.stat().st_size]
    for path in (root + form for root in roots for form in forms):
        status, content = answer_to(server, path)
        assert status >= 400, path
        assert not any(secret in content for secret in secrets), path


def test_an_upload_is_no_page_of_the_servers(server: Server) -> None:
    """What a browser would run is handed back as a file to save."""
    for name in ("a.html", "a.svg", "a.xhtml", "a", "a.jpg.html"):
        path = uploaded(server, name, b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
        answer = httpx.get(f"{server.url}/gradio_api/file={path}")
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["content-type"] == "application/octet-stream"


def test_what_a_visitor_types_is_no_markup(server: Server, image_path: Path) -> None:
    markup = "</script><img src=x onerror=alert(1)>"
    path = uploaded(server, f"{markup}.jpg", image_path.read_bytes())
    assert "<" not in path
    for url in (f"/?q={markup}", f"/?__theme={markup}", f"/?view={markup}", f"/{markup}", f"/gradio_api/file={markup}"):
        answer = httpx.get(server.url + url, headers={"X-Forwarded-Host": markup, "Referer": markup})
        assert not answer.headers["content-type"].startswith("text/html") or markup not in answer.text
    data = [{"path": path, "orig_name": f"{markup}.jpg"} | MARK, markup]
    event = httpx.post(f"{server.url}/gradio_api/call/continue", json={"data": data}).json()["event_id"]
    answer = httpx.get(f"{server.url}/gradio_api/call/continue/{event}")
    assert "The model doesn't know" in answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    direct = httpx.post(f"{server.url}/gradio_api/run/continue", json={"data": data})
    assert direct.headers["content-type"] == "application/json"
    batch = called(server, "caption_batch", [[{"path": uploaded(server, "a", b"x"), "orig_name": markup} | MARK]])
    assert "isn't an image" in batch and "<" not in batch


def test_the_server_asks_for_no_other_host(server: Server, client: Client, image_path: Path) -> None:
    client.predict(handle_file(image_path), api_name="/caption")
    assert server.hosts <= {"127.0.0.1", "localhost", "0.0.0.0", "None"}


def test_nothing_of_a_visitor_stays_on_disk(checkpoint: Path, image_path: Path, tmp_path: Path) -> None:

    def stored() -> set[str]:
        """Files and folders; `Path.rglob` stumbles over a folder that is deleted meanwhile."""
        walked = os.walk(tmp_path / "tmp")
        return {f"{folder}/{name}" for folder, folders, files in walked for name in (*folders, *files)}

    forgetful = "import sys; from hf_captioner.demo import app, uploads\n"
    forgetful += "uploads.CLEANUP_INTERVAL, uploads.UPLOAD_TTL = 1, 6; app.serve(sys.argv[1], backend='torch')"
    with serving([sys.executable, "-c", forgetful, str(checkpoint)], tmp_path) as server:
        client = Client(server.url, verbose=False, httpx_kwargs={"timeout": 60})
        own = stored()
        client.predict(handle_file(image_path), api_name="/caption")
        assert image_path.read_bytes() in [path.read_bytes() for path in server.files], "else nothing is tested"
        for _ in range(60):
            if stored() == own:
                break
            time.sleep(0.5)
        assert stored() == own, "the images of the page's buttons stay"
        client.predict(handle_file(image_path), api_name="/caption")
        assert set(server.files) - own
    assert not server.files, "the server has ended"


def test_an_upload_over_the_limit_is_refused(server: Server) -> None:
    before = set(server.files)
    answer = httpx.post(f"{server.url}/gradio_api/upload", files={"files": b"BM" + bytes(21_000_000)})
    assert answer.status_code == 413
    assert all(path.stat().st_size < 1e6 for path in set(server.files) - before)


def test_no_address_inside_the_servers_network_is_asked(server: Server) -> None:
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "127.1", "2130706433"):
            url = f"http://{host}:{port}/x.jpg"
            for file in ({"path": url} | MARK, {"path": url}, {"path": "x.jpg", "url": url} | MARK):
                answer = called(server, "caption", [file])
                assert "event: error" in answer, file
            assert httpx.get(f"{server.url}/gradio_api/file={url}").status_code in (403, 404)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_twenty_visitors_at_once_each_get_their_own_answer(
    server: Server, saved_captioner: ImageCaptioner, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(20)]
    for index, path in enumerate(paths):
        generated(index).save(path)

    def visit(path: Path) -> str:
        return Client(server.url, verbose=False, httpx_kwargs={"timeout": 60}).predict(
            handle_file(path), api_name="/caption"
        )["caption"]

    with ThreadPoolExecutor(20) as visitors:
        assert list(visitors.map(visit, paths)) == [caption.text for caption in saved_captioner.caption(paths)]


def test_an_assistant_captions_through_mcp(server: Server, saved_captioner: ImageCaptioner, image_path: Path) -> None:
    data = base64.b64encode(image_path.read_bytes()).decode()

    async def ask() -> tuple[list[str], str]:
        url = f"{server.url}/gradio_api/mcp/"
        async with streamable_http_client(url) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            tools = await session.list_tools()
            answer = await session.call_tool("caption", {"image": f"data:image/jpeg;base64,{data}"})
            return [tool.name for tool in tools.tools], answer.content[0].text

    tools, answer = asyncio.run(ask())
    assert {"caption", "caption_batch", "continue_caption"} <= set(tools)
    assert f"'caption': '{saved_captioner.caption(image_path).text}'" in answer
