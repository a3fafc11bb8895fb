"""A stand-in for the Hugging Face Hub on 127.0.0.1, for the real client: models, Spaces and data sets.

with StandInHub() as hub:
    subprocess.run([...], env={**os.environ, **hub.environment(home)})    # another process
    hub.use(monkeypatch, home)                                            # or this one
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from huggingface_hub import close_session, constants

from tests.hub.standin_repository import Commit, Files, Repository, is_large, object_id

TOKEN = "hf_standin"
USER = "me"


class StandInHub:
    """`repositories` is keyed by (`models`, `spaces` or `datasets`, id); `requests` logs every (method, path)."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.full = False
        """Refuse large files."""
        self.faults: dict[str, int] = {}
        """What a route of _ROUTES answers instead of doing its work: a status, or 0 to drop the connection."""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.server.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        close_session()
        self.server.shutdown()
        self.server.server_close()

    def model(self, repo_id: str) -> Repository:
        return self.repositories["models", repo_id]

    def space(self, repo_id: str) -> Repository:
        return self.repositories["spaces", repo_id]

    def dataset(self, repo_id: str, files: dict[str, bytes]) -> Repository:
        """A data set that somebody has put there."""
        self.repositories["datasets", repo_id] = Repository()
        self.repositories["datasets", repo_id].commit("Upload", files)
        return self.repositories["datasets", repo_id]

    def environment(self, home: Path, token: str = TOKEN) -> dict[str, str]:
        """Variables that point the Hub's client in another process here, with an empty cache under `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def use(self, monkeypatch: pytest.MonkeyPatch, home: Path, token: str = TOKEN) -> None:
        """Point the client in this process here; it reads these settings when it is imported."""
        point_client_at(self.url, monkeypatch, home)
        monkeypatch.setenv("HF_TOKEN", token)


def point_client_at(url: str, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """The client in this process asks `url`, with an empty cache under `home`."""
    close_session()
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        self.status, self.message, self.code = status, message, code


@dataclass
class _Answer:
    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200) -> "_Answer":
        return cls(json.dumps(value).encode(), status, {"Content-Type": "application/json"})


_ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", r"/api/(models|spaces|datasets)/(.+?)/preupload/([^/]+)", "preupload"),
    ("POST", r"/api/(models|spaces|datasets)/(.+?)/commit/([^/]+)", "commit"),
    ("GET", r"/api/(models|spaces|datasets)/(.+?)/tree/([^/]+)", "tree"),
    ("GET", r"/api/(models|spaces|datasets)/([^/]+(?:/[^/]+)??)(?:/revision/([^/]+))?", "info"),
    ("POST", r"/(?:(spaces|datasets)/)?(.+?)\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/([0-9a-f]{64})", "lfs_put"),
    ("POST", r"/lfs/verify", "lfs_verify"),
    ("GET", r"/(?:(spaces|datasets)/)?([^/]+(?:/[^/]+)?)/resolve/([^/]+)/(.+)", "resolve"),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> StandInHub:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def log_message(self, format: str, *args: Any) -> None:
        """Keep stderr for the tests; `hub.requests` has the log."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        self.hub.requests.append((self.command, self.path))
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        try:
            answer = self._route(method, parts.path)
        except _Refused as refused:
            if not refused.status:
                self.close_connection = True
                return
            answer = _Answer.json({"error": refused.message}, refused.status)
            answer.headers["X-Error-Message"] = refused.message
            if refused.code:
                answer.headers["X-Error-Code"] = refused.code
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _route(self, method: str, path: str) -> _Answer:
        for wanted, pattern, name in _ROUTES:
            match = re.fullmatch(pattern, path)
            if wanted == method and match and name in self.hub.faults:
                raise _Refused(self.hub.faults[name], "A fault of the stand-in")
            if wanted == method and match:
                if not path.startswith("/lfs/"):  # as on the Hub, those addresses need no token
                    self._check_token(writes=method != "GET")
                answer: _Answer = getattr(self, name)(*(group and unquote(group) for group in match.groups()))
                return answer
        raise _Refused(404, f"the stand-in does not know {method} {path}")

    def _check_token(self, *, writes: bool) -> None:
        given = self.headers.get("Authorization")
        if given and given != f"Bearer {TOKEN}":
            raise _Refused(401, "Invalid credentials in Authorization header")
        if writes and not given:
            raise _Refused(401, "Invalid username or password.")

    def _repository(self, kind: str | None, repo_id: str) -> Repository:
        repository = self.hub.repositories.get((kind or "models", repo_id))
        if repository is None or (repository.private and "Authorization" not in self.headers):
            raise _Refused(404 if "Authorization" in self.headers else 401, "Repository not found", "RepoNotFound")
        return repository

    def _commits(self, repository: Repository, revision: str) -> list[Commit]:
        try:
            return repository.commits(revision)
        except KeyError:
            raise _Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound") from None

    # -- routes, named in _ROUTES -------------------------------------------------------------------------------------

    def whoami(self) -> _Answer:
        token = {"displayName": "test", "role": "write"}
        auth = {"type": "access_token", "accessToken": token}
        return _Answer.json({"type": "user", "name": USER, "fullname": "Me", "orgs": [], "auth": auth})

    def create(self) -> _Answer:
        given = json.loads(self.body)
        owner, kind = given.get("organization") or USER, f"{given.get('type') or 'model'}s"
        if owner != USER:
            raise _Refused(403, f"You don't have the rights to create a {kind[:-1]} under the namespace {owner!r}")
        repo_id = f"{owner}/{given['name']}"
        url = f"{self.hub.url}/{'' if kind == 'models' else f'{kind}/'}{repo_id}"
        if (kind, repo_id) in self.hub.repositories:
            return _Answer.json({"error": "You already created this repo", "url": url}, 409)
        private = given.get("visibility") == "private" or bool(given.get("private"))
        self.hub.repositories[kind, repo_id] = Repository(private, given.get("sdk"))
        return _Answer.json({"url": url, "name": repo_id, "id": repo_id})

    def validate(self) -> _Answer:
        content = json.loads(self.body)["content"]
        errors = [] if content.startswith("---\n") else [{"message": "no metadata"}]
        return _Answer.json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, kind: str, repo_id: str, revision: str) -> _Answer:
        repository = self._repository(kind, repo_id)
        self._commits(repository, revision)
        files = []
        for given in json.loads(self.body)["files"]:
            path = given["path"]
            large = is_large(path, given["size"])
            old = repository.files(revision).get(path)
            oid = {} if old is None else {"oid": object_id(old, large)}
            mode = "lfs" if large else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **oid})
        return _Answer.json({"files": files})

    def lfs_batch(self, kind: str | None, repo_id: str) -> _Answer:
        self._repository(kind, repo_id)
        objects = []
        for given in json.loads(self.body)["objects"]:
            upload = {"href": f"{self.hub.url}/lfs/{given['oid']}", "header": {}}
            verify = {"href": f"{self.hub.url}/lfs/verify", "header": {}}
            here = given["oid"] in self.hub.large
            objects.append(given if here else {**given, "actions": {"upload": upload, "verify": verify}})
        return _Answer.json({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> _Answer:
        if self.hub.full:
            raise _Refused(403, "You have exceeded your storage limit")
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Refused(400, "the content does not match its sha256")
        self.hub.large[oid] = self.body
        return _Answer(b"")

    def lfs_verify(self) -> _Answer:
        if json.loads(self.body)["oid"] not in self.hub.large:
            raise _Refused(404, "no such object")
        return _Answer(b"")

    def commit(self, kind: str, repo_id: str, revision: str) -> _Answer:
        repository = self._repository(kind, repo_id)
        parents = self._commits(repository, revision)
        files: Files = {}
        by_lfs, deleted, title = set(), set(), ""
        for line in self.body.splitlines():
            key, value = (item := json.loads(line))["key"], item["value"]
            if key == "header":
                title = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
                by_lfs.add(value["path"])
            elif key == "deletedFile":
                deleted.add(value["path"])
            else:
                raise _Refused(400, f"the stand-in does not know {key}")
        pull_request = {}
        if self.query.get("create_pr") == ["1"]:
            number = sum(name.startswith("refs/pr/") for name in repository.branches) + 1
            revision = f"refs/pr/{number}"
            repository.branches[revision] = list(parents)
            pull_request = {"pullRequestUrl": f"{self.hub.url}/{repo_id}/discussions/{number}"}
        made = repository.commit(title, files, revision=revision, by_lfs=by_lfs, deleted=deleted)
        url = f"{self.hub.url}/{repo_id}/commit/{made.sha}"
        return _Answer.json({"success": True, "commitOid": made.sha, "commitUrl": url, **pull_request})

    def info(self, kind: str, repo_id: str, revision: str | None) -> _Answer:
        repository = self._repository(kind, repo_id)
        commits = self._commits(repository, revision or "main")
        files = commits[-1].files if commits else {}
        about: dict[str, Any] = {
            "id": repo_id,
            "sha": commits[-1].sha if commits else "0" * 40,
            "private": repository.private,
            "siblings": [{"rfilename": path} for path in sorted(files)],
        }
        if kind == "spaces":
            hardware = {"current": "cpu-basic", "requested": "cpu-basic"}
            about |= {"sdk": repository.sdk, "runtime": {"stage": "RUNNING", "hardware": hardware}}
        return _Answer.json(about)

    def tree(self, kind: str, repo_id: str, revision: str) -> _Answer:
        commits = self._commits(self._repository(kind, repo_id), revision)
        entries = []
        for path, content in sorted(commits[-1].files.items() if commits else ()):
            entry: dict[str, Any] = {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": object_id(content, False),
            }
            if is_large(path, len(content)):
                entry["lfs"] = {"oid": object_id(content, True), "size": len(content), "pointerSize": 130}
            entries.append(entry)
        return _Answer.json(entries)

    def resolve(self, kind: str | None, repo_id: str, revision: str, path: str) -> _Answer:
        commits = self._commits(self._repository(kind, repo_id), revision)
        if not commits or path not in commits[-1].files:
            raise _Refused(404, "Entry not found", "EntryNotFound")
        content = commits[-1].files[path]
        large = is_large(path, len(content))
        headers = {"X-Repo-Commit": commits[-1].sha, "ETag": f'"{object_id(content, large)}"', "Accept-Ranges": "bytes"}
        if large:
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content))}
        resumed = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not resumed:
            return _Answer(content, 200, headers)
        first = int(resumed[1])
        headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        return _Answer(content[first:], 206, headers)
