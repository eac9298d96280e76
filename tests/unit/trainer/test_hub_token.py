"""The hub's token: as it is in the Secret, or an error that repeats nothing of it."""

from __future__ import annotations

import pytest

from rft_trainer.errors import BadInputError
from rft_trainer.hub_token import hub_token


@pytest.mark.parametrize(
    ("value", "token"),
    [(None, None), ("", None), ("\n", None), ("hf_secret", "hf_secret"), ("hf_secret\n", "hf_secret"), (" a\r\n", "a")],
)
def test_token_is_taken_without_what_is_around_it(
    monkeypatch: pytest.MonkeyPatch, value: str | None, token: str | None
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("HF_TOKEN", value)
    assert hub_token() == token


@pytest.mark.parametrize("value", ["hf_secret hf_other", "hf_secret\nhf_other", "hf_sécret", "hf_secret\x7f"])
def test_value_that_is_no_token_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_TOKEN", value)
    with pytest.raises(BadInputError, match="HF_TOKEN holds characters that no token has") as told:
        hub_token()
    assert "hf_" not in str(told.value)
