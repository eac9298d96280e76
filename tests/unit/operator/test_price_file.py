"""The price catalogue on disk: read when it changes, never half, never the end of the operator."""

from __future__ import annotations

from pathlib import Path

import pytest

from rft_operator.metrics import Metrics
from rft_operator.runtime.price_file import PriceFile

PRICES = """
version: 1
currency: USD
prices:
- {name: local, match: {instanceType: rft-local}, usdPerHour: "2.95"}
"""


class Prices:
    """A catalogue's file with its reader."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "prices.yaml"
        self.metrics = Metrics()
        self.prices = PriceFile(self.file, self.metrics)

    def write(self, text: str) -> bool:
        self.file.write_text(text)
        return self.prices.reload()

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.prices.catalogue.entries]

    @property
    def problems(self) -> float | None:
        return self.metrics.registry.get_sample_value("rft_price_catalogue_problems")


@pytest.fixture
def it(tmp_path: Path) -> Prices:
    return Prices(tmp_path)


def test_catalogue_is_empty_when_no_file_is_named() -> None:
    prices = PriceFile(None, Metrics())
    assert prices.reload() is False
    assert prices.catalogue.entries == ()


def test_change_is_told_once(it: Prices) -> None:
    assert it.write(PRICES) is True
    assert it.names == ["local"]
    assert it.prices.reload() is False
    assert it.write(PRICES.replace("2.95", "3.00")) is True


def test_comment_alone_is_no_change(it: Prices) -> None:
    it.write(PRICES)
    assert it.write(f"{PRICES}# agreed with finance\n") is False


def test_former_prices_hold_when_the_file_is_gone_which_is_told_once_and_counted(
    it: Prices, caplog: pytest.LogCaptureFixture
) -> None:
    it.write(PRICES)
    it.file.unlink()
    assert [it.prices.reload() for _ in range(3)] == [False] * 3
    assert it.names == ["local"]
    assert it.problems == 1
    assert [record.message for record in caplog.records].count("cannot read the price catalogue") == 1
    assert it.write(PRICES) is False
    assert it.problems == 0


@pytest.mark.parametrize(
    "text",
    ["version: 2\n", "prices: [", "[]", "version: 1\nprices: {}\n", "version: 1\ncurrency: EUR\n", "\x00"],
    ids=repr,
)
def test_former_prices_hold_when_the_text_is_no_catalogue(it: Prices, text: str) -> None:
    it.write(PRICES)
    assert it.write(text) is False
    assert it.names == ["local"]
    assert it.problems == 1
    assert it.write(PRICES) is False
    assert it.problems == 0


@pytest.mark.parametrize("date", ["2026-02-30", "2026-13-01T00:00:00Z"])
def test_other_prices_hold_when_a_date_is_in_no_calendar(it: Prices, date: str) -> None:
    bad = f'- {{name: dated, match: {{instanceType: other}}, usdPerHour: "3.00", asOf: {date}}}\n'
    assert it.write(PRICES + bad) is True
    assert it.names == ["local"]
    assert it.problems == 1


def test_former_prices_hold_when_the_file_is_no_text(it: Prices) -> None:
    it.write(PRICES)
    it.file.write_bytes(b"\xff\xfe\x00")
    assert it.prices.reload() is False
    assert it.names == ["local"]


def test_unusable_entries_are_left_out_and_counted(it: Prices) -> None:
    bad = '- {name: free, match: {instanceType: x}, usdPerHour: "0"}\n- {name: endless}\n'
    assert it.write(PRICES + bad) is True
    assert it.names == ["local"]
    assert it.problems == 2
