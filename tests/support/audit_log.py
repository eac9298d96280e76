"""What an account did, as the API server's own audit log tells it, in the words of RBAC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.api_recorder import Use


def uses_of(log: Path, *, account: str) -> tuple[set[Use], set[Use]]:
    """Return what an account used its rights for, and what was refused to it; reads for discovery are left out."""
    allowed: set[Use] = set()
    refused: set[Use] = set()
    for event in _events(log):
        asked = event.get("objectRef")
        if event["user"]["username"] != account or asked is None or "resource" not in asked:
            continue
        resource = "/".join(each for each in (asked["resource"], asked.get("subresource")) if each)
        use = Use(asked.get("apiGroup", ""), resource, event["verb"], asked.get("namespace"), asked.get("name"))
        code = event["responseStatus"]["code"]
        (refused if code == 403 else allowed).add(use)
        if event["verb"] == "patch" and code == 201:
            allowed.add(use._replace(verb="create", name=None))  # a server-side apply that made the object
    return allowed, refused


def _events(log: Path) -> Iterator[Any]:
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):  # the last one may be in the middle of being written
                yield json.loads(line)
