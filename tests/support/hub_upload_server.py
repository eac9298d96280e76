"""A model hub on 127.0.0.1 that can be written to: the part of the HTTP interface that its client uses to publish.

It answers as the real one does: a repository that is there is a conflict, large files go by their hash to a store of
their own and are not asked for twice, and a commit takes all of its files or none.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from support.hub_server import listening

TOKEN = "hf_write"
_LARGE = (".safetensors",)
_MODEL = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+?)(/(?P<action>preupload|commit|revision)/(?P<revision>[^/]+))?")
_BATCH = re.compile(r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
_FILE = re.compile(r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass(slots=True)
class Model:
    """A repository: its files, and how often it was committed to."""

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})
    commits: int = 0

    @property
    def head(self) -> str:
        return hashlib.sha1(f"{self.commits}".encode()).hexdigest()


class WritableHub:
    """What was published, what was asked, and the faults a test sets."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.store: dict[str, bytes] = {}
        """Large files by SHA-256."""
        self.uploads: list[str] = []
        """SHA-256 of each large file that was sent, in order."""
        self.refused_commits = 0
        """So many commits fail, as when the hub goes down at the last moment."""
        self.refused_uploads = 0
        self.port = 0

    @property
    def url(self) -> str:
        """What ``HF_ENDPOINT`` must be."""
        return f"http://127.0.0.1:{self.port}"

    def answer(self, method: str, path: str, body: bytes, *, token: str | None) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON or bytes, headers."""
        if path.startswith("/store/"):
            return self._take(path.removeprefix("/store/"), body)
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid username or password."}, {}
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if asked := _BATCH.fullmatch(path):
            return 200, self._batch(json.loads(body)), {"Content-Type": "application/vnd.git-lfs+json"}
        if asked := _MODEL.fullmatch(path):
            return self._model(asked, method, body)
        if asked := _FILE.fullmatch(path):
            return self._file(asked)
        return 404, {"error": f"no such page: {method} {path}"}, {}

    def _validate(self, card: str) -> tuple[int, Any, dict[str, str]]:
        """The hub refuses a commit whose card it cannot read."""
        head = yaml.safe_load(card.split("---")[1])
        errors = [] if isinstance(head, dict) else [{"message": "the head of the card is no mapping"}]
        return (400 if errors else 200), {"errors": errors, "warnings": []}, {}

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
        if name.startswith("forbidden/"):
            return 403, {"error": "You don't have the rights to create a model under this namespace"}, {}
        url = {"url": f"{self.url}/{name}", "id": name, "name": name}
        if name in self.models:
            return 409, {"error": "You already created this model repo", **url}, {}
        self.models[name] = Model(private=wanted.get("visibility") == "private" or bool(wanted.get("private")))
        return 200, url, {}

    def _model(self, asked: re.Match[str], method: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        model = self.models.get(asked["name"])
        if model is None:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        if asked["action"] == "preupload":
            files = [
                {"path": each["path"], "uploadMode": "lfs" if each["path"].endswith(_LARGE) else "regular"}
                for each in json.loads(body)["files"]
            ]
            return 200, {"files": [{**each, "shouldIgnore": False, "oid": None} for each in files]}, {}
        if asked["action"] == "commit":
            return self._commit(asked["name"], [json.loads(line) for line in body.splitlines()])
        siblings = [{"rfilename": path} for path in model.files]
        return 200, {"id": asked["name"], "sha": model.head, "private": model.private, "siblings": siblings}, {}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> tuple[int, Any, dict[str, str]]:
        model = self.models[name]
        if self.refused_commits:
            self.refused_commits -= 1
            return 500, {"error": "the hub is down"}, {}
        parent = lines[0]["value"].get("parentCommit")
        if parent is not None and parent != model.head:
            return 412, {"error": "A commit has happened since"}, {}
        files = dict(model.files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.store[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        model.files, model.commits = files, model.commits + 1
        return 200, {"commitUrl": f"{self.url}/{name}/commit/{model.head}", "commitOid": model.head}, {}

    def _batch(self, wanted: dict[str, Any]) -> dict[str, Any]:
        objects = []
        for each in wanted["objects"]:
            actions = {"upload": {"href": f"{self.url}/store/{each['oid']}", "header": {}}}
            objects.append({**each, **({} if each["oid"] in self.store else {"actions": actions})})
        return {"transfer": "basic", "objects": objects}

    def _take(self, oid: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if self.refused_uploads:
            self.refused_uploads -= 1
            return 403, {"error": "the signature has expired"}, {}
        assert hashlib.sha256(body).hexdigest() == oid
        self.uploads.append(oid)
        self.store[oid] = body
        return 200, {}, {}

    def _file(self, asked: re.Match[str]) -> tuple[int, Any, dict[str, str]]:
        data = self.models[asked["name"]].files[unquote(asked["path"])]
        etag = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return 200, data, {"X-Repo-Commit": self.models[asked["name"]].head, "ETag": f'"{etag}"'}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: WritableHub

    def do_GET(self) -> None:
        self._respond()

    def do_HEAD(self) -> None:
        self._respond(body=False)

    def do_POST(self) -> None:
        self._respond()

    def do_PUT(self) -> None:
        self._respond()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Requests are not printed."""

    def _body(self) -> bytes:
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _respond(self, *, body: bool = True) -> None:
        sent = self._body()
        path = urlsplit(self.path).path
        status, content, headers = self.hub.answer(self.command, path, sent, token=self.headers["Authorization"])
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        if status >= 400:
            headers = {"X-Error-Message": content["error"], **headers}
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


@contextlib.contextmanager
def taking() -> Iterator[WritableHub]:
    """Serve an empty hub on a free port until the block ends."""
    hub = WritableHub()
    with listening(type("Handler", (_Handler,), {"hub": hub})) as hub.port:
        yield hub
