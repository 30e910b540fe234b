"""Results in files: ``NAME.json`` with all but the arrays, which are in an ``.npz`` beside it.

The JSON file names its arrays' file, whose name holds a part of its digest: saving over an older
result writes a new one first and then replaces the JSON file, so that at any moment the name leads
to a whole result, the older or the newer.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from reclaim.errors import ReclaimError, ResultError
from reclaim.files import check_directory, read_bounded, replacing
from reclaim.result import Result
from reclaim.scenario import MAX_SECONDS, Scenario

FORMAT = "reclaim result"
VERSION = 1
GROUPS = ("times", "histograms", "flushes", "series")   # fields of a Result that are arrays by name
MAX_JSON = 16 << 20                # bytes of the JSON file
MAX_NPZ = 256 << 20                # bytes of the arrays, packed and unpacked
MAX_ARRAYS = 256
MAX_COUNT = 1e30                   # of a counter
MAX_HEADER = 4096                  # bytes of an array's description
_EPOCH = (1980, 1, 1, 0, 0, 0)     # of a member of the zip: equal results are equal files


def save(result: Result, path: str | os.PathLike[str]) -> None:
    """As `Result.save`."""
    name = check_name(os.fspath(path))
    if not isinstance(result.scenario, Scenario):
        raise ResultError(f"{name}: the run of a World cannot be saved, since no file holds its input; "
                          "run a Scenario")
    packed = _pack(result)
    digest = hashlib.blake2b(packed, digest_size=32).hexdigest()
    arrays = f"{os.path.basename(name).removesuffix('.json')}.{digest[:12]}.npz"
    older = _arrays_of(name)
    text = json.dumps({
        "format": FORMAT, "version": VERSION, "scenario": result.scenario.to_dict(),
        "policy": result.policy, "seed": result.seed, "seconds": result.seconds,
        "partial": result.partial, "digest": result.digest, "wall_s": result.wall_s,
        "counters": dict(result.counters), "provenance": dict(result.provenance),
        "arrays": {"file": arrays, "bytes": len(packed), "blake2b": digest},
    }, indent=1, allow_nan=False) + "\n"
    beside = os.path.join(os.path.dirname(os.path.realpath(name)), arrays)
    new = not os.path.exists(beside)
    try:
        with replacing(name, ResultError) as file:
            with replacing(beside, ResultError) as array_file:
                _write(array_file, packed)
            _write(file, text.encode())
    except BaseException:
        if new:
            with suppress(OSError):
                os.unlink(beside)
        raise
    if older not in ("", arrays):
        with suppress(OSError):
            os.unlink(os.path.join(os.path.dirname(beside), older))


def check_name(name: str) -> str:
    """`name`, if a result can be saved there; the directory must be there already.

    Raises
    ------
    ResultError : it cannot.
    """
    stem = os.path.basename(name).removesuffix(".json")
    if not name.endswith(".json") or not stem:
        raise ResultError(f"{name}: a result is saved under a name that ends in .json, and its arrays beside "
                          "it; give another one, as result.json")
    return check_directory(name, ResultError)


def _write(file: Any, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _arrays_of(name: str) -> str:
    """The name of the arrays' file that the result at `name` uses and no other can, or ""."""
    with suppress(ReclaimError, KeyError, TypeError, ValueError):
        file = str(json.loads(read_bounded(name, MAX_JSON, ResultError, ""))["arrays"]["file"])
        stem = os.path.basename(name).removesuffix(".json")
        middle = file.removeprefix(stem + ".").removesuffix(".npz")
        if file == f"{stem}.{middle}.npz" and len(middle) == 12 and set(middle) <= set("0123456789abcdef"):
            return file
    return ""


def _pack(result: Result) -> bytes:
    """The arrays of `result` as a zip of .npy members, which `numpy.load` reads too."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for group in GROUPS:
            for name, values in getattr(result, group).items():
                array = np.ascontiguousarray(values)
                if array.dtype.kind not in "iuf" or array.ndim != 1 or not name.isidentifier():
                    raise ResultError(f"{group}.{name}: {array.ndim} dimensions of {array.dtype} cannot be "
                                      "saved; one of numbers can")
                member = io.BytesIO()
                np.lib.format.write_array(member, array, allow_pickle=False)
                packed.writestr(zipfile.ZipInfo(f"{group}.{name}.npy", _EPOCH), member.getvalue(),
                                zipfile.ZIP_DEFLATED)
    return out.getvalue()


def load(path: str | os.PathLike[str]) -> Result:
    """As `Result.load`."""
    name = os.fspath(path)
    return _build(name, _read_json(name), arrays=True)


def load_for_rerun(path: str | os.PathLike[str]) -> Result:
    """As `load`, but without the arrays, which a rerun does not need: they may be missing."""
    name = os.fspath(path)
    return _build(name, _read_json(name), arrays=False)


def _fail(where: str, message: str) -> NoReturn:
    raise ResultError(f"{where}: {message}")


def _read_json(name: str) -> dict[str, Any]:
    raw = read_bounded(name, MAX_JSON, ResultError, "a result saved by reclaim (NAME.json)")

    def constant(word: str) -> NoReturn:
        raise ValueError(f"{word} is not JSON")
    try:
        data = json.loads(raw.decode("utf-8"), parse_constant=constant)
    except UnicodeDecodeError as err:
        _fail(name, f"not UTF-8 at byte {err.start}; expected a result saved by reclaim (NAME.json)")
    except json.JSONDecodeError as err:
        _fail(name, f"not JSON at line {err.lineno}, column {err.colno}: {err.msg}; it is cut off or no "
                    "saved result")
    except (ValueError, RecursionError) as err:     # NaN, an integer of too many digits, deep nesting
        _fail(name, f"not JSON: {err or 'nested too deeply'}")
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        _fail(name, f'"format" is not "{FORMAT}": this is no result that `reclaim run -o` saved')
    if data.get("version") != VERSION:
        _fail(name, f"version {_short(data.get('version'))} of the format, expected {VERSION}: read it with "
                    "the reclaim that wrote it, or run it again")
    return data


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class _Fields:
    """The entries of a JSON file, each checked as it is taken."""

    def __init__(self, name: str, data: Mapping[str, Any]) -> None:
        self.name, self.data = name, data

    def get(self, key: str, kind: type | tuple[type, ...], expected: str, ok: Any = None) -> Any:
        """The value of `key` if it is of `kind`, and `ok` says so."""
        if key not in self.data:
            _fail(self.name, f'"{key}" is missing, expected {expected}; the file is not whole')
        value = self.data[key]
        booleans = kind is bool
        if not isinstance(value, kind) or isinstance(value, bool) != booleans or (ok and not ok(value)):
            _fail(self.name, f'"{key}" = {_short(value)}, expected {expected}')
        return value


def _build(name: str, data: dict[str, Any], *, arrays: bool) -> Result:
    fields = _Fields(name, data)
    scenario = Scenario.from_dict(fields.get("scenario", dict, "a table"), where=f'{name}: "scenario"')
    counters = fields.get("counters", dict, "a table of numbers")
    for key, value in counters.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < MAX_COUNT
        if not (number or key == "digest"):
            _fail(name, f'"counters", {_short(key)} = {_short(value)}, expected a number, at most {MAX_COUNT:g}')
    groups: dict[str, dict[str, NDArray[Any]]] = {group: {} for group in GROUPS}
    if arrays:
        where = fields.get("arrays", dict, "a table of file, bytes, blake2b")
        groups = _read_arrays(name, _Fields(name, where))

    def short(value: str) -> bool:
        return len(value) <= 1000 and value.isprintable()

    def time(value: float) -> bool:
        return 0 <= value < 1e12
    return Result(
        scenario=scenario, policy=fields.get("policy", str, "a policy's name", short),
        seed=fields.get("seed", int, "0 to 2**64 - 1", lambda value: 0 <= value < 2**64),
        counters=counters, **groups,
        seconds=float(fields.get("seconds", (int, float), "seconds", time)),
        partial=fields.get("partial", bool, "true or false"),
        provenance=fields.get("provenance", dict, "a table"),
        digest=fields.get("digest", str, "a digest of 64 hexadecimal digits", short),
        wall_s=float(fields.get("wall_s", (int, float), "seconds", time)))


def _read_arrays(name: str, fields: _Fields) -> dict[str, dict[str, NDArray[Any]]]:
    file = fields.get("file", str, "the name of a file beside this one",
                      lambda value: 0 < len(value) <= 255 and value.isprintable() and "/" not in value
                      and value not in (".", ".."))
    size = fields.get("bytes", int, f"0 to {MAX_NPZ}", lambda value: 0 <= value <= MAX_NPZ)
    digest = fields.get("blake2b", str, "a digest")
    path = os.path.join(os.path.dirname(os.path.realpath(name)), file)
    packed = read_bounded(path, min(size, MAX_NPZ) + 1, ResultError, f"the arrays of {name}, {size:,} bytes")
    if len(packed) != size:
        _fail(path, f"{len(packed):,} bytes, but {name} says {size:,}: it is cut off or another result's")
    if hashlib.blake2b(packed, digest_size=32).hexdigest() != digest:
        _fail(path, f"not the arrays that {name} names: its BLAKE2b differs; keep the two files of a "
                    "result together")
    groups = _unpack(path, packed)
    for group, what in (("times", "CPU"), ("flushes", "cause"), ("series", "interval")):
        if len({len(values) for values in groups[group].values()}) > 1:
            _fail(path, f"the arrays of {group} differ in length, expected one number for each {what}")
    return groups


def _unpack(path: str, packed: bytes) -> dict[str, dict[str, NDArray[Any]]]:
    """The arrays by group and name; never unpacks more than `MAX_NPZ` bytes, never a pickle."""
    groups: dict[str, dict[str, NDArray[Any]]] = {group: {} for group in GROUPS}
    left = MAX_NPZ
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as members:
            if len(members.infolist()) > MAX_ARRAYS:
                _fail(path, f"{len(members.infolist()):,} arrays, expected at most {MAX_ARRAYS}")
            for info in members.infolist():
                group, _, name = info.filename.removesuffix(".npy").partition(".")
                if group not in groups or not name.isidentifier() or not name.isascii():
                    _fail(path, f"member {_short(info.filename)}: expected GROUP.NAME.npy, GROUP one of "
                                f"{', '.join(GROUPS)}")
                with members.open(info) as member:
                    data = member.read(left + 1)
                if len(data) > left:
                    _fail(path, f"member {_short(info.filename)}: more than {MAX_NPZ:,} bytes unpacked")
                left -= len(data)
                groups[group][name] = _array(f"{path}: member {_short(info.filename)}", data)
    except ResultError:
        raise
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, OSError, RuntimeError, ValueError,
            ArithmeticError, LookupError, struct.error, zlib.error) as err:   # all that zipfile may raise
        _fail(path, f"not an .npz: {err or type(err).__name__}")
    return groups


def _array(where: str, data: bytes) -> NDArray[Any]:
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            _fail(where, f"version {version} of .npy, expected (1, 0)")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=MAX_HEADER)
    except ResultError:
        raise
    except (ValueError, TypeError, SyntaxError, LookupError, RecursionError, MemoryError) as err:
        _fail(where, f"not an array: {str(err).splitlines()[0] if str(err) else type(err).__name__}")
    if dtype.hasobject or dtype.kind not in "iuf" or fortran or len(shape) != 1:
        _fail(where, f"an array of {dtype}, shape {_short(shape)}, expected numbers in one dimension")
    body = data[file.tell():]
    if shape[0] < 0 or shape[0] * dtype.itemsize != len(body):
        _fail(where, f"{len(body):,} bytes for shape {_short(shape)} of {dtype}: it is cut off or hostile")
    array: NDArray[Any] = np.frombuffer(body, dtype).copy()
    if not np.isfinite(array).all() or (array < 0).any():
        _fail(where, "holds a negative number or none, expected times or counts")
    return array


def rerun(result: Result, *, policy: Any = None, progress: Any = None) -> Result:
    """Run again what made `result`; `difference` tells whether the same came out.

    policy : instead of the saved name, for one that `reclaim` does not know by name.

    Raises
    ------
    ResultError : it was interrupted, was not made by `run`, or its policy is not known here.
    """
    from reclaim import policies
    from reclaim.errors import PolicyError
    from reclaim.simulation import Simulation
    where = f"{result.name}, {result.policy}, seed {result.seed}"
    if result.partial:
        raise ResultError(f"{where}: it was interrupted, at a moment that no rerun can find; run it to "
                          "its end")
    ran = result.provenance.get("run")
    if not (isinstance(ran, Mapping) and isinstance(ran.get("seconds"), (int, float))
            and isinstance(ran.get("touches"), int) and 0 <= ran["seconds"] <= MAX_SECONDS
            and 0 <= ran["touches"] < 2**63):
        raise ResultError(f"{where}: its provenance does not say where the run was to end, so it cannot be "
                          "repeated; make it with `reclaim run -o`")
    try:
        chosen = policies.get(result.policy if policy is None else policy)
    except PolicyError as err:
        raise ResultError(f"{where}: its policy is not known here ({err}); pass it: "
                          "reclaim.saved.rerun(result, policy=...)") from None
    simulation = Simulation(result.scenario, chosen, seed=result.seed)
    made: Result = simulation.run(float(ran["seconds"]), touches=ran["touches"], progress=progress)
    return made


def difference(saved: Result, again: Result) -> str:
    """"" if both ended in the same state, else what differs and what may be the cause."""
    if saved.digest == again.digest and saved.digest:
        return ""
    causes = []
    for key, what in (("reclaim", "reclaim"), ("model", "model version")):
        old, new = saved.provenance.get(key), again.provenance.get(key)
        causes.append(f"{what} {_plain(old)} then, {new} now" if old != new else f"{what} {new} both times")
    old_slots, new_slots = (slots(run) for run in (saved, again))
    changed = [slot for slot in new_slots if old_slots.get(slot) != new_slots[slot]]
    if changed:
        causes.append("the policy's " + ", ".join(changed) + " changed")
    file = again.scenario.workload.file if isinstance(again.scenario, Scenario) else ""
    if file:
        causes.append(f"the trace {file} may have changed")
    counts = [f"{name} {saved.counters[name]} then, {again.counters.get(name)} now"
              for name in ("pgsteal_anon", "tlb_shootdowns", "page_touches")
              if name in saved.counters and saved.counters[name] != again.counters.get(name)]
    if all(cause.endswith("both times") for cause in causes):
        causes.append("so other sources were built, or this is a defect")
    return (f"the digest differs: {saved.digest or 'none'} then, {again.digest} now ({'; '.join(causes)}); "
            + ("; ".join(counts) or "the counters are the same"))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) and value.isprintable() and len(value) < 60 else _short(value)


def slots(run: Result) -> Mapping[str, Any]:
    """The strategies that provenance names, by slot; none if it is not what `run` writes."""
    policy = run.provenance.get("policy")
    named = policy.get("slots") if isinstance(policy, Mapping) else None
    return named if isinstance(named, Mapping) else {}
