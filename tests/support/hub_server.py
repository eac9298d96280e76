"""A model hub on 127.0.0.1: the part of the hub's HTTP interface that its client uses to fetch a repository.

It answers as the real one does: commits behind branches, paged listings, etags, large files by a redirect to another
host, and the codes by which the client tells a missing repository from a missing permission.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PAGE_FILES = 2
"""Files on one page of a listing; the real hub gives 1,000. So few make every repository here take several pages."""
EXPIRED_TOKEN = "expired"
_LARGE_SUFFIXES = (".safetensors", ".parquet")
"""Files that the hub keeps in its large-file store and serves from another host."""
_HOLD_SECONDS = 60
_INTERFACE = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)(/(?P<action>revision|tree)/(?P<revision>[^/]+))?"
)
_FILES = re.compile(r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRequest:
    """What arrived."""

    method: str
    host: str
    path: str
    authorization: str | None


@dataclass(slots=True)
class Repository:
    """A model or a dataset; ``token`` makes it private, ``gated`` asks for accepted terms."""

    token: str | None = None
    gated: bool = False
    card: dict[str, Any] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def push(self, content: Mapping[str, bytes], *, branch: str = "main") -> str:
        """Make this content the newest commit of a branch; return its id."""
        digests = {path: _sha256(data) for path, data in content.items()}
        commit = hashlib.sha1(json.dumps(digests, sort_keys=True).encode()).hexdigest()
        self.commits[commit] = dict(content)
        self.branches[branch] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch or a commit id stands for."""
        return self.branches.get(revision, revision if revision in self.commits else None)

    def refusal(self, authorization: str | None) -> _Answer | None:
        """What is said to who may not read it; a stranger cannot tell a private repository from none."""
        if self.token is not None and authorization != f"Bearer {self.token}":
            return _no_repository(authorization)
        if self.gated:
            return _refusal(403, "Access to this repository is restricted", code="GatedRepo")
        return None


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    file: str | None = None
    """The repository's file whose content this is."""


class Hub:
    """The hub's content, what was asked of it, and the faults a test sets."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[HubRequest] = []
        self.fetched: list[str] = []
        """The files whose content was asked for, in order."""
        self.answers_left: int | None = None
        """How many requests are still answered before the hub goes down; None: it stays."""
        self.held: dict[str, threading.Event] = {}
        """A file that stays half sent until the event."""
        self.half_sent = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        """What ``HF_ENDPOINT`` must be."""
        return f"http://127.0.0.1:{self.port}"

    def add(self, kind: str, name: str, content: Mapping[str, bytes]) -> Repository:
        """Add a ``model`` or ``dataset`` with one commit on ``main``."""
        repository = Repository()
        repository.push(content)
        self.repositories[f"{kind}s", name] = repository
        return repository

    def answer(self, request: HubRequest, query: Mapping[str, list[str]]) -> _Answer:
        """What the hub says."""
        self.requests.append(request)
        if self.answers_left is not None:
            self.answers_left -= 1
            if self.answers_left < 0:
                return _refusal(503, "the hub is down")
        if request.path.startswith("/cdn/"):
            return self._large_file(request.path.removeprefix("/cdn/"))
        if request.authorization == f"Bearer {EXPIRED_TOKEN}":
            return _refusal(401, "Invalid credentials in Authorization header")
        if asked := _INTERFACE.fullmatch(request.path):
            return self._interface(asked, request, start=int(query.get("cursor", ["0"])[0]))
        if asked := _FILES.fullmatch(request.path):
            return self._file(asked, request)
        return _refusal(404, "no such page")

    def _interface(self, asked: re.Match[str], request: HubRequest, *, start: int) -> _Answer:
        repository = self.repositories.get((asked["kind"], asked["name"]))
        if repository is None:
            return _no_repository(request.authorization)
        if refusal := repository.refusal(request.authorization):
            return refusal
        revision = unquote(asked["revision"] or "main")
        commit = repository.resolve(revision)
        if commit is None:
            return _refusal(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
        content = repository.commits[commit]
        if asked["action"] == "tree":
            entries = [_entry(path, data) for path, data in sorted(content.items())]
            end = start + PAGE_FILES
            next_page = f'<{self.url}{request.path}?recursive=true&cursor={end}>; rel="next"'
            return _json(entries[start:end], **({"Link": next_page} if end < len(entries) else {}))
        siblings = [{"rfilename": path} for path in content]
        return _json({"id": asked["name"], "sha": commit, "siblings": siblings, "cardData": repository.card})

    def _file(self, asked: re.Match[str], request: HubRequest) -> _Answer:
        kind = "datasets" if asked["kind"] else "models"
        repository = self.repositories[kind, asked["name"]]
        if refusal := repository.refusal(request.authorization):
            return refusal
        commit, path = asked["revision"], unquote(asked["path"])
        data = repository.commits[commit][path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_blob_id(data)}"'}
        if not path.endswith(_LARGE_SUFFIXES):
            return _Answer(200, data, headers, file=path)
        linked = {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{_sha256(data)}"'}
        elsewhere = f"http://localhost:{self.port}/cdn/{_sha256(data)}"
        return _Answer(302, b"", {**headers, **linked, "Location": elsewhere})

    def _large_file(self, sha256: str) -> _Answer:
        contents = [content for repository in self.repositories.values() for content in repository.commits.values()]
        files = [item for content in contents for item in content.items()]
        return next(_Answer(200, data, file=path) for path, data in files if _sha256(data) == sha256)


def _json(value: Any, **headers: str) -> _Answer:
    return _Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


def _refusal(status: int, message: str, *, code: str | None = None) -> _Answer:
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return _Answer(status, json.dumps({"error": message}).encode(), headers)


def _no_repository(authorization: str | None) -> _Answer:
    return _refusal(401 if authorization is None else 404, "Repository not found", code="RepoNotFound")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(path: str, data: bytes) -> dict[str, Any]:
    large = {"lfs": {"oid": _sha256(data), "size": len(data), "pointerSize": 134}}
    common = {"type": "file", "path": path, "size": len(data), "oid": _blob_id(data)}
    return {**common, **(large if path.endswith(_LARGE_SUFFIXES) else {})}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub

    def do_GET(self) -> None:
        answer = self._head()
        with contextlib.suppress(ConnectionError):  # a client that is killed is part of the tests
            self._send(answer)

    def do_HEAD(self) -> None:
        self._head()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Requests are recorded, not printed."""

    def _head(self) -> _Answer:
        url = urlsplit(self.path)
        request = HubRequest(
            method=self.command,
            host=self.headers["Host"].partition(":")[0],
            path=url.path,
            authorization=self.headers["Authorization"],
        )
        answer = self.hub.answer(request, parse_qs(url.query))
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        return answer

    def _send(self, answer: _Answer) -> None:
        if answer.file is not None:
            self.hub.fetched.append(answer.file)
        rest = answer.body
        if answer.file in self.hub.held:
            half = len(rest) // 2
            self.wfile.write(rest[:half])
            self.hub.half_sent.set()
            self.hub.held[answer.file].wait(_HOLD_SECONDS)
            rest = rest[half:]
        self.wfile.write(rest)


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """Serve an empty hub on a free port until the block ends."""
    hub = Hub()
    with listening(type("Handler", (_Handler,), {"hub": hub})) as hub.port:
        try:
            yield hub
        finally:
            for event in hub.held.values():
                event.set()


@contextlib.contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Answer with a handler on a free port of 127.0.0.1, which is given, until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="hub")
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
