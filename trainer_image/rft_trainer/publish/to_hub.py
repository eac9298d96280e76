"""Publishes to the model hub.

Invariant: a repository gets all files in one commit, or none; what was uploaded before a kill is not uploaded again,
for the hub knows large files by their hash. A repository that holds what no run of ours published is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rft_trainer.errors import BadInputError, StageError
from rft_trainer.publish.bundle import LIST_FILE, Bundle, listed
from rft_trainer.publish.published import Published

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MINE = frozenset({".gitattributes"})
"""What the hub itself puts into a new repository."""


def publish_to_hub(bundle: Bundle, repository: str, *, token: str | None, private: bool) -> Published:
    """Make the repository if need be, and commit what it has not yet."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api, name = HfApi(token=token), f"hf://{repository}"
    with _explained(name):
        api.create_repo(repository, private=private, exist_ok=True)
        head = api.model_info(repository)
        there = {each.rfilename for each in head.siblings or ()}
        before = listed(_content(api, repository, revision=str(head.sha))) if LIST_FILE in there else None
    if private and head.private is False:
        raise BadInputError(
            f"{name}: is public, and publish.private is true; make it private, name another repository, or set "
            "publish.private: false"
        )
    if before is None and there - MINE:
        raise BadInputError(
            f"{name}: holds files that no run of ours published ({', '.join(sorted(there - MINE)[:3])}); name a new "
            "repository, or empty this one"
        )
    if before == bundle.hashes and set(bundle.files) <= there:
        return Published(name, str(head.sha), files=len(bundle.files), written=0, size=bundle.size)
    changed = [path for path in bundle.files if path not in there or (before or {}).get(path) != bundle.hashes[path]]
    operations: list[Any] = [_add(CommitOperationAdd, bundle, path) for path in changed]
    operations.append(CommitOperationAdd(path_in_repo=LIST_FILE, path_or_fileobj=bundle.list_file))
    stale = sorted((set(before or ()) & there) - set(bundle.files))
    operations += [CommitOperationDelete(path_in_repo=path) for path in stale]
    with _explained(name):
        commit = api.create_commit(
            repository, operations, commit_message="Publish the model of a finetune run", parent_commit=str(head.sha)
        )
    return Published(name, str(commit.oid), files=len(bundle.files), written=len(changed), size=bundle.size)


def _add(kind: Any, bundle: Bundle, path: str) -> Any:
    content = bundle.files[path]
    return kind(path_in_repo=path, path_or_fileobj=content if isinstance(content, bytes) else str(content))


def _content(api: HfApi, repository: str, *, revision: str) -> bytes:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        return Path(api.hf_hub_download(repository, LIST_FILE, revision=revision, local_dir=folder)).read_bytes()


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn the client's errors into ours, by whether a retry can help."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        yield
    except HFValidationError as error:
        raise BadInputError(f"{name}: {_first_line(error)}") from error
    except RepositoryNotFoundError as error:
        raise BadInputError(
            f"{name}: the token may not write there; set publish.secretRef to one that may write to that organisation"
        ) from error
    except HfHubHTTPError as error:
        if error.response.status_code in {401, 403}:
            raise BadInputError(
                f"{name}: the hub refuses ({_first_line(error)}); set publish.secretRef to a token that may write there"
            ) from error
        raise StageError(f"{name}: cannot be published ({_first_line(error)}); the next attempt goes on") from error
    except Exception as error:  # the client lets errors of several HTTP libraries through
        raise StageError(
            f"{name}: cannot be published ({type(error).__name__}: {_first_line(error)}); the next attempt goes on"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
