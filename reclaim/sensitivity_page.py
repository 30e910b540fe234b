"""The page `docs/sensitivity.md`: what was published beside what each assumption makes of it."""

from __future__ import annotations

import hashlib
import math
import statistics
import tomllib
from importlib import resources

from reclaim.pages import sealed
from reclaim.sensitivity import WHAT, Choice, Sensitivity, factor, show, told, values_of

_HEAD = """# How sure is that: `{name}`, one assumption at a time

Written by `{command}`; do not edit: a test compares.
Inputs: `{inputs}`.

All simulated: {seconds:g} s, `{before}` and `{after}`, seeds {seeds} for the base and the first
{choice_seeds} of these for each choice. Where seeds decide little, phases do: in all runs but those of
the first seed each cost is off by up to 0.1%, drawn, so that the range over seeds is also that of any
small change. Costs of the profile `{profile}` are halved and doubled; what the scenario leaves to its
version or to a default takes every value. {nr} choices make another world. *per page* is per reclaimed
page; *change* is after / before - 1.
"""
NEAR = 0.05      # no assumption need be wrong for that
_BOLD = """
Bold: the published value lies in the range, the base's included. Where it lies outside that of seeds and
costs, an assumption that is no cost would have to be wrong:

"""


def inputs(found: Sensitivity) -> str:
    """A hash of what the page is made from: the scenario, its profile, the notes, the model's version."""
    from reclaim import _core
    profile = found.plan.scenario.machine.profile
    files = [resources.files("reclaim").joinpath(*path).read_text("utf-8")
             for path in (("profiles", f"{profile}.toml"), ("data", "sensitivity_notes.toml"))]
    whole = "\0".join([found.plan.scenario.to_toml(), *files, str(_core.MODEL_VERSION)])
    return hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()


def page(found: Sensitivity, command: str) -> str:
    """The page; its last line is a hash of the others."""
    plan = found.plan
    text = _HEAD.format(name=plan.scenario.name, command=command, inputs=inputs(found),
                        seconds=plan.scenario.seconds, before=plan.policies[0], after=plan.policies[1],
                        nr=len(found.found),
                        profile=plan.scenario.machine.profile, seeds=", ".join(map(str, plan.seeds)),
                        choice_seeds=plan.choice_seeds)
    if plan.scenario.published:
        text += _published(found)
    return sealed(text + _ranking(found))


def _published(found: Sensitivity) -> str:
    groups = found.groups()
    whole = found.plan.scenario.published.get("seconds") if found.whole else None
    head = ["number", "published", "base", "over seeds", *([f"base, {whole:g} s"] if whole else []),
            *(f"over {group}" for group in groups)]
    lines = [f"\n## Beside the published table\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}\n"]
    sentences = []
    for row, what in WHAT:
        want = found.published(row, what)
        if want is None:
            continue
        base = values_of(found.base.values(), row, what)
        cells = [f"{row} {what}", show(what, want), show(what, statistics.median(base)), _range(what, base)]
        if whole:
            longer = values_of(found.whole.values(), row, what)
            cells.append(show(what, longer[0]) if len(longer) == 1 else
                         f"{show(what, statistics.median(longer))} ({_range(what, longer)})")
        for group in groups:
            values = [value for value, _ in found.range_of(row, what, group)]
            told_range = _range(what, values) if values else "-"
            inside = values and min(*values, *base) <= want <= max(*values, *base)
            cells.append(f"**{told_range}**" if inside else told_range)
        lines.append("| " + " | ".join(cells) + " |\n")
        sentences.append(f"* **{row} {what}**: {_sentence(found, row, what, want)}\n")
    return "".join(lines) + _BOLD + "".join(sentences) + _notes(found)


def _range(what: str, values: list[float]) -> str:
    return f"{show(what, min(values))} .. {show(what, max(values))}"


def _sentence(found: Sensitivity, row: str, what: str, want: float) -> str:
    """Which choices go how far from the base towards the published value."""
    base = statistics.median(values_of(found.base.values(), row, what))
    seeds = values_of(found.base.values(), row, what)
    costs = [value for value, _ in found.range_of(row, what, "costs")]
    if min(seeds) <= want <= max(seeds):
        return "within the range of seeds."
    if costs and min(costs) <= want <= max(costs):
        return "within the range of the costs."
    way = _distance(what, base, want)
    if abs(way) < NEAR:
        return f"{show(what, want)} for {show(what, base)}, nearer than {NEAR:.0%}."
    ways: list[tuple[float, float, Choice]] = []
    for group in found.groups():
        for value, choice in found.range_of(row, what, group):
            ways.append((1 - abs(_distance(what, value, want)) / abs(way), value, choice))
    ways.sort(key=lambda one: -one[0])
    far = [f"`{choice.factor} = {choice.value}` ({show(what, value)})"
           for share, value, choice in ways[:4] if share >= 0.5]
    if far:
        return f"{show(what, want)} for {show(what, base)}; at least half of the way go {', '.join(far)}."
    share, value, choice = ways[0]
    return (f"{show(what, want)} for {show(what, base)}; no single choice goes half of the way; nearest is "
            f"`{choice.factor} = {choice.value}` ({show(what, value)}).")


def _distance(what: str, value: float, want: float) -> float:
    """In logs; of a change, of after / before."""
    if what == "change":
        value, want = 100 + value, 100 + want
    return math.log(max(value, 1e-9) / max(want, 1e-9))


def _notes(found: Sensitivity) -> str:
    text = resources.files("reclaim").joinpath("data", "sensitivity_notes.toml").read_text("utf-8")
    return "".join(f"\n{note['text'].strip()}\n" for note in tomllib.loads(text)["note"]
                   if note["scenario"] == found.plan.scenario.name)


def _ranking(found: Sensitivity) -> str:
    numbers = [(row, what) for row, what in WHAT if values_of(found.base.values(), row, what)]
    head = ["choice", "effect", *(f"{row} {what}" for row, what in numbers)]
    base = [show(what, statistics.median(values_of(found.base.values(), row, what))) for row, what in numbers]
    lines = ["\n## Choices, by their greatest effect on any number\n\n`~`: the range of the base over its "
             f"seeds is as wide as what the choice does.\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}\n",
             f"| base | | {' | '.join(base)} |\n"]
    for choice, effect, cells in found.ranked():
        by = {(cell.row, cell.what): str(cell) for cell in cells}
        lines.append(f"| `{choice.factor} = {choice.value}` | {factor(effect)} | "
                     + " | ".join(by.get(number, "-") for number in numbers) + " |\n")
    return "".join(lines) + f"\nWithout any effect here: {told(found.without_effect())}.\n"
