"""What one visitor may use of the machine: the size of a request, the server's folders, the size of a search."""

import dataclasses
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from hf_captioner import ConfigError, ImageCaptioner
from hf_captioner.demo.app import build_page
from hf_captioner.demo.compare import load_captioner
from hf_captioner.demo.limits import MAX_BODY_BYTES, is_from_elsewhere, is_local
from tests.demo.serving import Server


def test_a_body_has_a_limit(server: Server) -> None:
    paths = [f"gradio_api/{path}" for path in ("call/caption", "queue/join", "run/caption", "mcp/")]
    for path in (*paths, "page/again", "page/frame"):
        url = f"{server.url}/{path}"
        assert httpx.post(url, json={"data": ["x" * MAX_BODY_BYTES]}, timeout=60).status_code == 413, path
    pieces = (b"x" * 65536 for _ in range(MAX_BODY_BYTES // 65536 + 1))
    answer = httpx.post(f"{server.url}/gradio_api/call/caption", content=pieces, timeout=60)
    assert answer.status_code == 413, "nor is its length believed"
    files = [("files", ("a.jpg", bytes(MAX_BODY_BYTES // 2)))] * 3
    assert httpx.post(f"{server.url}/gradio_api/upload", files=files, timeout=60).status_code == 200


def request(client: str, **headers: str) -> Request:
    listed = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"type": "http", "headers": listed, "client": (client, 5), "path": "/"}
    return Request(scope)


def test_only_who_sits_at_the_machine_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_local(request("127.0.0.1", host="localhost:7860"))
    assert is_local(request("::1", host="[::1]:7860"))
    assert not is_local(request("192.168.1.7", host="localhost:7860"))
    assert not is_local(request("127.0.0.1", host="page.example.org")), "a tunnel, or a name made to point here"
    assert not is_local(request("127.0.0.1"))
    assert not is_local(request("a socket", host="localhost:7860"))
    assert not is_local(request("127.0.0.1", host="localhost:7860", x_forwarded_for="8.8.8.8"))
    assert not is_local(request("127.0.0.1", host="[")), "a broken name"
    monkeypatch.setenv("SPACE_ID", "me/page")
    assert not is_local(request("127.0.0.1", host="localhost:7860"))


def test_a_page_of_another_site_is_told_from_the_page_itself_and_from_programs() -> None:
    for said in ("cross-site", "same-site", "", "x"):
        assert is_from_elsewhere(request("127.0.0.1", sec_fetch_site=said)), said
    for headers in ({"sec_fetch_site": "same-origin"}, {"sec_fetch_site": "none"}, {}):
        assert not is_from_elsewhere(request("127.0.0.1", **headers))


def test_a_search_larger_than_the_pages_is_refused_before_it_starts(
    tiny_captioner: ImageCaptioner, tmp_path: Path
) -> None:
    plain = tiny_captioner.generation_config
    for large, said in (({"num_beams": 50, "max_length": 50}, "2,500"), ({"num_alternatives": 60}, "60")):
        tiny_captioner.generation_config = dataclasses.replace(plain, **large)
        tiny_captioner.save_pretrained(tmp_path / said)
        with pytest.raises(ConfigError, match=f"= {said}; the page takes at most"):
            build_page(tiny_captioner)
        with pytest.raises(ConfigError, match=f"= {said}; the page takes at most"):
            load_captioner(str(tmp_path / said), folders=True)
