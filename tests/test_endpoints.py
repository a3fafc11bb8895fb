"""The page's endpoints in the real server, asked as programs ask them."""

import asyncio
import base64
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

from hf_captioner import ImageCaptioner
from tests.conftest import generated
from tests.serving import Server, demo, serving
from tests.test_readme import blocks

SPACE = Path(__file__).resolve().parent.parent / "space"


@pytest.fixture(scope="module")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with demo(checkpoint, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return Client(server.url, verbose=False)


@pytest.fixture
def bad_path(tmp_path: Path) -> Path:
    path = tmp_path / "<b>bad<.jpg"
    path.write_text("no picture")
    return path


def test_the_endpoint_gives_the_caption_that_python_gives(
    client: Client, saved_captioner: ImageCaptioner, photograph_path: Path
) -> None:
    answer = client.predict(handle_file(photograph_path), api_name="/caption")
    caption = saved_captioner.caption(photograph_path)
    assert answer["caption"] == caption.text
    assert [word["text"] for word in answer["words"]] == [word.text for word in caption.words]
    assert sum(map(sum, answer["words"][0]["attention"])) == pytest.approx(1, abs=1e-2)


def test_a_caption_is_continued(client: Client, saved_captioner: ImageCaptioner, photograph_path: Path) -> None:
    answer = client.predict(handle_file(photograph_path), "two dog", api_name="/continue")
    assert answer["caption"] == saved_captioner.caption(photograph_path, begin_with="two dog").text
    with pytest.raises(AppError, match="'submarine', not among the model's words"):
        client.predict(handle_file(photograph_path), "a submarine", api_name="/continue")


def test_a_batch_goes_on_past_a_bad_picture(
    client: Client, saved_captioner: ImageCaptioner, photograph_path: Path, bad_path: Path
) -> None:
    answers = client.predict([handle_file(photograph_path), handle_file(bad_path)], api_name="/caption_batch")
    assert answers[0]["caption"] == saved_captioner.caption(photograph_path).text
    assert answers[1]["error"].startswith("This picture cannot be read: ") and "tmp" not in answers[1]["error"]


def test_the_readmes_examples_run(
    server: Server, photograph: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photograph.save("dog.jpg")
    example = blocks("python")[1].replace("http://127.0.0.1:7860", server.url).replace("two dogs", "two dog")
    said = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=True).stdout
    assert re.search(r"^[a-z ]+ \['[a-z]+'", said, re.MULTILINE)
    assert re.search(r"^two dog", said, re.MULTILINE)


def test_a_bad_picture_is_one_sentence_without_the_servers_paths(client: Client, bad_path: Path) -> None:
    with pytest.raises(AppError) as error:
        client.predict(handle_file(bad_path), api_name="/caption")
    assert "This picture cannot be read: " in str(error.value)
    assert "tmp" not in str(error.value)


def test_a_picture_of_the_servers_own_is_not_captioned(server: Server, photograph_path: Path) -> None:
    file = {"path": str(photograph_path), "meta": {"_type": "gradio.FileData"}}
    for name, data in (
        ("caption", [str(photograph_path)]),
        ("caption", [file]),
        ("caption", [None]),
        ("continue", [file, "a"]),
        ("caption_batch", [[file]]),
    ):
        call = f"{server.url}/gradio_api/call/{name}"
        event = httpx.post(call, json={"data": data}).json()["event_id"]
        answer = httpx.get(f"{call}/{event}", timeout=60).text
        assert "event: error" in answer
        assert "probability" not in answer


def test_the_server_asks_for_no_other_host(server: Server, client: Client, photograph_path: Path) -> None:
    client.predict(handle_file(photograph_path), api_name="/caption")
    assert server.hosts <= {"127.0.0.1", "localhost", "0.0.0.0", "None"}


def test_nothing_of_a_visitor_stays_on_disk(checkpoint: Path, photograph_path: Path, tmp_path: Path) -> None:
    forgetful = "import sys, app; app.SWEEP, app.KEPT = 1, 6; app.serve(sys.argv[1])"
    with serving([sys.executable, "-c", forgetful, str(checkpoint)], tmp_path, cwd=SPACE) as server:
        client = Client(server.url, verbose=False)
        client.predict(handle_file(photograph_path), api_name="/caption")
        assert photograph_path.read_bytes() in [path.read_bytes() for path in server.files], "else nothing is tested"
        for _ in range(40):
            if not server.files:
                break
            time.sleep(0.5)
        assert not server.files
        client.predict(handle_file(photograph_path), api_name="/caption")
        assert server.files
    assert not server.files, "the server has ended"


def test_an_upload_over_the_limit_is_refused(server: Server) -> None:
    answer = httpx.post(f"{server.url}/gradio_api/upload", files={"files": b"BM" + bytes(21_000_000)})
    assert answer.status_code == 413
    assert all(path.stat().st_size < 1e6 for path in server.files)


def test_twenty_visitors_at_once_each_get_their_own_answer(
    server: Server, saved_captioner: ImageCaptioner, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(20)]
    for index, path in enumerate(paths):
        generated(index).save(path)

    def visit(path: Path) -> str:
        return Client(server.url, verbose=False).predict(handle_file(path), api_name="/caption")["caption"]

    with ThreadPoolExecutor(20) as visitors:
        assert list(visitors.map(visit, paths)) == [caption.text for caption in saved_captioner.caption(paths)]


def test_an_assistant_captions_through_mcp(
    server: Server, saved_captioner: ImageCaptioner, photograph_path: Path
) -> None:
    data = base64.b64encode(photograph_path.read_bytes()).decode()

    async def ask() -> tuple[list[str], str]:
        url = f"{server.url}/gradio_api/mcp/"
        async with streamable_http_client(url) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            tools = await session.list_tools()
            answer = await session.call_tool("caption", {"photograph": f"data:image/jpeg;base64,{data}"})
            return [tool.name for tool in tools.tools], answer.content[0].text

    tools, answer = asyncio.run(ask())
    assert {"caption", "caption_batch", "continue_caption"} <= set(tools)
    assert f"'caption': '{saved_captioner.caption(photograph_path).text}'" in answer
