"""The command line: parse, call the library, print.

Data go to stdout, talk to stderr.  NumPy and the core are imported only by what runs them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from reclaim import __version__
from reclaim.errors import ReclaimError, did_you_mean

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INPUT = 0, 1, 2, 3
EXIT_INTERRUPTED, EXIT_PIPE = 130, 141     # as a shell reports SIGINT and SIGPIPE


class _Parser(argparse.ArgumentParser):
    """argparse, with a suggestion for a mistyped option."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs, allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        parsed, rest = self.parse_known_args(*args, **kwargs)
        if rest:
            parser = parsed.parser
            options = [o for action in parser._actions for o in action.option_strings]
            parser.error(f"unrecognized argument {rest[0]!r}"
                         + did_you_mean(rest[0].partition("=")[0], options))
        return parsed

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as err:
            err.message += did_you_mean(value, map(str, action.choices or ()))
            raise


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv`; the exit code."""
    try:
        args = _parser().parse_args(argv)
        return _call(args)
    except BrokenPipeError:
        # Whoever read stdout has left; keep the interpreter from flushing into the void.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE


def _call(args: argparse.Namespace) -> int:
    try:
        code = args.func(args)
        sys.stdout.flush()
        return int(code)
    except BrokenPipeError:
        raise
    except ReclaimError as err:
        return _complain(str(err), EXIT_INPUT)
    except KeyboardInterrupt:
        return _complain("interrupted before there was anything to print", EXIT_INTERRUPTED)
    except MemoryError:
        return _complain("out of memory: the scenario needs less memory.total, memcg.limit, "
                         "swap.size or workload.bytes", EXIT_FAILED)
    except OSError as err:
        return _complain(str(err), EXIT_FAILED)


def _complain(message: str, code: int) -> int:
    print(f"reclaim: {message}", file=sys.stderr)
    return code


def _parser() -> _Parser:
    parser = _Parser(
        prog="reclaim",
        description="Simulates Linux page reclaim and TLB shootdowns, before and after a patch.",
        epilog="exit codes: 0 ok, 1 failed or differs, 2 usage, 3 bad input, 130 interrupted (what there is\n"
               "is printed)\n"
               "examples:\n  reclaim compare batch-tlb-flush --seconds 5\n"
               "  reclaim run small --policy stage5 --json\n"
               "  reclaim report small -o report.html")
    parser.add_argument("--version", action="version", version=f"reclaim {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND",
                                     parser_class=_Parser)
    _add_compare(commands)
    _add_run(commands)
    _add_convert(commands)
    _add_rerun(commands)
    _add_plot(commands)
    _add_report(commands)
    _add_doctor(commands)
    for name, func, text in (("policies", _policies, "list the policies"),
                             ("scenarios", _scenarios, "list the packaged scenarios"),
                             ("profiles", _profiles, "list the machine profiles")):
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        command.set_defaults(func=func, parser=command)
    return parser


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare", help="two policies side by side, beside what was published",
        description="Run two policies over a scenario and print the table of the series.",
        epilog="example: reclaim compare batch-tlb-flush --after v2:4 --seeds 3")
    compare.add_argument("scenario", nargs="?", default="batch-tlb-flush", metavar="SCENARIO",
                         help="packaged name or TOML file (default: %(default)s)")
    compare.add_argument("--before", default="stage0", metavar="POLICY", help="default: %(default)s")
    compare.add_argument("--after", default="stage5", metavar="POLICY", help="default: %(default)s")
    compare.add_argument("--seeds", type=_integer, default=1, metavar="N",
                         help="runs of each policy; medians are printed, and with several runs 95%% "
                              "intervals and a U-test (default: 1; take 6 or more)")
    compare.add_argument("--style", default="table", metavar="NAME",
                         help="layout: table (default), lkml, mmtests, lkp, markdown, csv, json; "
                              "'help' describes them")
    _add_common(compare)
    compare.set_defaults(func=_compare, parser=compare)


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run", help="one policy", description="Run one policy over a scenario or a trace.",
        epilog="examples:\n  reclaim run small --policy stage5\n"
               "  valgrind --tool=lackey --trace-mem=yes --log-file=sort.txt sort FILE\n"
               "  reclaim run --trace sort.txt --policy stage5")
    run.add_argument("scenario", nargs="?", metavar="SCENARIO",
                     help="packaged name or TOML file; with --trace it may be left out")
    run.add_argument("--policy", default="stage0", metavar="NAME", help="default: %(default)s")
    run.add_argument("--seed", type=_integer, metavar="N", help="instead of the scenario's")
    run.add_argument("--trace", metavar="FILE",
                     help="replay these memory references; without SCENARIO on the machine of "
                          "'small' with a limit of half of the trace's pages")
    run.add_argument("-o", "--output", metavar="FILE",
                     help="save the result too: FILE is NAME.json, its arrays go beside it")
    run.add_argument("--format", metavar="NAME", help="of the trace; default: told by its content")
    _add_common(run)
    run.set_defaults(func=_run, parser=run)


def _add_convert(commands: Any) -> None:
    convert = commands.add_parser(
        "convert", help="a trace into another format",
        description="Write a trace in another format. OUTPUT is replaced once all of it is written.",
        epilog="example: reclaim convert sort.txt.gz sort.oracleGeneral")
    convert.add_argument("input", metavar="INPUT", help="a trace, plain, gzip or xz")
    convert.add_argument("output", metavar="OUTPUT")
    convert.add_argument("--format", metavar="NAME", help="of INPUT; default: told by its content")
    convert.add_argument("--to", metavar="NAME",
                         help="csv, txt or oracleGeneral; default: told by a suffix of OUTPUT")
    convert.add_argument("--writes", choices=("first", "all", "none"), default="first",
                         help="INPUT is txt or oracleGeneral: which references write; first: the "
                              "first to each object (default)")
    convert.set_defaults(func=_convert, parser=convert)


def _add_rerun(commands: Any) -> None:
    rerun = commands.add_parser(
        "rerun", help="a saved result once more, and whether the same comes out",
        description="Run again what made a saved result. Exit code 0 if the digest is the same, 1 if not.",
        epilog="example:\n  reclaim run small -o result.json && reclaim rerun result.json")
    rerun.add_argument("result", metavar="RESULT", help="as `reclaim run -o` saved it")
    rerun.add_argument("--json", action="store_true", help="print the new result as JSON")
    rerun.set_defaults(func=_later("rerun"), parser=rerun)


def _add_plot(commands: Any) -> None:
    plot = commands.add_parser(
        "plot", help="a picture of saved results, or of a metric over two parameters",
        description="Draw saved results as svg, png or pdf. Needs matplotlib: "
                    "pip install \"reclaim-sim[plot]\".",
        epilog="examples:\n  reclaim plot before.json after.json --kind per-page -o pages.svg\n"
               "  reclaim plot small --kind grid --over policy.flush='batch(1),batch(8),batch(31)' \\\n"
               "      --over memcg.limit=4M,8M,12M -o grid.png")
    plot.add_argument("results", nargs="*", metavar="RESULT",
                      help="saved by `reclaim run -o`; with --kind grid one SCENARIO")
    plot.add_argument("-o", "--output", required=True, metavar="FILE", help="NAME.svg, .png or .pdf")
    plot.add_argument("--kind", default="time", metavar="NAME",
                      help="time (default), batches, targets, per-page or grid; 'help' describes them")
    grid = plot.add_argument_group("with --kind grid")
    grid.add_argument("--over", action="append", default=[], metavar="KEY=VALUE,...",
                      help="a parameter and its values, given twice: a scenario's key, policy, or "
                           "policy.SLOT")
    grid.add_argument("--metric", default="tlb_shootdowns_per_page", metavar="NAME",
                      help="default: %(default)s")
    grid.add_argument("--policy", default="stage5", metavar="NAME", help="default: %(default)s")
    grid.add_argument("--seconds", type=_seconds, metavar="S", help="simulated time of each run")
    plot.set_defaults(func=_later("plot"), parser=plot)


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report", help="one page with table, pictures, assumptions and provenance",
        description="Write a page that needs nothing else, from saved results or from a scenario.",
        epilog="examples:\n  reclaim report before.json after.json -o report.html\n"
               "  reclaim report small --seeds 6 -o report.html")
    report.add_argument("inputs", nargs="+", metavar="RESULT|SCENARIO",
                        help="results saved by `reclaim run -o`, the first policy's before the second's; "
                             "or one SCENARIO, which is run")
    report.add_argument("-o", "--output", required=True, metavar="FILE", help="NAME.html")
    runs = report.add_argument_group("with a SCENARIO")
    runs.add_argument("--before", metavar="POLICY", help="default: stage0")
    runs.add_argument("--after", metavar="POLICY", help="default: stage5")
    runs.add_argument("--seeds", type=_integer, metavar="N", help="runs of each policy (default: 1)")
    runs.add_argument("--seconds", type=_seconds, metavar="S",
                      help="simulated time, instead of the scenario's")
    report.set_defaults(func=_later("report"), parser=report)


def _add_doctor(commands: Any) -> None:
    doctor = commands.add_parser(
        "doctor", help="what is installed, what works, what to do about the rest",
        description="Check the installation. Exit code 1 if something is wrong; a missing extra is not.")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(func=_later("doctor"), parser=doctor)


def _later(name: str) -> Any:
    """The command `name` of `reclaim.commands`, which is imported when it is called."""
    def command(args: argparse.Namespace) -> int:
        from reclaim import commands
        code: int = getattr(commands, name)(args)
        return code
    return command


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seconds", type=_seconds, metavar="S",
                         help="simulated time, instead of the scenario's: 5, 200ms")
    command.add_argument("--json", action="store_true", help="print JSON")


def _integer(text: str) -> int:
    try:
        return int(text, 10)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None


def _seconds(text: str) -> float:
    from reclaim.units import parse_time
    try:
        return float(text)   # its range is the scenario's to judge
    except ValueError:
        try:
            return parse_time(text)
        except ValueError as err:
            raise argparse.ArgumentTypeError(str(err)) from None


def _compare(args: argparse.Namespace) -> int:
    from reclaim.comparison import compare
    style = _style(args)
    if style == "help":
        from reclaim.styles import styles
        return _print_list(styles().items())
    scenario = _with_seconds(_load(args.scenario), args.seconds)
    with _Progress() as progress:
        table = compare(scenario, args.before, args.after, seeds=args.seeds,
                        progress=progress.callback)
    return _print(table, style == "json", None if style == "table" else style)


def _style(args: argparse.Namespace) -> str:
    from reclaim.styles import check_style
    if args.json and args.style not in ("table", "json"):
        args.parser.error(f"--json and --style {args.style} are two styles; give one")
    return "json" if args.json else "help" if args.style == "help" else check_style(args.style)


def _run(args: argparse.Namespace) -> int:
    from reclaim.comparison import simulate
    from reclaim.scenario import Scenario
    if args.format is not None:
        if args.trace is None:
            args.parser.error("--format NAME needs --trace FILE")
        _format_name(args, args.format)
    trace_format = args.format or "auto"
    if args.scenario is not None:
        scenario = _load(args.scenario)
        if args.trace is not None:
            scenario = scenario.replace(
                workload={"kind": "trace", "workers": 1, "file": args.trace,
                          "format": trace_format}, where="--trace")
    elif args.trace is not None:
        scenario = Scenario.for_trace(args.trace, format=trace_format)
    else:
        args.parser.error("give a SCENARIO, or --trace FILE")
    if args.seed is not None:
        scenario = scenario.replace(seed=args.seed, where="--seed")
    scenario = _with_seconds(scenario, args.seconds)
    if args.output is not None:
        from reclaim.saved import check_name
        check_name(args.output)     # before the work
    with _Progress() as progress:
        result = simulate(scenario, args.policy, progress=progress.callback)
    try:
        if args.output is not None:
            result.save(args.output)
    except OSError:
        _print(result, args.json)       # the work is not lost
        raise
    return _print(result, args.json)


def _convert(args: argparse.Namespace) -> int:
    from reclaim.conversion import convert
    to = _format_name(args, args.to or _suffix_format(args), writable=True)
    if args.format is not None:
        _format_name(args, args.format)
    try:
        with _Progress() as progress:
            references, tasks = convert(
                args.input, args.output, to=to, format=args.format, writes=args.writes,
                progress=lambda share, done: progress.show(share, f"{done:,} references"))
    except KeyboardInterrupt:
        return _complain(f"interrupted: {args.output} is as it was", EXIT_INTERRUPTED)
    print(f"{args.output}: {to}, {references:,} references of {tasks:,} "
          f"task{'s' if tasks != 1 else ''}")
    return EXIT_OK


def _format_name(args: argparse.Namespace, name: str, *, writable: bool = False) -> str:
    from reclaim import formats
    names = formats.names(writable=writable)
    if name not in names:
        args.parser.error(f"unknown trace format {name!r}: choose from {', '.join(names)}"
                          + did_you_mean(name, names))
    return name


def _suffix_format(args: argparse.Namespace) -> str:
    from reclaim import formats
    names = formats.names(writable=True)
    suffixes = {suffix.lower() for suffix in os.path.basename(args.output).split(".")[1:]}
    found = [name for name in names if name.lower() in suffixes]
    if len(found) != 1 or suffixes & {"gz", "xz", "zst"}:
        args.parser.error(f"the name {args.output!r} does not tell the format of OUTPUT: give "
                          f"--to {'|'.join(names)} (OUTPUT is never compressed)")
    return found[0]


def _load(name: str) -> Any:
    from reclaim.scenario import Scenario
    return Scenario.load(name)


def _with_seconds(scenario: Any, seconds: float | None) -> Any:
    return scenario if seconds is None else scenario.replace(seconds=seconds, where="--seconds")


def _print(result: Any, as_json: bool, style: str | None = None) -> int:
    """Print a Result or Comparison, whole; the exit code."""
    print(json.dumps(result.to_dict(), indent=1, allow_nan=False) if as_json
          else repr(result) if style is None else result.to_text(style))
    if result.partial:
        return _complain("interrupted: this is partial", EXIT_INTERRUPTED)
    return EXIT_OK


def _policies(args: argparse.Namespace) -> int:
    from reclaim.policies import stages
    return _print_list((name, stages.describe(name)) for name in stages.names())


def _scenarios(args: argparse.Namespace) -> int:
    from reclaim.scenario import Scenario
    scenarios = [Scenario.load(name) for name in Scenario.names()]
    return _print_list((s.name, f"{s.seconds:g} s, {s.machine.cpus} CPUs, {s.workload.workers} workers "
                                f"of {s.workload.kind}, memcg {s.memcg.to_dict()['limit']}")
                       for s in scenarios)


def _profiles(args: argparse.Namespace) -> int:
    from reclaim.machine import Profile, profile_names
    return _print_list((name, Profile.load(name).description) for name in profile_names())


def _print_list(pairs: Any) -> int:
    pairs = list(pairs)
    width = max((len(name) for name, _ in pairs), default=0)
    for name, text in pairs:
        print(f"{name:<{width}}  {text}".rstrip())
    return EXIT_OK


class _Progress:
    """A line on stderr, if that is a terminal, that shows how far a command is."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty()
        self._start = self._last = time.monotonic()
        self.callback = self._simulated if self._tty else None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._tty:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _simulated(self, share: float, simulated_s: float) -> None:
        self.show(share, f"{simulated_s:.3g} s simulated")

    def show(self, share: float, done: str) -> None:
        """Say that `share` of the work, `done`, is behind, but not at every call."""
        now = time.monotonic()
        if not self._tty or now - self._last < 0.1:
            return
        self._last = now
        left = (now - self._start) * (1 / share - 1) if share > 0 else 0.0
        print(f"\r\x1b[K{share:4.0%}  {done}, {left:.0f} s to go",
              end="", file=sys.stderr, flush=True)
