"""The shared names: the C enumerations are their print-out, the specification holds them all."""

import re
from pathlib import Path

from reclaim import _core, names

ROOT = Path(__file__).parent.parent


def test_pxd_is_what_names_prints():
    assert (ROOT / "reclaim/_mm/names.pxd").read_text() == names.as_pxd(), (
        "run `python -m reclaim.names > reclaim/_mm/names.pxd`")


def test_specification_has_every_step_cost_and_counter():
    text = (ROOT / "docs/model.md").read_text()
    missing = [n for n in (*names.STEPS, *names.COSTS) if not re.search(rf"\b{n}\b", text)]
    assert not missing


def test_every_step_is_in_a_header():
    text = "".join(p.read_text() for p in (ROOT / "reclaim/_mm").glob("*.pxd"))
    # a task at E_LEFT does not run
    assert [n for n in names.STEPS if f"step_{n}(" not in text] == ["E_LEFT", "V_CHILD"]


def test_irq_column_of_the_specification():
    """Rows of the off-list are real steps."""
    assert _core.IRQ_OFF_STEPS <= set(names.STEPS)
