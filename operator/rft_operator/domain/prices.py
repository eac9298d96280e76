"""What a GPU-hour costs: the spec's own price, or the admin's catalogue by the labels of the node.

Invariant: no price, no start. Nothing here falls back to zero or to a built-in list (docs/metering.md M10, M11);
a price of zero needs the word ``free: true``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from rft_operator.domain.money import micro_usd
from rft_operator.domain.timestamps import epoch
from rft_operator.errors import PriceCatalogueError

SECONDS_PER_DAY = 86_400
LONGEST_MAX_AGE_DAYS = 3_650
MOST_GPUS_PER_NODE = 1_024
CALENDAR = epoch("0001-01-01T00:00:00Z"), epoch("9999-12-31T23:59:59Z")
"""What can be written on a record."""
KEYS = ("version", "currency", "maxAgeDays", "prices")
LABELS = {
    "instance_type": "node.kubernetes.io/instance-type",
    "gpu_product": "nvidia.com/gpu.product",
    "zone": "topology.kubernetes.io/zone",
    "capacity_type": "karpenter.sh/capacity-type",
}


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without its surprises: ``1:30`` is not 90, and ``010`` is not 8."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:int"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^(0|-?[1-9][0-9]*)$"), list("-0123456789"))


def _date(loader: _Loader, node: yaml.ScalarNode) -> object:
    """Return a date; one that no calendar has stays text, so that its entry alone is refused."""
    try:
        return loader.construct_yaml_timestamp(node)
    except ValueError:
        return loader.construct_scalar(node)


_Loader.add_constructor("tag:yaml.org,2002:timestamp", _date)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Iterator[dict[Any, Any]]:
    """Build a mapping; a key that is there twice becomes one that nobody knows, so that neither value is taken."""
    built: dict[Any, Any] = {}
    yield built
    keys = [each.value for each, _ in node.value if isinstance(each, yaml.ScalarNode)]
    built.update(loader.construct_mapping(node))
    built.update({f"{key} (given twice)": None for key in keys if keys.count(key) > 1})


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _plain_price(value: object) -> object:
    """Refuse what YAML makes of a price that is not quoted."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        msg = f'{value!r} is no price: write a whole number, or quote a decimal, for example "{value}"'
        raise ValueError(msg)  # noqa: TRY004 - pydantic reports a ValueError as the field's own
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Match(_Strict):
    """Every given key must equal the node's label."""

    instance_type: str | None = None
    gpu_product: str | None = None
    zone: str | None = None
    capacity_type: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _no_contradiction(self) -> Match:
        for key, label in LABELS.items():
            value = getattr(self, key)
            if value is not None and self.labels.get(label, value) != value:
                other = f"match.labels has {label}: {self.labels[label]!r}"
                msg = f"match.{to_camel(key)} is {value!r}, and {other}; keep one"
                raise ValueError(msg)
        return self

    def wanted(self) -> dict[str, str]:
        """Return all labels a node must carry."""
        named = {label: value for key, label in LABELS.items() if (value := getattr(self, key)) is not None}
        return {**self.labels, **named}

    def key(self) -> frozenset[tuple[str, str]]:
        """Return what entries of one history have in common."""
        return frozenset(self.wanted().items())


class Entry(_Strict):
    """One price."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    match: Match
    basis: Literal["gpu", "node"] = "gpu"
    gpus_per_node: Annotated[int, Field(strict=True, ge=1, le=MOST_GPUS_PER_NODE)] | None = None
    """GPUs that share a price per node before a node of the pool is there; a node that is there counts its own."""
    usd_per_hour: Annotated[int | str, BeforeValidator(_plain_price)]
    free: bool = False
    effective_from: str | None = None
    source: str | None = None
    as_of: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _dates_as_text(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        dates = {key: _date_text(raw[key]) for key in ("effectiveFrom", "asOf") if raw.get(key) is not None}
        return {**raw, **dates}

    @model_validator(mode="after")
    def _usable(self) -> Entry:
        if not self.match.wanted():
            msg = "match has no key: it would price every node; give instanceType, gpuProduct or labels"
            raise ValueError(msg)
        if self.gpus_per_node is not None and self.basis != "node":
            msg = "gpusPerNode shares the price of a whole node: set basis: node, or remove it"
            raise ValueError(msg)
        price = _named("usdPerHour", micro_usd, self.usd_per_hour)
        if price == 0 and not self.free:
            msg = "usdPerHour is 0: a free pool needs free: true, so that no typing error makes GPUs free"
            raise ValueError(msg)
        if self.free and price > 0:
            msg = f"free: true and usdPerHour {self.usd_per_hour} contradict: set the price to 0, or remove free"
            raise ValueError(msg)
        if self.effective_from is not None:
            _known_date("effectiveFrom", self.effective_from, example="2026-01-01T00:00:00Z")
            if not CALENDAR[0] <= _named("effectiveFrom", epoch, self.effective_from) <= CALENDAR[1]:
                msg = f"effectiveFrom is {self.effective_from!r}, which in UTC is before the year 1 or after 9999"
                raise ValueError(msg)
        if self.as_of is not None:
            _known_date("asOf", self.as_of, example="2026-08-01")
        return self

    @property
    def starts_at(self) -> int:
        """Return the epoch second from which the price holds; 0 if always."""
        return epoch(self.effective_from) if self.effective_from is not None else 0

    @property
    def as_of_epoch(self) -> int | None:
        """Return the epoch second of the day the price is of; a date without a time zone is one of UTC."""
        if self.as_of is None:
            return None
        day = datetime.fromisoformat(self.as_of)
        return int((day if day.tzinfo is not None else day.replace(tzinfo=UTC)).timestamp())


def _named(field: str, read: Callable[[Any], int], value: int | str) -> int:
    """Read a value; what is wrong with it names its field."""
    try:
        return read(value)
    except ValueError as error:
        msg = f"{field}: {error}"
        raise ValueError(msg) from error


def _known_date(field: str, text: str, *, example: str) -> None:
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"{field} is {text!r}, which is no date: {error}; write for example {example}"
        raise ValueError(msg) from error


def _date_text(value: Any) -> str:
    # YAML turns an unquoted timestamp into a datetime; one without a time zone is UTC by YAML 1.1.
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    try:
        bare = "T" in text and datetime.fromisoformat(text).tzinfo is None
    except ValueError:
        bare = False
    return f"{text}Z" if bare else text


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceCatalogue:
    """The usable entries of a catalogue."""

    entries: tuple[Entry, ...] = ()
    max_age_seconds: int | None = None
    """A price whose asOf is older than that prices nothing; None: a price never grows too old."""

    @classmethod
    def parse(cls, text: str) -> tuple[PriceCatalogue, tuple[str, ...]]:
        """Read a catalogue (docs/reference/prices.md); return it with the problems of the entries left out.

        Raises PriceCatalogueError if the text as a whole is no catalogue.
        """
        try:
            raw = yaml.load(text, Loader=_Loader) or {}  # noqa: S506 - a SafeLoader
        except (yaml.YAMLError, ValueError) as error:
            msg = f"prices.yaml is no YAML: {error}"
            raise PriceCatalogueError(msg) from error
        except RecursionError as error:
            msg = "prices.yaml is no catalogue: it is nested too deeply"
            raise PriceCatalogueError(msg) from error
        if not isinstance(raw, dict) or raw.get("version") != 1:
            msg = "prices.yaml: version must be 1; see docs/reference/prices.md"
            raise PriceCatalogueError(msg)
        if raw.get("currency", "USD") != "USD":
            msg = f"prices.yaml: currency is {raw['currency']!r}; only USD is known"
            raise PriceCatalogueError(msg)
        if not isinstance(raw.get("prices", []), list):
            msg = "prices.yaml: prices must be a list"
            raise PriceCatalogueError(msg)
        days = raw.get("maxAgeDays")
        if days is not None and (type(days) is not int or not 1 <= days <= LONGEST_MAX_AGE_DAYS):
            msg = f"prices.yaml: maxAgeDays is {days!r}; it must be a whole number from 1 to {LONGEST_MAX_AGE_DAYS}"
            raise PriceCatalogueError(msg)
        strange = ", ".join(str(key) for key in raw if key not in KEYS)
        unknown = (f"{strange}: no key of a catalogue; known are {', '.join(KEYS)}",) if strange else ()
        found, problems = cls._of_rows(
            raw.get("prices", []), max_age_seconds=None if days is None else days * SECONDS_PER_DAY
        )
        return found, (*unknown, *problems)

    @classmethod
    def _of_rows(cls, rows: Sequence[Any], *, max_age_seconds: int | None) -> tuple[PriceCatalogue, tuple[str, ...]]:
        entries: list[Entry] = []
        problems: list[str] = []
        names: set[str] = set()
        for index, row in enumerate(rows):
            where = f"prices[{index}]"
            try:
                entry = Entry.model_validate(row)
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(str(part) for part in first["loc"])
                problems.append(f"{where}{'.' + field if field else ''}: {first['msg']}")
                continue
            if entry.name in names:
                problems.append(f"{where}.name: {entry.name!r} is used twice")
                continue
            if max_age_seconds is not None and entry.as_of is None and not entry.free:
                problems.append(f"{where}.asOf: is missing, and maxAgeDays asks how old the price of {entry.name!r} is")
                continue
            names.add(entry.name)
            entries.append(entry)
        doubtful = {entry.name: words for entry in entries if (words := _dear_spot(entry, entries)) is not None}
        problems += doubtful.values()
        usable = tuple(entry for entry in entries if entry.name not in doubtful)
        return cls(entries=usable, max_age_seconds=max_age_seconds), tuple(problems)

    def in_effect(self, *, at: int) -> tuple[Entry, ...]:
        """Return the entries that have begun by an instant, those that are too old included: what one of them would
        price has no price then, and not that of an entry which it had replaced, or of a more general one."""
        return tuple(entry for entry in self.entries if entry.starts_at <= at)

    def unreplaced(self, *, at: int) -> tuple[Entry, ...]:
        """Return the entries that no later one of the same match has replaced by an instant, the announced included."""
        begun = sorted(self.in_effect(at=at), key=lambda each: each.starts_at)
        last = {each.match.key(): each.starts_at for each in begun}
        return tuple(entry for entry in self.entries if entry.starts_at >= last.get(entry.match.key(), 0))

    def stale(self, *, at: int) -> tuple[str, ...]:
        """Return the names of entries that are too old at an instant, and that no later one has replaced."""
        return tuple(entry.name for entry in self.unreplaced(at=at) if self.is_stale(entry, at=at))

    def is_stale(self, entry: Entry, *, at: int) -> bool:
        """Return whether an entry is too old at an instant to price anything."""
        if self.max_age_seconds is None or entry.as_of_epoch is None or entry.free:
            return False
        return at > max(entry.as_of_epoch, entry.starts_at) + self.max_age_seconds

    def of_any_age(self) -> PriceCatalogue:
        """Return the same prices with no bound on their age: of a pod that is bound already, and of what machines will
        cost, one that is too old to start anything still says best what it is."""
        return replace(self, max_age_seconds=None)

    def lookup(self, labels: Mapping[str, str], *, at: int) -> Entry | None:
        """Return the entry for a node's labels at an instant, or None; None, too, where that entry is too old.

        The entry with most keys wins; entries of one match form a history, of which the newest that has begun counts.
        Raises PriceCatalogueError when two different matches with equally many keys fit.
        """
        fitting = [
            entry
            for entry in self.in_effect(at=at)
            if all(labels.get(key) == value for key, value in entry.match.wanted().items())
        ]
        if not fitting:
            return None
        most = max(len(entry.match.wanted()) for entry in fitting)
        best = [entry for entry in fitting if len(entry.match.wanted()) == most]
        newest = max(best, key=lambda entry: entry.starts_at)
        rivals = [e.name for e in best if e.match.wanted() != newest.match.wanted()]
        twins = [e.name for e in best if e is not newest and e.starts_at == newest.starts_at]
        if rivals or twins:
            names = ", ".join(sorted({newest.name, *rivals, *twins}))
            msg = f"prices.yaml: {names} fit one node equally well; give one of them one more key"
            raise PriceCatalogueError(msg)
        return None if self.is_stale(newest, at=at) else newest


def _dear_spot(entry: Entry, entries: Sequence[Entry]) -> str | None:
    """Return what is wrong with a spot price above every on-demand price of the same machines; None if all is well."""
    if entry.match.capacity_type != "spot":
        return None
    on_demand = entry.match.model_copy(update={"capacity_type": "on-demand"}).wanted()
    rivals = [each for each in entries if each.match.wanted() == on_demand and each.basis == entry.basis]
    if not rivals or any(micro_usd(entry.usd_per_hour) <= micro_usd(each.usd_per_hour) for each in rivals):
        return None
    return f"{entry.name}: usdPerHour {entry.usd_per_hour} for spot is above the on-demand price of {rivals[0].name}"
