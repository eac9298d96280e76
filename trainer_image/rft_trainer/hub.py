"""Downloads from the model hub.

Invariant: only here is the hub's client used, with the token from the environment. A directory holds the files of one
commit, all of them or it is not used: what was fetched whole is never fetched anew, so a run sees one commit even when
the hub's branch moves on, and an error says what was asked for and what heals it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rft_trainer.errors import BadInputError, StageError
from rft_trainer.files import flush_directory, fresh_directory, read_json, write_json
from rft_trainer.full_volume import NO_ROOM
from rft_trainer.hub_token import hub_token

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MODEL_CARD = "README.md"
MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.py", MODEL_CARD)
"""The card is fetched for its license, which a model that is made of this one is under."""
DATA_FILES = ("*.jsonl", "*.jsonl.gz", "*.json", "*.json.gz", "*.parquet")
RECORD = ".download.json"
"""What a directory was fetched from, and whether it is whole."""

Kind = Literal["model", "dataset"]


def download(
    target: str,
    destination: Path,
    *,
    kind: Kind,
    patterns: Sequence[str],
    revision: str | None = None,
    one_configuration: bool = False,
) -> Path:
    """Fetch ``organisation/name`` into ``destination``; return the place of the files.

    A dataset's ``organisation/name/path`` means one file or directory of it. An interrupted download of the same
    commit is continued file by file. ``one_configuration`` refuses a dataset that has several, where none is named.

    Raises :class:`BadInputError` when the repository, revision or permission is wrong, :class:`StageError` when the
    network failed.
    """
    from huggingface_hub import HfApi

    repository, inside = _split(target)
    request = {"kind": kind, "target": target, "revision": revision, "patterns": [*patterns]}
    place = destination / inside
    if _is_whole(destination / RECORD, request=request):
        return place
    name = f"hf://{target}" + (f"@{revision}" if revision else "")
    if inside and kind == "model":
        raise BadInputError(f"{name}: a model is a whole repository; write hf://{repository}")
    api = HfApi(token=hub_token())
    with _explained(name, kind=kind):
        info = api.repo_info(repository, repo_type=kind, revision=revision)
        commit = info.sha
        files = _listing(api, repository, kind=kind, commit=str(commit), inside=inside, patterns=patterns)
    if one_configuration and not inside:
        _check_configurations(name, repository, getattr(info, "card_data", None))
    begun = {"request": request, "commit": commit, "whole": False}
    _keep_only(destination, begun=begun)
    with _explained(name, kind=kind):
        # the commit, not the branch: each file is then of this commit, and no other one is taken for want of a network
        api.snapshot_download(
            repository,
            repo_type=kind,
            revision=commit,
            local_dir=destination,
            allow_patterns=[escape(path) for path in files],
        )
    _finish(destination, files, name=name, kind=kind, begun=begun)
    return place


def _finish(destination: Path, files: Mapping[str, int], *, name: str, kind: Kind, begun: Mapping[str, Any]) -> None:
    """Note that all files are there, once they are."""
    missing = [path for path, size in files.items() if _size(destination / path) != size]
    if missing:
        raise StageError(f"{name}: the {kind} was not fetched whole, {missing[0]} is missing; the next attempt goes on")
    flush_directory(destination)  # else a node that loses its power leaves the record beside files that are not there
    write_json(destination / RECORD, {**begun, "whole": True})
    shutil.rmtree(destination / ".cache", ignore_errors=True)


def _check_configurations(name: str, repository: str, card: Any) -> None:
    """Raise :class:`BadInputError` for several configurations: their rows are often the same ones in other words."""
    found = [each for each in getattr(card, "configs", None) or () if isinstance(each, dict)]
    if len(found) < 2:
        return
    told = [
        f"{each.get('config_name')} ({', '.join(_places(each.get('data_files') or each.get('data_dir'))[:2])})"
        for each in found
    ]
    raise BadInputError(
        f"{name}: the dataset has {len(found)} configurations, and rows of one may be in another, too; name the folder "
        f"or file of the one that is meant, as hf://{repository}/FOLDER: {'; '.join(told[:6])}"
    )


def _places(data_files: Any) -> list[str]:
    """The paths in any of the forms that a card may give them in."""
    if isinstance(data_files, str):
        return [data_files]
    if isinstance(data_files, dict):
        return _places(data_files["path"] if "path" in data_files else list(data_files.values()))
    return [place for each in data_files or () for place in _places(each)] if isinstance(data_files, list) else []


def _split(target: str) -> tuple[str, str]:
    parts = target.split("/", 2)
    return "/".join(parts[:2]), parts[2].strip("/") if len(parts) > 2 else ""


def _is_whole(record: Path, *, request: Mapping[str, Any]) -> bool:
    known = read_json(record)
    return isinstance(known, dict) and known.get("whole") is True and known.get("request") == request


def _listing(
    api: HfApi, repository: str, *, kind: Kind, commit: str, inside: str, patterns: Sequence[str]
) -> dict[str, int]:
    """The size of each file that is wanted."""
    from huggingface_hub import RepoFile

    return {
        entry.path: entry.size
        for entry in api.list_repo_tree(repository, recursive=True, revision=commit, repo_type=kind)
        if isinstance(entry, RepoFile)
        and (not inside or entry.path == inside or entry.path.startswith(f"{inside}/"))
        and any(fnmatchcase(entry.path, pattern) for pattern in patterns)
    }


def _keep_only(destination: Path, *, begun: Mapping[str, Any]) -> None:
    """Leave what the same download has finished of its files, and nothing else."""
    if read_json(destination / RECORD) != begun:
        write_json(fresh_directory(destination) / RECORD, begun)
    for half in (destination / ".cache").rglob("*.incomplete"):
        half.unlink()  # the client never continues it, and it would hold the volume's space


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


@contextmanager
def _explained(name: str, *, kind: Kind) -> Iterator[None]:
    """Turn the client's errors into ours, by whether a retry can help."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise BadInputError(
            f"{name}: the {kind} is gated; accept its terms at the hub and set secretRef to a token of that account"
        ) from error
    except RevisionNotFoundError as error:
        raise BadInputError(f"{name}: the {kind} has no such revision; name a branch, tag or commit of it") from error
    except RepositoryNotFoundError as error:
        raise BadInputError(
            f"{name}: no such {kind}, or it is private; check the name, or set secretRef to a token that may read it"
        ) from error
    except HFValidationError as error:
        raise BadInputError(f"{name}: {_first_line(error)}") from error
    except HfHubHTTPError as error:
        if error.response.status_code in {401, 403}:
            raise BadInputError(
                f"{name}: the hub refuses access ({_first_line(error)}); set secretRef to a valid token for it"
            ) from error
        raise _cannot_be_downloaded(name, kind=kind, error=error) from error
    except Exception as error:  # the client lets errors of several HTTP libraries through; none is the user's
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise  # of the volume, not of the hub
        raise _cannot_be_downloaded(name, kind=kind, error=error) from error


def _cannot_be_downloaded(name: str, *, kind: Kind, error: Exception) -> StageError:
    return StageError(f"{name}: the {kind} cannot be downloaded ({type(error).__name__}: {_first_line(error)})")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
