"""Answers of a base model are handed on to later runs, and taken over only where they fit exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_trainer.evaluate import base_answers
from rft_trainer.evaluate.base_answers import key_of, taken_over, to_hand_on
from rft_trainer.evaluate.measured import Measured
from rft_trainer.files import write_json
from rft_trainer.stage_results import BaseAnswers, KeptBaseAnswers
from rft_trainer.weights import fingerprint, hash_folder

KEY = key_of("hub:org/base@abc", {"benchmark": "sums"})
MEASURED = Measured(rights=(1, 0, 3, 2) * 25, samples=3, asked=100, no_answer=7, capped=5, thinking_tokens=41.5)


def keep(directory: Path, entry: BaseAnswers, **change: Any) -> None:
    kept = KeptBaseAnswers(measured_by="first", measured_at="2026-01-01T00:00:00Z", answers=entry)
    document = kept.model_dump(mode="json", by_alias=True)
    document["answers"] |= change
    (directory / KEY).write_text(json.dumps(document))


def handed_on(measured: Measured = MEASURED) -> BaseAnswers:
    entry = to_hand_on(KEY, measured)
    assert entry is not None
    return entry


@given(st.integers(1, 256).flatmap(lambda k: st.tuples(st.just(k), st.lists(st.integers(0, k), min_size=1))))
def test_answers_are_the_same_when_they_are_taken_over(
    tmp_path_factory: pytest.TempPathFactory, given_: tuple[int, list[int]]
) -> None:
    samples, rights = given_
    directory = tmp_path_factory.mktemp("kept")
    measured = Measured(rights=tuple(rights), samples=samples, asked=len(rights), no_answer=1, capped=2)
    keep(directory, handed_on(measured))
    found = taken_over(directory, KEY, questions=len(rights), samples=samples)
    assert found is not None
    assert found.measured_by == "first"
    assert (found.rights, found.value, found.no_answer, found.capped) == (measured.rights, measured.value, 1, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"h": "0" * 40},
        {"n": 99},
        {"k": 2},
        {"r": "AAAA"},
        {"r": "!"},
        {"r": "A"},
        {"n": 1_000_001},
        {"surprise": 1},
    ],
    ids=str,
)
def test_entry_is_left_alone_when_it_does_not_fit(
    tmp_path: Path, change: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path, handed_on(), **change)
    assert taken_over(tmp_path, KEY, questions=100, samples=3) is None
    assert "cannot be used" in capsys.readouterr().out


def test_entry_is_left_alone_when_it_claims_more_right_answers_than_were_given(tmp_path: Path) -> None:
    keep(tmp_path, handed_on(Measured(rights=(3,) * 100, samples=3, asked=100)), k=2)
    assert taken_over(tmp_path, KEY, questions=100, samples=2) is None


def test_entry_is_left_alone_when_it_unpacks_to_far_more_than_it_says(tmp_path: Path) -> None:
    bomb = handed_on(Measured(rights=(0,) * 1_000_000, samples=1, asked=1_000_000))
    assert len(bomb.rights) < 1_000
    keep(tmp_path, bomb, n=100, k=3)
    assert taken_over(tmp_path, KEY, questions=100, samples=3) is None


def test_nothing_is_taken_over_when_nothing_is_kept_or_it_is_too_large(tmp_path: Path) -> None:
    assert taken_over(tmp_path / "none", KEY, questions=1, samples=1) is None
    (tmp_path / KEY).write_bytes(b" " * (base_answers.MOST_BYTES + 1))
    assert taken_over(tmp_path, KEY, questions=1, samples=1) is None


def test_partial_measurement_is_not_handed_on() -> None:
    assert to_hand_on(KEY, Measured(rights=(1, 0), samples=1, asked=3)) is None


def test_key_is_another_one_for_another_model_or_protocol() -> None:
    assert len({KEY, key_of("hub:org/base@abd", {"benchmark": "sums"}), key_of("hub:org/base@abc", {"b": "sums"})}) == 3


def test_fingerprint_is_the_commit_of_the_hub_or_the_content_of_the_files(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"a")
    assert fingerprint(tmp_path) == f"files:{hash_folder(tmp_path)}"
    record = {"request": {"target": "org/base"}, "commit": "abc", "whole": True}
    write_json(tmp_path / ".download.json", record)
    assert fingerprint(tmp_path) == "hub:org/base@abc"
    write_json(tmp_path / ".download.json", {**record, "whole": False})
    assert fingerprint(tmp_path).startswith("files:")
