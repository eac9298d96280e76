"""Exact money and prices by node labels."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_operator.domain.facts import NodeFacts
from rft_operator.domain.money import micro_usd, usd_display, usd_text
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.rates import (
    rate_of_node,
    rate_of_pool,
    shared_words,
    twins_of_empty_pool,
    without_gpus_per_node,
)
from rft_operator.domain.timestamps import epoch, rfc3339
from rft_operator.errors import PriceCatalogueError

AT = epoch("2026-06-01T00:00:00Z")
GPU = "nvidia.com/gpu"


@given(st.integers(min_value=0, max_value=10**15 - 1))
def test_money_survives_text_when_it_is_written_and_read(micro: int) -> None:
    assert micro_usd(usd_text(micro)) == micro


@pytest.mark.parametrize("wrong", ["4.5e2", "-1", "", "1,5", "0.1234567", "$5", " 5", 10**9, -1])
def test_money_is_refused_when_it_is_no_plain_decimal(wrong: int | str) -> None:
    with pytest.raises(ValueError, match="amount of dollars"):
        micro_usd(wrong)


@pytest.mark.parametrize(
    ("micro", "text"), [(0, "$0.00"), (1, "$0.01"), (60_960_112, "$60.97"), (450_000_000, "$450.00")]
)
def test_money_is_rounded_up_to_the_cent_when_it_is_displayed(micro: int, text: str) -> None:
    assert usd_display(micro) == text


@given(st.integers(min_value=0, max_value=4_000_000_000))
def test_instant_survives_text_when_it_is_written_and_read(seconds: int) -> None:
    assert epoch(rfc3339(seconds)) == seconds


def catalogue(*rows: str) -> PriceCatalogue:
    text = "version: 1\ncurrency: USD\nprices:\n" + "".join(f"- {row}\n" for row in rows)
    found, problems = PriceCatalogue.parse(text)
    assert problems == ()
    return found


def a_node(name: str = "n", /, **labels: str) -> NodeFacts:
    return NodeFacts(name=name, labels=labels, gpus={GPU: 8}, ready=True)


P5 = {"node.kubernetes.io/instance-type": "p5"}


def test_entry_with_most_keys_wins_when_several_fit() -> None:
    prices = catalogue(
        '{name: a, match: {instanceType: p5}, usdPerHour: "6.88"}',
        '{name: b, match: {instanceType: p5, zone: z1}, usdPerHour: "5"}',
    )
    entry = prices.lookup({**P5, "topology.kubernetes.io/zone": "z1"}, at=AT)
    assert entry is not None
    assert entry.name == "b"


def test_price_is_not_used_when_it_is_older_than_the_catalogue_allows() -> None:
    prices, problems = PriceCatalogue.parse(
        """
        version: 1
        maxAgeDays: 30
        prices:
        - {name: old, match: {instanceType: p5}, usdPerHour: "9", asOf: 2026-05-01}
        - {name: announced, match: {zone: z1}, usdPerHour: "8", asOf: 2026-05-01, effectiveFrom: 2026-05-20T00:00:00Z}
        - {name: own, match: {zone: z2}, usdPerHour: 0, free: true}
        - {name: undated, match: {zone: z3}, usdPerHour: "7"}
        """
    )
    assert problems == ("prices[3].asOf: is missing, and maxAgeDays asks how old the price of 'undated' is",)
    last_day = epoch("2026-05-31T00:00:00Z")
    entry = prices.lookup(P5, at=last_day)
    assert entry is not None
    assert entry.name == "old"
    assert prices.lookup(P5, at=last_day + 1) is None
    assert prices.stale(at=last_day + 1) == ("old",)
    assert [each.name for each in prices.entries if prices.is_stale(each, at=last_day + 1)] == ["old"]
    empty = rate_of_pool(
        (),
        node_selector={"node.kubernetes.io/instance-type": "p5"},
        gpu_resource=GPU,
        spec_price=None,
        catalogue=prices,
        at=last_day + 1,
    )
    assert empty is None


def test_price_that_is_too_old_gives_way_to_no_other_when_it_had_replaced_one_or_stood_above_one() -> None:
    prices, problems = PriceCatalogue.parse(
        """
        version: 1
        maxAgeDays: 30
        prices:
        - {name: trial, match: {zone: z1}, usdPerHour: 0, free: true}
        - {name: paid, match: {zone: z1}, usdPerHour: "7", asOf: 2026-05-01, effectiveFrom: 2026-05-01T00:00:00Z}
        - {name: general, match: {instanceType: p5}, usdPerHour: "6", asOf: 2026-06-15}
        - {name: dear, match: {instanceType: p5, zone: z2}, usdPerHour: "12", asOf: 2026-05-01}
        """
    )
    assert not problems
    old = epoch("2026-06-15T00:00:00Z")
    zone = "topology.kubernetes.io/zone"
    for labels in ({zone: "z1"}, {**P5, zone: "z2"}):
        assert prices.lookup(labels, at=epoch("2026-05-10T00:00:00Z")) is not None
        assert prices.lookup(labels, at=old) is None
        empty = rate_of_pool((), node_selector=labels, gpu_resource=GPU, spec_price=None, catalogue=prices, at=old)
        assert empty is None
    assert prices.lookup({**P5, zone: "z3"}, at=old) is not None
    assert prices.stale(at=old) == ("paid", "dear")


@pytest.mark.parametrize(
    ("dates", "words"),
    [
        ("asOf: 2026-02-30", "asOf is '2026-02-30'"),
        ("effectiveFrom: 2026-06-31T00:00:00Z", "effectiveFrom is '2026-06-31T00:00:00Z'"),
        ("effectiveFrom: soon", "effectiveFrom is 'soon'"),
        ("effectiveFrom: '9999-12-31T23:59:59-12:00'", "effectiveFrom is '9999-12-31T23:59:59-12:00'"),
    ],
)
def test_entry_alone_is_left_out_when_its_date_is_in_no_calendar(dates: str, words: str) -> None:
    prices, problems = PriceCatalogue.parse(
        "version: 1\nprices:\n"
        "- {name: good, match: {zone: z1}, usdPerHour: 1}\n"
        f"- {{name: bad, match: {{zone: z2}}, usdPerHour: 2, {dates}}}\n"
    )
    assert [each.name for each in prices.entries] == ["good"]
    (problem,) = problems
    assert words in problem


def test_price_that_is_given_twice_is_left_out() -> None:
    prices, problems = PriceCatalogue.parse(
        """
        version: 1
        prices:
        - {name: good, match: {zone: z1}, usdPerHour: 1}
        - {name: twice, match: {zone: z2}, usdPerHour: 2, usdPerHour: 20}
        """
    )
    assert [each.name for each in prices.entries] == ["good"]
    assert len(problems) == 1
    assert "usdPerHour (given twice)" in problems[0]


def test_price_of_a_free_pool_is_left_out_when_it_is_not_zero() -> None:
    prices, problems = PriceCatalogue.parse(
        "version: 1\nprices: [{name: a, match: {zone: z1}, usdPerHour: 2, free: true}]\n"
    )
    assert not prices.entries
    assert "free: true and usdPerHour 2 contradict: set the price to 0" in problems[0]


def test_key_of_a_catalogue_is_named_when_nobody_knows_it() -> None:
    _, problems = PriceCatalogue.parse("version: 1\nmaxAgeDay: 30\nprices: []\n")
    assert problems == ("maxAgeDay: no key of a catalogue; known are version, currency, maxAgeDays, prices",)


@pytest.mark.parametrize("days", ["0", "-1", "3651", "true", '"30"', "1.5", "[]"])
def test_catalogue_is_refused_when_its_maximum_age_is_no_number_of_days(days: str) -> None:
    with pytest.raises(PriceCatalogueError, match="maxAgeDays"):
        PriceCatalogue.parse(f"version: 1\nmaxAgeDays: {days}\nprices: []\n")


def test_newest_entry_that_holds_counts_when_prices_have_a_history() -> None:
    prices = catalogue(
        '{name: old, match: {instanceType: p5}, usdPerHour: "9"}',
        '{name: now, match: {instanceType: p5}, usdPerHour: "7", effectiveFrom: 2026-01-01T00:00:00Z}',
        '{name: later, match: {instanceType: p5}, usdPerHour: "1", effectiveFrom: 2027-01-01T00:00:00Z}',
    )
    entry = prices.lookup(P5, at=AT)
    assert entry is not None
    assert entry.name == "now"


def test_lookup_fails_when_two_matches_fit_equally_well() -> None:
    prices = catalogue(
        '{name: a, match: {instanceType: p5}, usdPerHour: "6"}', '{name: b, match: {zone: z1}, usdPerHour: "5"}'
    )
    labels = {**P5, "topology.kubernetes.io/zone": "z1"}
    with pytest.raises(PriceCatalogueError, match="a, b fit one node equally well"):
        prices.lookup(labels, at=AT)
    assert rate_of_node(a_node(**labels), gpu_resource=GPU, spec_price=None, catalogue=prices, at=AT) is None


def test_node_price_is_shared_by_its_gpus_when_the_basis_is_the_node() -> None:
    prices = catalogue('{name: whole, match: {instanceType: p5}, basis: node, usdPerHour: "55.04"}')
    rate = rate_of_node(a_node(**P5), gpu_resource=GPU, spec_price=None, catalogue=prices, at=AT)
    assert rate is not None
    assert rate.micro_usd_per_gpu_hour == 6_880_000


def test_pool_price_is_the_dearest_when_nodes_differ() -> None:
    prices = catalogue(
        '{name: a, match: {zone: z1}, usdPerHour: "6"}', '{name: b, match: {zone: z2}, usdPerHour: "7.5"}'
    )
    nodes = [a_node(zone, **{"topology.kubernetes.io/zone": zone}) for zone in ("z1", "z2")]
    rate = rate_of_pool(nodes, node_selector={}, gpu_resource=GPU, spec_price=None, catalogue=prices, at=AT)
    assert rate is not None
    assert (rate.source, rate.micro_usd_per_gpu_hour) == ("b", 7_500_000)


def test_pool_has_no_price_when_one_of_its_nodes_has_none() -> None:
    prices = catalogue('{name: a, match: {zone: z1}, usdPerHour: "6"}')
    nodes = [a_node("z1", **{"topology.kubernetes.io/zone": "z1"}), a_node("odd")]
    assert rate_of_pool(nodes, node_selector={}, gpu_resource=GPU, spec_price=None, catalogue=prices, at=AT) is None


def test_empty_pool_takes_the_dearest_entry_when_the_node_selector_matches() -> None:
    prices = catalogue(
        '{name: a, match: {instanceType: p5, capacityType: spot}, usdPerHour: "2"}',
        '{name: b, match: {instanceType: p5, capacityType: on-demand}, usdPerHour: "6.88"}',
        '{name: c, match: {instanceType: p6}, usdPerHour: "20"}',
    )
    rate = rate_of_pool([], node_selector=P5, gpu_resource=GPU, spec_price=None, catalogue=prices, at=AT)
    assert rate is not None
    assert rate.source == "b"


def test_empty_pool_shares_the_price_of_a_node_by_what_the_entry_says() -> None:
    prices = catalogue(
        '{name: whole, match: {instanceType: p5}, basis: node, gpusPerNode: 8, usdPerHour: "55.04"}',
        '{name: old, match: {instanceType: p5, zone: z1}, usdPerHour: "2"}',
    )
    rate = rate_of_pool([], node_selector=P5, gpu_resource=GPU, spec_price=None, catalogue=prices, at=AT)
    assert rate is not None
    assert (rate.source, rate.micro_usd_per_gpu_hour) == ("whole", 6_880_000)


def test_empty_pool_has_no_price_when_a_node_price_that_fits_does_not_say_how_many_gpus_share_it() -> None:
    prices = catalogue(
        '{name: whole, match: {instanceType: p5}, basis: node, usdPerHour: "55.04"}',
        '{name: cheap, match: {instanceType: p5, zone: z1}, usdPerHour: "2"}',
    )
    assert rate_of_pool([], node_selector=P5, gpu_resource=GPU, spec_price=None, catalogue=prices, at=AT) is None
    assert without_gpus_per_node(P5, prices, at=AT) == ("whole",)


TWINS = (
    '{name: a, match: {instanceType: p5}, usdPerHour: "9"}',
    '{name: b, match: {instanceType: p5}, usdPerHour: "1"}',
)


@pytest.mark.parametrize("nodes", [0, 1])
def test_pool_has_no_price_when_two_entries_of_one_match_begin_together(nodes: int) -> None:
    pool = [a_node(**P5)] * nodes
    for rows in (TWINS, TWINS[::-1]):
        prices = catalogue(*rows)
        assert rate_of_pool(pool, node_selector=P5, gpu_resource=GPU, spec_price=None, catalogue=prices, at=AT) is None
        assert set(twins_of_empty_pool(P5, prices, at=AT)) == {"a", "b"}


def test_empty_pool_has_a_price_when_one_of_two_twins_is_followed_by_a_later_entry() -> None:
    later = '{name: c, match: {instanceType: p5}, usdPerHour: "4", effectiveFrom: 2026-01-01T00:00:00Z}'
    rate = rate_of_pool(
        [], node_selector=P5, gpu_resource=GPU, spec_price=None, catalogue=catalogue(*TWINS, later), at=AT
    )
    assert rate is not None
    assert rate.source == "c"


def test_node_that_is_there_counts_its_own_gpus() -> None:
    prices = catalogue('{name: whole, match: {instanceType: p5}, basis: node, gpusPerNode: 16, usdPerHour: "55.04"}')
    rate = rate_of_pool([a_node(**P5)], node_selector=P5, gpu_resource=GPU, spec_price=None, catalogue=prices, at=AT)
    assert rate is not None
    assert rate.micro_usd_per_gpu_hour == 6_880_000


def test_empty_pool_has_no_price_when_nothing_is_selected() -> None:
    prices = catalogue('{name: a, match: {instanceType: p5}, usdPerHour: "2"}')
    assert rate_of_pool([], node_selector={}, gpu_resource=GPU, spec_price=None, catalogue=prices, at=AT) is None


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{name: a, match: {instanceType: p5}, usdPerHour: "0"}', "free: true"),
        ('{name: a, match: {instanceType: p5}, usdPerHour: "-3"}', "usdPerHour: '-3' is no amount of dollars"),
        (
            "{name: a, match: {instanceType: p5}, usdPerHour: 1, effectiveFrom: 2026-01-01}",
            "effectiveFrom: '2026-01-01' has no time zone",
        ),
        (
            "{name: a, match: {instanceType: p5, labels: {node.kubernetes.io/instance-type: p4}}, usdPerHour: 1}",
            "match.instanceType is 'p5', and match.labels has node.kubernetes.io/instance-type: 'p4'; keep one",
        ),
        ("{name: a, match: {instanceType: p5}, usdPerHour: 6.88}", "usdPerHour"),
        ('{name: a, match: {}, usdPerHour: "3"}', "match has no key"),
        ('{name: a, match: {instanceTyp: p5}, usdPerHour: "3"}', "instanceTyp"),
        ('{match: {instanceType: p5}, usdPerHour: "3"}', "name"),
        ('{name: a, match: {instanceType: p5}, usdPerHour: "3", basis: rack}', "basis"),
        ('{name: a, match: {instanceType: p5}, usdPerHour: "3", gpusPerNode: 8}', "set basis: node"),
        ('{name: a, match: {instanceType: p5}, usdPerHour: "3", basis: node, gpusPerNode: 0}', "gpusPerNode"),
        ('{name: a, match: {instanceType: p5}, usdPerHour: "3", basis: node, gpusPerNode: "8"}', "gpusPerNode"),
    ],
)
def test_entry_is_left_out_and_named_when_it_is_wrong(row: str, words: str) -> None:
    good = '{name: good, match: {zone: z1}, usdPerHour: "6"}'
    found, problems = PriceCatalogue.parse(f"version: 1\nprices:\n- {good}\n- {row}\n")
    assert [entry.name for entry in found.entries] == ["good"]
    assert len(problems) == 1
    assert "prices[1]" in problems[0]
    assert words in problems[0]


@pytest.mark.parametrize(
    "text", ["prices: []", "version: 2", "{", "version: 1\nprices: 5", "version: 1\ncurrency: EUR"]
)
def test_catalogue_is_refused_when_it_is_unreadable_as_a_whole(text: str) -> None:
    with pytest.raises(PriceCatalogueError):
        PriceCatalogue.parse(text)


def test_spot_price_above_the_on_demand_price_is_left_out_as_a_mistake() -> None:
    found, problems = PriceCatalogue.parse(
        """version: 1
prices:
- {name: on-demand, match: {instanceType: p5, capacityType: on-demand}, usdPerHour: "6.88"}
- {name: spot, match: {instanceType: p5, capacityType: spot}, usdPerHour: "68.80"}
- {name: other-spot, match: {instanceType: p4, capacityType: spot}, usdPerHour: "9"}
"""
    )
    assert [entry.name for entry in found.entries] == ["on-demand", "other-spot"]
    assert problems == ("spot: usdPerHour 68.80 for spot is above the on-demand price of on-demand",)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb"}, "slices of a GPU"),
        ({"nvidia.com/gpu.product": "Tesla-T4-SHARED", "nvidia.com/gpu.replicas": "4"}, "shared by 4 pods"),
        ({"nvidia.com/gpu.replicas": "1"}, None),
    ],
)
def test_shared_gpus_have_no_catalogue_price_but_one_that_a_user_names(
    labels: dict[str, str], words: str | None
) -> None:
    prices = catalogue('{name: a, match: {instanceType: p5}, usdPerHour: "6.88"}')
    shared = a_node(**P5, **labels)
    said = shared_words(shared)
    assert said is words is None or (said is not None and words is not None and words in said)
    rate = rate_of_node(shared, gpu_resource=GPU, spec_price=None, catalogue=prices, at=AT)
    assert (rate is None) is (words is not None)
    assert rate_of_node(shared, gpu_resource=GPU, spec_price="1.50", catalogue=prices, at=AT) is not None


def test_example_list_is_usable_and_says_where_each_price_is_from() -> None:
    text = (Path(__file__).resolve().parents[3] / "examples" / "prices.yaml").read_text(encoding="utf-8")
    found, problems = PriceCatalogue.parse(text)
    assert not problems
    assert text.startswith("# AN EXAMPLE")
    assert all(entry.source and entry.as_of_epoch for entry in found.entries)
    h100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "pool": "nebius"}
    before, after = (found.lookup(h100, at=epoch(f"2026-{day}T00:00:00Z")) for day in ("08-31", "09-01"))
    assert (before and before.usd_per_hour, after and after.usd_per_hour) == ("2.95", "3.85")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("2.95", 'quote a decimal, for example "2.95"'),
        ("true", "True is no price"),
        ("1:30", "amount of dollars"),
        ("[3]", "is no price"),
    ],
)
def test_price_that_yaml_would_misread_is_left_out_with_its_remedy(written: str, words: str) -> None:
    found, problems = PriceCatalogue.parse(
        f"version: 1\nprices: [{{name: a, match: {{zone: z}}, usdPerHour: {written}}}]"
    )
    assert not found.entries
    assert words in problems[0]


def test_price_with_a_leading_zero_is_decimal() -> None:
    found, problems = PriceCatalogue.parse("version: 1\nprices: [{name: a, match: {zone: z}, usdPerHour: 010}]")
    assert not problems
    assert micro_usd(found.entries[0].usd_per_hour) == 10_000_000


@pytest.mark.parametrize(
    ("written", "at"),
    [
        ("2026-01-01T00:00:00-05:00", "2026-01-01T05:00:00Z"),
        ("'2026-01-01T00:00:00-05:00'", "2026-01-01T05:00:00Z"),
        ("2026-01-01T00:00:00+05:00", "2025-12-31T19:00:00Z"),
        ("2026-01-01T00:00:00", "2026-01-01T00:00:00Z"),
        ("2026-01-01 00:00:00", "2026-01-01T00:00:00Z"),
    ],
)
def test_start_of_a_price_may_be_in_any_time_zone(written: str, at: str) -> None:
    found, problems = PriceCatalogue.parse(
        f"version: 1\nprices: [{{name: a, match: {{zone: z}}, usdPerHour: 3, effectiveFrom: {written}}}]"
    )
    assert not problems
    assert found.entries[0].starts_at == epoch(at)


def test_catalogue_that_is_nested_without_end_is_refused() -> None:
    with pytest.raises(PriceCatalogueError, match="nested too deeply"):
        PriceCatalogue.parse("[" * 5_000)
