"""Running code as an ordinary user, also where the tests run as root."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import reclaim

NOBODY = 65534
MODULES = ("cli", "observation", "calibration", "_probe", "machine", "memory", "procfs", "units")
# Imported before, with what argparse imports when it is used: nobody may be kept out of the directories they are in.
DROP = f"""
import contextlib, os, sys
sys.path.insert(0, {str(Path(reclaim.__file__).parent.parent)!r})
import {", ".join("reclaim." + name for name in MODULES)}
for name in ("observe", "calibrate"):
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.suppress(SystemExit):
        reclaim.cli.main([name, "--help"])
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
    os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
assert os.geteuid() != 0
try:
    code = reclaim.cli.main(sys.argv[1:])
except SystemExit as end:
    code = end.code
sys.exit(code)
"""


def reclaim_as_nobody(*argv: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """The command line `argv`, without root's rights."""
    return subprocess.run([sys.executable, "-c", DROP, *argv], cwd="/", capture_output=True, text=True,
                          timeout=timeout)


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that anyone may write to."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)
