"""Downloads from the model hub.

Invariant: only here is the hub's client used, with the token from the environment; an error says what was asked for
and whether a retry can help.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rft_trainer.errors import BadInputError, StageError

MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.py")
DATA_FILES = ("*.jsonl", "*.json", "*.parquet")


def download(
    repository: str,
    destination: Path,
    *,
    kind: Literal["model", "dataset"],
    patterns: Sequence[str],
    revision: str | None = None,
) -> Path:
    """Fetch a snapshot into ``destination``; a partial download is continued.

    Raises :class:`BadInputError` when the repository, revision or permission is wrong, :class:`StageError` when the
    network failed.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name = f"hf://{repository}" + (f"@{revision}" if revision else "")
    try:
        path = snapshot_download(
            repository,
            repo_type=kind,
            revision=revision,
            local_dir=destination,
            allow_patterns=list(patterns),
            token=os.environ.get("HF_TOKEN") or None,
        )
    except GatedRepoError as error:
        raise BadInputError(f"{name}: the {kind} is gated; accept its terms and set secretRef to a token") from error
    except RevisionNotFoundError as error:
        raise BadInputError(f"{name}: no such revision of the {kind}") from error
    except RepositoryNotFoundError as error:
        raise BadInputError(f"{name}: no such {kind}, or it is private and secretRef has no token for it") from error
    except HFValidationError as error:
        raise BadInputError(f"{name}: {error}") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise StageError(f"{name}: the {kind} cannot be downloaded ({type(error).__name__}: {error})") from error
    return Path(path)
