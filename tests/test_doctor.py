"""`reclaim doctor`: it finds nothing here, and names each fault and its remedy where there is one."""

import json
import os

import pytest

from reclaim import doctor
from reclaim.cli import main


def by_name():
    return {finding.name: finding for finding in doctor.diagnose()}


@pytest.fixture
def healthy():
    found = by_name()
    if found["self-check"].status != doctor.OK or found["reclaim._core"].status != doctor.OK:
        pytest.skip(f"this build is not one to be well: {doctor.show(list(found.values()))}")
    return found


def test_self_check_is_golden(request):
    digest = doctor.run_expected()
    if request.config.getoption("--update-golden"):
        path = os.path.join(os.path.dirname(doctor.__file__), "selfcheck.toml")
        with open(path) as file:
            text = file.read().replace(doctor.expected()["digest"], digest)
        with open(path, "w") as file:
            file.write(text)
    assert digest == doctor.expected()["digest"], \
        "meant? run pytest --update-golden and say why in CHANGELOG.md"


def test_well(healthy, capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert out.endswith("No problem found.\n") and "digest as expected" in out
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"name", "status", "found", "remedy"} == set(found[0])
    assert {"reclaim", "python", "numpy", "reclaim._core", "compiler", "extra plot", "self-check"} <= {
        f["name"] for f in found}
    assert "built by" in healthy["reclaim._core"].found


def test_a_wrong_digest(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "run_expected", lambda: "0" * 64)
    found = by_name()["self-check"]
    assert found.status == doctor.BROKEN and "expected" in found.found and "reinstall" in found.remedy
    assert main(["doctor"]) == 1
    assert "PROBLEM  self-check" in capsys.readouterr().out


def test_what_raises_is_a_problem_and_ends_nothing(monkeypatch):
    def broken():
        raise ImportError("libstdc++.so.6: not found")
    monkeypatch.setattr(doctor, "run_expected", broken)
    found = by_name()
    assert "libstdc++" in found["self_check"].found and found["self_check"].remedy and "numpy" in found


def test_missing_things(monkeypatch):
    from importlib import metadata

    def missing(name):
        raise metadata.PackageNotFoundError(name)
    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.setenv("CC", "no-such-compiler")
    found = by_name()
    assert found["extra plot"].status == doctor.MISSING
    assert '"reclaim-sim[plot]"' in found["extra plot"].remedy
    assert found["compiler"].status == doctor.MISSING and "apt-get install gcc" in found["compiler"].remedy


def test_old_numpy(monkeypatch):
    import numpy
    monkeypatch.setattr(numpy, "__version__", "1.25.2")
    assert by_name()["numpy"].status == doctor.BROKEN


def test_sources_newer_than_the_build(healthy, tmp_path, monkeypatch):
    package = tmp_path / "reclaim"
    (package / "_mm").mkdir(parents=True)
    (tmp_path / "setup.py").touch()
    built, source = package / "_core.so", package / "_mm" / "lru.pxd"
    for path, when in ((built, 100), (source, 200)):
        path.touch()
        os.utime(path, (when, when))
    monkeypatch.setattr(doctor, "__file__", str(package / "doctor.py"))
    assert doctor._newer_source("reclaim._core", str(built)) == "reclaim/_mm/lru.pxd"
    os.utime(built, (300, 300))
    assert doctor._newer_source("reclaim._core", str(built)) == ""
