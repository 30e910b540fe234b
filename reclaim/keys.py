"""The keys of a scenario: what each accepts, how it is written back, how a fault is told.

A section is a frozen dataclass whose fields are made by `key`.  The same check serves a section
built in Python and one read from TOML, so both give the same errors and the same values.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reclaim import units
from reclaim.errors import NotModelledError, ScenarioError, did_you_mean
from reclaim.files import read_bounded

MAX_FILE = 1 << 20       # bytes of a scenario's or a profile's file


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of a key.

    parse : the canonical value of what was written; raises ValueError if it is not allowed.
    allowed : the range in words, for errors and the docs.
    show : the canonical value as TOML and JSON hold it.
    later : values that are refused by name as not modelled yet.
    """

    parse: Callable[[Any], Any]
    allowed: str
    show: Callable[[Any], Any] = lambda value: value
    later: Callable[[Any], bool] = lambda value: False


def integer(low: int, high: int, *, later: bool = False) -> Kind:
    """An integer of [low, high]; with `later`, those above `low` are not modelled yet."""
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise ValueError
        number_ = int(value)   # a NumPy integer becomes an int
        if not low <= number_ <= high:
            raise ValueError
        return number_

    if later:
        return Kind(parse, str(low), later=lambda value: bool(value > low))
    top = {2**63 - 1: "2**63 - 1", 2**64 - 1: "2**64 - 1"}.get(high, str(high))
    return Kind(parse, f"an integer, {low} to {top}")


def number(low: float, high: float) -> Kind:
    """A finite number of [low, high]."""
    def parse(value: Any) -> float:
        if isinstance(value, (bool, str)):
            raise ValueError
        try:
            number_ = float(value)
        except (TypeError, OverflowError):
            raise ValueError from None
        if not low <= number_ <= high:   # also refuses NaN
            raise ValueError
        return number_
    return Kind(parse, f"a number, {low:g} to {high:g}")


def time(low: float, high: float, *, show: Callable[[float], Any] = units.format_time) -> Kind:
    """Seconds of [low, high]."""
    def parse(value: Any) -> float:
        seconds = units.parse_time(value)
        if not low <= seconds <= high:
            raise ValueError
        return seconds
    return Kind(parse, f"a time, {units.format_time(low)} to {units.format_time(high)}", show=show)


def byte_size(low: int, high: int, *, auto: bool = False, per_second: bool = False) -> Kind:
    """Bytes of [low, high], or bytes per second; with `auto` also the word "auto"."""
    def parse(value: Any) -> int | str:
        if auto and value == "auto":
            return "auto"
        if not isinstance(value, (str, bool)) and hasattr(value, "__index__"):
            value = int(value)
        nbytes = units.parse_rate(value) if per_second else units.parse_size(value)
        if not low <= nbytes <= high:
            raise ValueError
        return nbytes

    def show(value: Any) -> Any:
        return value if isinstance(value, str) else units.format_size(value)
    what = ('"auto" or ' if auto else "") + ("a size per second" if per_second else "a size")
    return Kind(parse, f"{what}, {units.format_size(low)} to {units.format_size(high)}", show=show)


def choice(*options: str, later: tuple[str, ...] = ()) -> Kind:
    """One of `options`; those of `later` are not modelled yet."""
    def parse(value: Any) -> str:
        if not isinstance(value, str) or value not in options + later:
            hint = did_you_mean(value, options + later) if isinstance(value, str) else ""
            raise ValueError(hint)
        return str(value)
    return Kind(parse, "one of " + ", ".join(f'"{option}"' for option in options),
                later=lambda value: value in later)


def boolean(*, later: bool = False) -> Kind:
    """true or false; with `later`, true is not modelled yet."""
    def parse(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value
    return Kind(parse, "false" if later else "true or false", later=lambda value: later and value)


def text(low: int, high: int) -> Kind:
    """`low` to `high` printable characters."""
    def parse(value: Any) -> str:
        if not (isinstance(value, str) and low <= len(value) <= high
                and (value.isprintable() or not value)):
            raise ValueError
        return str(value)
    return Kind(parse, f"a string of {low} to {high} printable characters")


def key(default: Any, kind: Kind) -> Any:
    """A dataclass field that holds a key of `kind`."""
    return dataclasses.field(default=default, metadata={"kind": kind})


def kinds(cls: type) -> dict[str, Kind]:
    """The keys of a section, in order."""
    return {f.name: f.metadata["kind"] for f in dataclasses.fields(cls) if "kind" in f.metadata}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a scenario: a sentence, and whether it names what is only not modelled yet."""

    sentence: str
    later: bool = False


def raise_faults(faults: list[Fault]) -> None:
    """Raise all of `faults` as one exception, if there are any.

    Raises
    ------
    NotModelledError : every one is "not modelled yet".
    ScenarioError : otherwise.
    """
    if faults:
        kind = NotModelledError if all(fault.later for fault in faults) else ScenarioError
        raise kind(*(fault.sentence for fault in faults))


def show_value(value: Any) -> str:
    """`value` as a message prints it: as TOML writes it, and not long."""
    try:
        shown = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def place(where: str, path: str) -> str:
    """``"file: section.key"``; `where` is empty for a section built in Python."""
    return f"{where}: {path}" if where else path


def check(name: str, kind: Kind, value: Any, *, where: str, prefix: str,
          faults: list[Fault]) -> Any:
    """The canonical value of key `name`; None, and a fault, if it is refused."""
    at = f"{place(where, prefix + name)} = {show_value(value)}"
    try:
        parsed = kind.parse(value)
    except (ValueError, RecursionError) as err:
        detail = str(err)
        if detail and not detail.startswith(";"):
            detail = f" ({detail})"
        faults.append(Fault(f"{at}: must be {kind.allowed}{detail}"))
        return None
    if kind.later(parsed):
        faults.append(Fault(f"{at}: not modelled yet; must be {kind.allowed}", later=True))
        return None
    return parsed


def unknown(name: Any, choices: list[str], *, where: str, prefix: str) -> Fault:
    """The fault of a key that does not exist."""
    hint = did_you_mean(name, choices) or f"; known here: {', '.join(choices)}"
    return Fault(f"{place(where, prefix + str(name))}: unknown key{hint}")


def check_section(cls: type, data: Any, *, where: str, prefix: str,
                  faults: list[Fault]) -> dict[str, Any]:
    """The canonical values of the keys in `data`, with a fault for each that is refused."""
    known = kinds(cls)
    if not isinstance(data, Mapping):
        faults.append(Fault(f"{place(where, prefix.rstrip('.'))} = {show_value(data)}: "
                            f"must be a table of {', '.join(known)}"))
        return {}
    values = {}
    for name, value in data.items():
        if name in known:
            values[name] = check(name, known[name], value, where=where, prefix=prefix, faults=faults)
        else:
            faults.append(unknown(name, list(known), where=where, prefix=prefix))
    return values


class Section:
    """Base of the sections: checks and converts its own fields when built.

    Raises
    ------
    ScenarioError : with every value out of its range.
    NotModelledError : if all that is wrong is not modelled yet.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        faults: list[Fault] = []
        data = {name: getattr(self, name) for name in kinds(type(self))}
        values = check_section(type(self), data, where="",
                               prefix=type(self).__name__.lower() + ".", faults=faults)
        raise_faults(faults)
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """The keys as TOML and JSON hold them: sizes and times as strings."""
        return {name: kind.show(getattr(self, name)) for name, kind in kinds(type(self)).items()}


class Table(Mapping[str, Any]):
    """An immutable, hashable, picklable mapping, for the tables whose keys are open."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Any] | None = None) -> None:
        self._items = {name: Table(value) if isinstance(value, Mapping) else value
                       for name, value in (items or {}).items()}

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """A plain, nested dict."""
        return {name: value.to_dict() if isinstance(value, Table) else value
                for name, value in self._items.items()}


def toml_value(value: Any) -> str:
    """`value` as TOML.  Strings are escaped as in JSON, which TOML's basic strings contain."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return repr(value)


def read_toml(path: str, what: str) -> dict[str, Any]:
    """The TOML file at `path`, a `what`; every way in which that can fail is a ScenarioError."""
    try:
        return tomllib.loads(read_bounded(path, MAX_FILE, ScenarioError, f"a {what}, a TOML file").decode())
    except UnicodeDecodeError as err:
        raise ScenarioError(f"{path}: not UTF-8 at byte {err.start}; a {what} is a TOML file") from None
    except (tomllib.TOMLDecodeError, RecursionError) as err:
        raise ScenarioError(f"{path}: not TOML: {err or 'nested too deeply'}") from None
    except ScenarioError:
        raise
    except ValueError as err:   # an integer of too many digits
        raise ScenarioError(f"{path}: {err}") from None
