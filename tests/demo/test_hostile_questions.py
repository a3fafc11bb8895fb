"""Whatever is sent to the page's own routes, the answer is one sentence, and the server goes on."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from hf_captioner import ImageCaptioner
from tests.conftest import generated
from tests.demo.asking import answered, file_of, image_in, question, refused
from tests.demo.serving import Server
from tests.demo.soak_requests import bad_images

KINDS = ("photo", "row", "frame")
PHOTO = file_of(generated(1))
INPUT = base64.b64encode(file_of(generated(1, (64, 64)))).decode()
NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "-1", "1.5", "9" * 30, "9" * 5000)
OTHERS = ("null", "[]", "{}", '""', '"x"', "[[1]]", "[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900)
TEXTS = ('"\\ud800"', '"\\udfff\\ud800"', '"%s"' % ("x" * 201), '"%s"' % ("dog " * 50_000), '"%s"' % ("é" * 100_000))
SENSIBLE = {("prefix", '""'), ("bad_words", '""'), ("bad_words", '"x"'), ("covered", "[]"), ("words", "1.5")}
SENSIBLE |= {(field, "true") for field in ("several", "words", "seed")}
"""What can be understood all the same."""


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{server.url}/page/", timeout=60) as page:
        yield page


@pytest.fixture(scope="module", autouse=True)
def goes_on(server: Server, saved_captioner: ImageCaptioner) -> Iterator[None]:
    """At the end the server answers as ever, and has noted no error of its own."""
    before = len(server.log)
    yield
    answer = answered(httpx.post(f"{server.url}/page/frame", content=PHOTO, timeout=60))
    assert answer["caption"]["caption"] == saved_captioner.caption(PHOTO).text
    assert "Traceback" not in server.log[before:]


def asked_with(field: str, value: str) -> bytes:
    """A question whose field has this value, as JSON or what looks like it."""
    return json.dumps(question(INPUT, **{field: "HERE"})).replace('"HERE"', value).encode()


@pytest.mark.parametrize("field", question(INPUT))
def test_a_field_that_is_not_what_it_should_be_is_one_sentence(field: str, page: httpx.Client) -> None:
    for value in (*NUMBERS, *OTHERS, *TEXTS, "true", ""):
        answer = page.post("again", content=asked_with(field, value))
        if (field, value) in SENSIBLE:
            assert answered(answer)["captions"], (field, value[:50])
        else:
            assert answer.status_code == 400, (field, value[:50])
            refused(answer)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'"x"',
        b"1",
        b"NaN",
        b"9" * 10_000,
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"\xff\xfe\x00",
        bytes(range(256)),
        PHOTO,
        json.dumps(question(INPUT)).encode("utf-16")[:-1],
        json.dumps(question(INPUT, model="/etc")).encode(),
        json.dumps({"input": INPUT}).encode(),
    ],
)
def test_what_is_no_question_is_one_sentence(content: bytes, page: httpx.Client) -> None:
    answer = page.post("again", content=content)
    assert answer.status_code == 400 and "not as the page asks it" in refused(answer)


@pytest.mark.parametrize(
    "asked",
    [
        {"covered": [0] * 1023},
        {"covered": [0] * 1025},
        {"covered": [2] * 1024},
        {"covered": ["1"] * 1024},
        {"covered": [[0]] * 1024},
        {"covered": [0] * 2_000_000},
        {"input": "%%%"},
        {"input": "é"},
        {"input": base64.b64encode(PHOTO).decode()},
        {"input": base64.b64encode(b"no image").decode()},
        {"input": INPUT[: len(INPUT) // 2]},
        {"input": base64.b64encode(bad_images()["a bomb"][0].content).decode()},
        {"prefix": "<script>alert(1)</script>"},
        {"prefix": "a \0 dog"},
        {"prefix": "dog " * 30},
        {"prefix": "{{1+1}} ${1+1} %s {0}"},
        {"length": "<b>" * 1000},
        {"words": 10**6},
        {"words": 100, "length": "Longer"},
        {"words": 200, "length": "Shorter", "several": True},
        {"words": -5, "length": "Longer"},
        {"seed": 1 << 31},
    ],
)
def test_a_question_that_makes_no_sense_is_one_sentence(asked: dict[str, Any], page: httpx.Client) -> None:
    answer = page.post("again", json=question(INPUT, **asked))
    assert answer.status_code == 400
    refused(answer)


def test_leaving_out_every_word_is_no_error(page: httpx.Client, saved_captioner: ImageCaptioner) -> None:
    every = " ".join(saved_captioner.tokenizer.words[4:])[:200]
    (caption,) = answered(page.post("again", json=question(INPUT, bad_words=every)))["captions"]
    assert not set(caption["caption"].split()) & set(every.split()[:-1])


@pytest.mark.parametrize("kind", bad_images())
def test_a_bad_image_is_one_sentence(kind: str, page: httpx.Client) -> None:
    image, said = bad_images()[kind]
    for route in KINDS:
        answer = page.post(route, content=image.content)
        assert answer.status_code == 400 and refused(answer).startswith(said)


def test_another_site_asks_nothing(page: httpx.Client) -> None:
    for kind in (*KINDS, "again", "compare"):
        for said in ("cross-site", "same-site", "x"):
            answer = page.post(kind, content=PHOTO, headers={"Sec-Fetch-Site": said, "Origin": "https://far.example"})
            assert answer.status_code == 403 and "Only the page itself" in refused(answer)
            assert "access-control-allow-origin" not in answer.headers
    answered(page.post("photo", content=PHOTO, headers={"Sec-Fetch-Site": "same-origin"}))


def test_only_what_is_sent_is_answered(page: httpx.Client) -> None:
    for kind in (*KINDS, "again", "compare"):
        for method in ("GET", "PUT", "DELETE", "PATCH"):
            assert page.request(method, kind).status_code in (404, 405), (method, kind)
    for path in ("photo/", "photo/x", "no", "page.js"):
        assert page.post(path, content=PHOTO).status_code in (404, 405), path


def test_what_a_file_is_called_a_header_says_or_a_type_promises_does_not_matter(page: httpx.Client) -> None:
    plain = answered(page.post("photo", content=PHOTO))
    for headers in (
        {"Content-Type": "text/html"},
        {"Content-Type": "multipart/form-data; boundary=" + "x" * 3000},
        {"Content-Type": "application/json", "X-Forwarded-Host": "<script>"},
        {"Cookie": "a=" + "x" * 3000, "Referer": "</script>"},
    ):
        assert answered(page.post("photo?name=<script>&model=/etc", content=PHOTO, headers=headers)) == plain
    assert image_in(plain["photo"]["image"]).size == (96, 64)
