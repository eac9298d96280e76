"""Reads the rows of a dataset URI.

Invariant: rows come in one order, that of the files sorted by name, so the same source gives the same training.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from rft_trainer.contract import DatasetSource
from rft_trainer.errors import BadInputError
from rft_trainer.files import LEADS_NOWHERE, leads_nowhere
from rft_trainer.gym import gym_questions
from rft_trainer.hub import DATA_FILES, download
from rft_trainer.paths import Layout
from rft_trainer.prepare.formats import Conversation, s1_conversation, to_conversation
from rft_trainer.uris import local_path, parse_uri

DEFAULT_GYM_ROWS = 12_000
TRAINING_GYM_SEED = 1_000_000
_SPLIT = re.compile(r"(?<![a-z0-9])(train|test|validation|valid|val|dev|eval)(?![a-z0-9])")
"""Words of a path that name a split by custom of the hub."""
_TRAIN = "train"
"""The split that is meant where none is asked for: whatever names no split is of it."""
_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
_OTHER_FORMS = (
    ".arrow", ".bz2", ".csv", ".feather", ".lz4", ".pkl", ".tar", ".tar.gz", ".tgz", ".tsv", ".xlsx", ".xz", ".zip",
    ".zst",
)  # fmt: skip
"""Of rows that others write, and nothing here reads."""
_OTHERWISE_PACKED = re.compile(r"\.(?:jsonl?|parquet)\.(?:bz2|lz4|xz|zip|zst)$")
_NO_ROWS = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
"""What the library datasets writes beside the rows."""
_NO_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)


def conversations(source: DatasetSource, layout: Layout, *, download_to: Path) -> Iterator[Conversation | None]:
    """The conversations of the dataset, in order; None stands for a row without an answer."""
    uri = parse_uri(source.uri)
    if uri.scheme == "gym":
        for item in gym_questions(
            uri, limit=source.max_samples, default_size=DEFAULT_GYM_ROWS, default_seed=TRAINING_GYM_SEED
        ):
            yield s1_conversation(question=item.question, thinking=item.thinking, answer=item.answer)
        return
    if uri.scheme == "hf":
        path = download(
            uri.target,
            download_to,
            kind="dataset",
            patterns=DATA_FILES,
            revision=source.revision,
            one_configuration=True,
        )
    else:
        found = local_path(uri, layout)
        if found is None:
            raise BadInputError(f"dataset.uri {source.uri!r}: write hf://, pvc://, file:// or gym://")
        path = found
    files = data_files(path, split=source.split, where=source.uri)
    _check_split(files, path, source=source)
    for index, (where, row) in enumerate(row for file in files for row in read_rows(file)):
        if source.max_samples is not None and index >= source.max_samples:
            return
        yield to_conversation(row, format_=source.format, where=where)


def _check_split(files: Sequence[Path], path: Path, *, source: DatasetSource) -> None:
    """Raise :class:`BadInputError` when no file is named for a split that is asked for: rows of all would be trained.

    A single file is named by its URI, without the claim's or the organisation's name.
    """
    inside = parse_uri(source.uri).target.partition("/")[2]
    word = _word(source.split)
    if source.split == _TRAIN or any(word.search(f"{inside}/{file.relative_to(path)}".lower()) for file in files):
        return
    what = "is one file" if path.is_file() else "has no file that is named for a split"
    raise BadInputError(
        f"dataset.split {source.split!r}: {source.uri} {what}, so its rows are of no split that is known; remove "
        "dataset.split to train on all of them, or name the file or the folder of that split"
    )


def _word(split: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9]){re.escape(split.lower())}(?![a-z0-9])")


def data_files(path: Path, *, split: str, where: str) -> list[Path]:
    """The data files at ``path``: itself, or those whose path names the split as a word, or all if none names any."""
    if path.is_file():
        return [path]
    there = sorted(
        file
        for file in path.rglob("*")
        if not file.is_dir()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.name not in _NO_ROWS
    )
    found = [file for file in there if file.name.endswith(_SUFFIXES) or _OTHERWISE_PACKED.search(file.name)]
    if not found:
        other = next((file for file in there if file.name.endswith(_OTHER_FORMS)), None)
        instead = f", but {other.relative_to(path)}; write the rows as one of these" if other is not None else ""
        raise BadInputError(f"{where}: has no {', '.join(_SUFFIXES)} file{instead}")
    word = _word(split)
    named = [file for file in found if word.search(str(file.relative_to(path)).lower())]
    others = [file for file in found if _SPLIT.search(str(file.relative_to(path)).lower())]
    if not named and others:
        names = ", ".join(str(file.relative_to(path)) for file in others[:4])
        raise BadInputError(
            f"{where}: no file is named for split {split!r}, but others are: {names}; name one of theirs"
        )
    _check_one_form(named or found, path, where=where)
    return named or found


def _check_one_form(files: Sequence[Path], path: Path, *, where: str) -> None:
    """Raise :class:`BadInputError` for rows that may stand there in another form, too: they would be read twice."""
    named: dict[str, Path] = {}
    pairs = [(named.setdefault(_without_suffix(file), file), file) for file in files]
    parquet = [file for file in files if file.suffix == ".parquet"]
    if len(parquet) < len(files):
        pairs += zip(parquet, (file for file in files if file not in parquet), strict=False)
    for one, other in pairs:
        if one != other:
            first, second = sorted(str(file.relative_to(path)) for file in (one, other))
            raise BadInputError(
                f"{where}: {first} and {second} may be the same rows in two forms; name the file or the folder that is "
                "to be read, or write all in one form where they are others"
            )


def _without_suffix(file: Path) -> str:
    suffix = max((each for each in _SUFFIXES if file.name.endswith(each)), key=len, default="")
    return str(file).removesuffix(suffix)


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of one file, each with the place it stands at, for errors."""
    if leads_nowhere(path):
        raise BadInputError(f"{path.name}: {LEADS_NOWHERE}")
    if path.name.lower().endswith(_OTHER_FORMS):
        raise BadInputError(f"{path.name}: files of this form are not read; write the rows as {', '.join(_SUFFIXES)}")
    if path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.name.endswith((".json", ".json.gz")) and not _begins_with_a_row(path):
        yield from _json_array(path)
    else:
        yield from _json_lines(path)


def _begins_with_a_row(path: Path) -> bool:
    """Whether the first line is an object: as others name JSON Lines, which are too many to be read at once."""
    try:
        with _opened(path) as stream:
            return isinstance(json.loads(stream.readline()), dict)
    except (ValueError, RecursionError, *_NO_GZIP):
        return False


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    with _opened(path) as stream:
        try:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield json_object(line, where=f"{path.name}:{number}")
        except _NO_GZIP as error:
            raise _not_whole(path, error, f", after line {number}") from error


def _json_array(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with _opened(path) as stream:
            content = stream.read()
        rows = json.loads(content)
    except _NO_GZIP as error:
        raise _not_whole(path, error) from error
    except UnicodeDecodeError as error:
        raise _not_utf_8(path.name, error) from error
    except (ValueError, RecursionError) as error:
        if content.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"{":
            yield from _json_lines(path)
            return
        raise BadInputError(f"{path.name}: is not JSON ({error})") from error
    if not isinstance(rows, list):
        rows = [rows]
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise BadInputError(f"{path.name}[{index}]: must be an object, found {type(row).__name__}")
        yield f"{path.name}[{index}]", row


def _opened(path: Path) -> gzip.GzipFile | BinaryIO:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _not_whole(path: Path, error: Exception, place: str = "") -> BadInputError:
    return BadInputError(f"{path.name}: is no whole gzip file ({error}{place}); copy it again")


def json_object(line: str | bytes, *, where: str) -> tuple[str, dict[str, Any]]:
    """Read a line that is an object; raises :class:`BadInputError`."""
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        raise _not_utf_8(where, error) from error
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{where}: is not JSON ({error})") from error
    if not isinstance(row, dict):
        raise BadInputError(f"{where}: must be an object, found {type(row).__name__}")
    return where, row


def _not_utf_8(where: str, error: UnicodeDecodeError) -> BadInputError:
    return BadInputError(f"{where}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8")


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    from pyarrow import ArrowException, parquet

    index = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                yield f"{path.name}[{index}]", row
                index += 1
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, not of what is on it
        why = " ".join(str(error).split())
        raise BadInputError(
            f"{path.name}: is no whole parquet file ({why}, after row {index}); copy it again"
        ) from error
