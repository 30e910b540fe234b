"""The page `docs/validation.md`: the score, what misses and why, every case."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from importlib import resources

from reclaim import measured
from reclaim.pages import sealed
from reclaim.scenario import Scenario
from reclaim.validation import FEW, Row, Validation

_HEAD = """# Measured runs of real kernels, simulated

Written by `{command}`; do not edit: a test compares.
Inputs: `{inputs}`.

{nr} cases: {sources}.

Each was simulated from its scenario with seeds 1 to {seeds}, to the work that each of its repeats did:
the touches of a sequential writer, the steals of others: stress-ng's touches are not counted, and those of
`mix` are mostly of workers that have all of their pages and make thousands while the others make one fault
(docs/measured.md). Guests whose CPUs share a host CPU take the
profile `tcg-rr`, other machines `{profile}`; no constant is a case's. Cells are medians, with the least
and the greatest of the repeats or of seeds and repeats. *ratio* is simulated / measured.

Verdicts: **ok** within the bar of the metric; **near** beyond the bar of the median (12%), within that
of each case (35%); **MISS** beyond it; **meets** beyond it, but the count is of lazy masks before the
series, which remember each chance move, and the ranges meet. *fixed* is arithmetic at equal touches,
*few* rests on under {few} events, *in range* and *out of range* are ranges compared: all shown, none
scored. `steal_per_scan` is scored after its scans were moved by up to one walk over the list towards the
measured ones: one such sweep more or less moves a short run by a third (*ratio* is before that); *(sweep)* marks
verdicts that are better for it. The score counts those, and those that *meet*.

The `mix` cases are no prediction: what they touched is not recorded but for "half of the accesses read"; that
they go in order was chosen because drawn at random they could not give what these runs counted. The score is
given with and without them.

## Score

Bars: of the median absolute relative error, and of each case. *guests*: QEMU, CPUs round robin on one
host CPU; *machines*: the others.

| group | metric | cases | median error | worst error | bars | |
|---|---|---|---|---|---|---|
"""


def inputs(path: str | None = None) -> str:
    """A hash of what the page is made from: the runs, the profiles, the notes and the model's version."""
    from reclaim import _core
    from reclaim.machine import profile_names
    package = resources.files("reclaim")
    parts = [b"".join(measured.lines(path)), str(_core.MODEL_VERSION).encode(),
             package.joinpath("data", "validation_notes.toml").read_bytes()]
    parts += [package.joinpath("profiles", f"{name}.toml").read_bytes() for name in profile_names()]
    return hashlib.blake2b(b"\0".join(parts), digest_size=16).hexdigest()


def page(found: Validation, command: str, *, profile: str | None = None, path: str | None = None) -> str:
    """The page of `found`; its last line is a hash of the others.

    command : that made it; profile, path : as `reclaim.validation.validate` was given them.
    """
    nr = len({(row.case, row.policy) for row in found.rows}) + len(found.refused)
    sources = Counter(source for _, source in sorted(found.sources.items()))
    text = _HEAD.format(command=command, inputs=inputs(path), nr=nr, seeds=found.seeds, few=FEW,
                        sources="; ".join(f"{n} of {source}" for source, n in sources.items()),
                        profile=profile or Scenario().machine.profile)
    for s in found.scores:
        verdict = s.told() if s.passed else f"**{s.told()}**"
        text += (f"| {s.group} | `{s.metric}` | {s.nr} | {s.median:.1%} | {s.worst:.1%} | {s.bars()} | "
                 f"{verdict} |\n")
    text += "\n## What misses, and why\n\n" + "".join(
        f"{note.text}\n\n*{len(about)} rows*: {_told(about)}.\n\n" for note, about in found.explained())
    if found.unexplained():
        text += f"Not explained: {_told(found.unexplained())}.\n\n"
    if found.refused:
        text += "## Not reproduced\n\n" + "".join(
            f"* `{case}` {policy}: {reason}\n" for case, policy, reason in found.refused) + "\n"
    text += ("## Every case\n\n| case | policy | metric | measured | simulated | ratio | |\n"
             "|---|---|---|---|---|---|---|\n")
    return sealed(text + "".join(map(line, found.rows)))


def line(row: Row) -> str:
    """One line of the page's last table."""
    return (f"| {row.case} | {row.policy} | `{row.metric}` | {row.measured} | {row.simulated} | "
            f"{row.ratio:.3f} | {row.told} |\n")


def _told(rows: Iterable[Row]) -> str:
    return "; ".join(f"`{row.case}` {row.policy} {row.metric} {row.ratio:.2f} ({row.verdict})"
                     for row in rows)
