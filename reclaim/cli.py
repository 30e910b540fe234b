"""The command line: parse, call the library, print.

Data go to stdout, talk to stderr.  NumPy and the core are imported only by what runs them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from reclaim import __version__
from reclaim.errors import CommandError, MachineError, ReclaimError, did_you_mean

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INPUT = 0, 1, 2, 3
EXIT_NOT_RUN, EXIT_NOT_FOUND = 126, 127    # as a shell reports a command that cannot be run
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
        argv, command = _cut(sys.argv[1:] if argv is None else argv)
        args = _parser().parse_args(argv)
        args.argv, args.command_line = argv, command
        return _call(args)
    except BrokenPipeError:
        # Whoever read stdout has left; keep the interpreter from flushing into the void.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE


def _cut(argv: list[str]) -> tuple[list[str], list[str]]:
    """`observe`'s own words, and those of the command after --, which argparse must not see."""
    if argv[:1] == ["observe"] and "--" in argv:
        at = argv.index("--")
        return argv[:at], argv[at + 1:]
    return argv, []


def _call(args: argparse.Namespace) -> int:
    try:
        code = args.func(args)
        sys.stdout.flush()
        return int(code)
    except BrokenPipeError:
        raise
    except MachineError as err:
        return _complain(str(err), EXIT_FAILED)
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
        epilog="exit codes: 0 ok, 1 a violation was found or a check failed, 2 usage, 3 bad input, 130 interrupted\n"
               "(what there is is printed)\n"
               "examples:\n  reclaim compare batch-tlb-flush --seconds 5\n"
               "  reclaim run small --policy stage5 --json\n"
               "  reclaim report small -o report.html")
    parser.add_argument("--version", action="version", version=f"reclaim {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND",
                                     parser_class=_Parser)
    _add_compare(commands)
    _add_run(commands)
    _add_validate(commands)
    _add_sensitivity(commands)
    _add_convert(commands)
    _add_observe(commands)
    _add_calibrate(commands)
    _add_explore(commands)
    _add_rerun(commands)
    _add_plot(commands)
    _add_report(commands)
    _add_doctor(commands)
    for name, func, text in (("policies", _policies, "list the policies"),
                             ("scenarios", _scenarios, "list the packaged scenarios"),
                             ("profiles", _profiles, "list the machine profiles")):
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        _add_json(command)
        command.set_defaults(func=func, parser=command)
    return parser


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare", help="two policies side by side, beside what was published or measured",
        description="Run two policies over a scenario and print the table of the series; with a file of\n"
                    "measured runs, beside them, counts for each reclaimed page.",
        epilog="examples:\n  reclaim compare batch-tlb-flush --after v2:4 --seeds 3\n"
               "  reclaim observe -o real.jsonl -- stress-ng --vm 4 --vm-bytes 1G --vm-keep -t 10\n"
               "  reclaim compare real.jsonl scenario.toml --profile here.toml")
    compare.add_argument("operands", nargs="*", metavar="SCENARIO|RUNS",
                         help="packaged name or TOML file (default: batch-tlb-flush), and a .jsonl file of "
                              "measured runs, whose own scenario is the default if its workload is known")
    compare.add_argument("--case", metavar="NAME", help="of the RUNS, if there are several")
    compare.add_argument("--before", default="stage0", metavar="POLICY", help="default: %(default)s")
    compare.add_argument("--after", default="stage5", metavar="POLICY", help="default: %(default)s")
    compare.add_argument("--seeds", type=_integer, default=1, metavar="N",
                         help="runs of each policy; medians are printed, and with several runs 95%% "
                              "intervals and a U-test (default: 1; take 6 or more)")
    compare.add_argument("--style", default="table", metavar="NAME",
                         help="layout: table (default), lkml, mmtests, lkp, markdown, csv, json; "
                              "'help' describes them")
    _add_exports(compare)
    _add_common(compare)
    _add_recording(compare)
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
    _add_exports(run)
    run.add_argument("--format", metavar="NAME", help="of the trace; default: told by its content")
    _add_common(run)
    _add_recording(run)
    run.set_defaults(func=_run, parser=run)


def _add_exports(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", "--output", action="append", default=[], metavar="KIND:FILE",
                         help="write this too, any number of times; NAME.json alone is the result; "
                              "-o help lists the kinds (docs/timeline.md)")
    command.add_argument("--trace-from", type=_seconds, metavar="S",
                         help="when a trace begins, simulated: 1.5, 30ms (default: it ends with the run)")
    command.add_argument("--trace-for", type=_seconds, metavar="S", help="how long it is (default: 20ms)")
    command.add_argument("--every", type=_seconds, metavar="S",
                         help="between two rows or snapshots of csv, vmstat and interrupts")


def _add_convert(commands: Any) -> None:
    convert = commands.add_parser(
        "convert", help="a trace into another format",
        description="Write a trace in another format. OUTPUT is replaced once all of it is written.",
        epilog="example: reclaim convert sort.txt.gz sort.oracleGeneral")
    convert.add_argument("input", metavar="INPUT", help="a trace, plain, gzip or xz")
    convert.add_argument("output", metavar="OUTPUT", help="the file to write")
    convert.add_argument("--format", metavar="NAME", help="of INPUT; default: told by its content")
    convert.add_argument("--to", metavar="NAME",
                         help="csv, txt or oracleGeneral; default: told by a suffix of OUTPUT")
    convert.add_argument("--writes", choices=("first", "all", "none"), default="first",
                         help="INPUT is txt or oracleGeneral: which references write; first: the "
                              "first to each object (default)")
    _add_json(convert)
    convert.set_defaults(func=_convert, parser=convert)


def _add_observe(commands: Any) -> None:
    observe = commands.add_parser(
        "observe", help="what this machine's kernel counts while a command runs",
        usage="reclaim observe [-o FILE] [--interval S] [--cgroup PATH] [--case NAME] [--policy NAME] "
              "-- COMMAND...",
        description="Run COMMAND, read the counters of /proc and of its memory cgroup meanwhile, and append\n"
                    "them to a file as one line. Nothing is changed, nothing but the command is run. The\n"
                    "exit status is the command's.",
        epilog="example: reclaim observe -o real.jsonl -- stress-ng --vm 4 --vm-bytes 1G --vm-keep -t 10")
    observe.add_argument("-o", "--output", default="observed.jsonl", metavar="FILE",
                         help="default: %(default)s")
    observe.add_argument("--interval", type=_seconds, default=1.0, metavar="S",
                         help="between samples: 1, 200ms (default: 1)")
    observe.add_argument("--cgroup", metavar="PATH", help="memory cgroup, instead of the command's own")
    observe.add_argument("--case", metavar="NAME", help="of the line; default: the command and the time")
    observe.add_argument("--policy", default="stage0", metavar="NAME",
                         help="what the running kernel is: stage0 without the series (default), stage5 "
                              "with it")
    observe.add_argument("--json", action="store_true", help="print the line too, after what COMMAND prints")
    observe.set_defaults(func=_observe, parser=observe)


def _add_calibrate(commands: Any) -> None:
    calibrate = commands.add_parser(
        "calibrate", help="measure this machine's costs",
        description="Measure what faults, TLB misses, shootdowns and switches cost here, and write a\n"
                    "machine profile; what is not measured is inherited and marked. Leave the machine alone\n"
                    "meanwhile.",
        epilog="example: reclaim calibrate -o here.toml && reclaim compare small --profile here.toml")
    calibrate.add_argument("-o", "--output", metavar="FILE", help="default: the profile goes to stdout")
    calibrate.add_argument("--seconds", type=_seconds, default=20.0, metavar="S",
                           help="2 to 20 (default: 20); never more than 20 in all")
    calibrate.add_argument("--profile", default="vm16", metavar="NAME",
                           help="whose values are inherited (default: %(default)s)")
    _add_json(calibrate)
    calibrate.set_defaults(func=_calibrate, parser=calibrate)


def _add_validate(commands: Any) -> None:
    validate = commands.add_parser(
        "validate", help="measured runs of real kernels beside the simulator",
        description="Simulate measured runs, to the work that they did, and score the simulator.",
        epilog="examples:\n  reclaim validate --case '*-zram-*-eager'\n"
               "  reclaim validate mine.jsonl --seeds 3 --json")
    validate.add_argument("file", nargs="?", metavar="FILE",
                          help="measured runs, a line each (default: those of the package)")
    validate.add_argument("--case", nargs="+", action="extend", default=[], metavar="NAME", dest="cases",
                          help="only these cases; patterns as of a shell")
    validate.add_argument("--seeds", type=_integer, default=5, metavar="N",
                          help="runs of each case (default: 5)")
    validate.add_argument("--profile", metavar="NAME",
                          help="of cases that name none and whose CPUs share no host CPU (default: vm16)")
    _add_generated(validate)
    validate.set_defaults(func=_validate, parser=validate)


def _add_sensitivity(commands: Any) -> None:
    sensitivity = commands.add_parser(
        "sensitivity", help="how much each assumption moves the table",
        description="Vary each cost and each thing left open, one at a time, with the same seeds.",
        epilog="example: reclaim sensitivity batch-tlb-flush --seconds 1 --only 'swap*' 'kernel.*'")
    sensitivity.add_argument("scenario", nargs="?", default="batch-tlb-flush", metavar="SCENARIO",
                             help="packaged name or TOML file (default: %(default)s)")
    sensitivity.add_argument("--before", default="stage0", metavar="POLICY", help="default: %(default)s")
    sensitivity.add_argument("--after", default="stage5", metavar="POLICY", help="default: %(default)s")
    sensitivity.add_argument("--seconds", type=_seconds, metavar="S",
                             help="simulated time, instead of the scenario's: 5, 200ms")
    sensitivity.add_argument("--profile", metavar="NAME",
                             help="machine profile, or the path of one, instead of the scenario's")
    sensitivity.add_argument("--seeds", type=_integer, default=3, metavar="N",
                             help="runs of the scenario as it is; their range is the noise (default: 3)")
    sensitivity.add_argument("--choice-seeds", type=_integer, metavar="N",
                             help="runs of each choice (default: as --seeds)")
    sensitivity.add_argument("--only", nargs="+", action="extend", default=[], metavar="NAME",
                             help="vary only these; patterns as of a shell; --list names them")
    sensitivity.add_argument("--whole", action="store_true",
                             help="also run the scenario as it is for the time that was published")
    sensitivity.add_argument("--list", action="store_true", help="name what would be varied, and run nothing")
    _add_generated(sensitivity)
    sensitivity.set_defaults(func=_sensitivity, parser=sensitivity)


def _add_generated(command: argparse.ArgumentParser) -> None:
    command.add_argument("--jobs", type=_integer, metavar="N",
                         help="simulations at once (default: 2, or 1 of one CPU)")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print a page of the docs")
    command.add_argument("-o", "--output", metavar="FILE",
                         help="write there what is printed; replaced once it is whole")


def _add_explore(commands: Any) -> None:
    explore = commands.add_parser(
        "explore", help="search the interleavings of a tiny world for lost writes and stale accesses",
        description="Make all interleavings of micro-steps of a tiny world, and check every one.",
        epilog="exit codes: 0 clean, 1 a violation was found\n"
               "environments: none, pin, migrate, idle, zap, speculative, slots, reuse, write-protect, munmap,\n"
               "  mremap, fork; several joined by +; pairs: random schedules of each pair, --schedules in all\n"
               "examples:\n  reclaim explore v4:5\n  reclaim explore v4:5 --environment migrate --cpus 3\n"
               "  reclaim explore stage5 --folios 1 --defect no-flush-before-writeout\n"
               "  reclaim explore v2:5 --environment pin+migrate --random --schedules 1000000")
    explore.add_argument("policy", metavar="POLICY", help="see `reclaim policies`")
    _add_world(explore)
    explore.add_argument("--environment", default="none", metavar="CLASS", help="default: none")
    explore.add_argument("--without", action="append", default=[], metavar="SWITCH",
                         help="turn a re-check off: trylock, writeback, lru, mapped, pinned, refcount, "
                              "swapcount, locks, flush, remainder")
    explore.add_argument("--defect", action="append", default=[], metavar="NAME", help="plant a defect")
    explore.add_argument("--strict", action="store_true",
                         help="judge loads through entries whose flush reclaim has deferred, too")
    explore.add_argument("--depth", type=_integer, metavar="N", help="at most that many steps deep")
    explore.add_argument("--random", action="store_true",
                         help="random priority schedules (PCT) instead of a search")
    explore.add_argument("--schedules", type=_integer, metavar="N", help="how many; default: 100000")
    explore.add_argument("--seed", type=_integer, default=0, metavar="N", help="of --random (default: 0)")
    explore.add_argument("--jobs", type=_integer, metavar="N",
                         help="of --environment pairs: pairs at once; default: the number of CPUs")
    explore.add_argument("--no-reduction", action="store_true", help="every micro-step is a state")
    explore.add_argument("--no-symmetry", action="store_true", help="frames and slots have their numbers")
    explore.add_argument("--save", metavar="FILE", help="where a counterexample goes, for `reclaim replay`")
    explore.set_defaults(func=_explore, parser=explore)

    replay = commands.add_parser("replay", help="a counterexample, step by step",
                                 description="Run a counterexample that `reclaim explore --save` wrote.")
    replay.add_argument("file", metavar="FILE", help="as `reclaim explore --save` wrote it")
    _add_json(replay)
    replay.set_defaults(func=_replay, parser=replay)

    ablate = commands.add_parser(
        "ablate", help="each re-check of a version off, in turn and in pairs",
        description="Turn each re-check of a version's last patch off: what breaks, or what work it saves.",
        epilog="example: reclaim ablate v4 --folios 1 --environment none,pin")
    ablate.add_argument("version", metavar="VERSION", help="v1, v2, v3 or v4")
    _add_world(ablate)
    ablate.add_argument("--environment", default="none", metavar="CLASS,...", help="default: none")
    ablate.set_defaults(func=_ablate, parser=ablate)


def _add_world(command: argparse.ArgumentParser) -> None:
    for name, default, text in (("cpus", 2, "the first reclaims, the others write"),
                                ("folios", 2, "that it reclaims"),
                                ("batch", 2, "dirty folios of one flush"),
                                ("writes", 2, "at most, to each page"),
                                ("reads", 0, "at most, of each page"), ("actions", 1, "of the environment"),
                                ("rounds", 1, "reclaims of the list"),
                                ("reclaimers", 1, "CPUs that reclaim")):
        command.add_argument(f"--{name}", type=_integer, default=default, metavar="N",
                             help=f"{text} (default: {default})")
    command.add_argument("--slots", type=_integer, metavar="N",
                         help="of the swap device; default: 2 a folio and 1")
    command.add_argument("--layout", default="own", metavar="HOW",
                         help="own: each writer has an mm; threads: of one; self: the reclaimer is one, too")
    command.add_argument("--device", default="sync", metavar="HOW", help="sync (zram) or async")
    command.add_argument("--mask", default="eager", metavar="HOW", help="mm_cpumask: eager or lazy")
    command.add_argument("--seconds", type=_seconds, metavar="S", help="stop then")
    _add_json(command)


def _world_of(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in (
        "cpus", "folios", "batch", "writes", "reads", "actions", "rounds", "reclaimers", "slots", "layout", "device", "mask")}


def _add_rerun(commands: Any) -> None:
    rerun = commands.add_parser(
        "rerun", help="a saved result once more, and whether the same comes out",
        description="Run again what made a saved result. Exit code 0 if the digest is the same, 1 if not.",
        epilog="example:\n  reclaim run small -o result.json && reclaim rerun result.json")
    rerun.add_argument("result", metavar="RESULT", help="as `reclaim run -o` saved it")
    _add_json(rerun)
    rerun.set_defaults(func=_later("rerun"), parser=rerun)


def _add_plot(commands: Any) -> None:
    plot = commands.add_parser(
        "plot", help="a picture of saved results, or of a metric over two parameters",
        description="Draw saved results as svg, png or pdf. Needs matplotlib: "
                    "pip install \"reclaim-sim[plot]\".",
        epilog="examples:\n  reclaim plot before.json after.json --kind per-page -o pages.svg\n"
               "  reclaim plot small --kind anatomy --policy stage0 -o flush.svg\n"
               "  reclaim plot small --kind grid --over policy.flush='batch(1),batch(8),batch(31)' \\\n"
               "      --over memcg.limit=4M,8M,12M -o grid.png")
    plot.add_argument("results", nargs="*", metavar="RESULT",
                      help="saved by `reclaim run -o`; with --kind grid one SCENARIO, with --kind anatomy "
                           "either of them")
    plot.add_argument("-o", "--output", metavar="FILE", help="NAME.svg, .png or .pdf")
    _add_json(plot)
    plot.add_argument("--kind", default="time", metavar="NAME",
                      help="time (default), batches, targets, latency, causes, payers, unmapped, timeline, "
                           "per-page, anatomy or grid; 'help' describes them")
    flush = plot.add_argument_group("with --kind anatomy")
    flush.add_argument("--start", type=_seconds, default=0.0, metavar="S",
                       help="where in simulated time to begin to look (default: 0)")
    flush.add_argument("--flush", type=_integer, metavar="N",
                       help="the N-th from there that was sent to others (default: that with most targets)")
    grid = plot.add_argument_group("with --kind grid")
    grid.add_argument("--over", action="append", default=[], metavar="KEY=VALUE,...",
                      help="a parameter and its values, given twice: a scenario's key, policy, or "
                           "policy.SLOT")
    grid.add_argument("--metric", default="tlb_shootdowns_per_page", metavar="NAME",
                      help="default: %(default)s")
    grid.add_argument("--policy", default="stage5", metavar="NAME",
                      help="with --kind anatomy too, of a SCENARIO; default: %(default)s")
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
    _add_json(report)
    runs = report.add_argument_group("with a SCENARIO")
    runs.add_argument("--before", metavar="POLICY", help="default: stage0")
    runs.add_argument("--after", metavar="POLICY", help="default: stage5")
    runs.add_argument("--seeds", type=_integer, metavar="N", help="runs of each policy (default: 1)")
    runs.add_argument("--seconds", type=_seconds, metavar="S",
                      help="simulated time, instead of the scenario's")
    runs.add_argument("--record", action="store_true", default=None,
                      help="latencies, time unmapped and who pays, too; see `reclaim run`")
    report.set_defaults(func=_later("report"), parser=report)


def _add_doctor(commands: Any) -> None:
    doctor = commands.add_parser(
        "doctor", help="what is installed, what works, what to do about the rest",
        description="Check the installation. Exit code 1 if something is wrong; a missing extra is not.")
    _add_json(doctor)
    doctor.set_defaults(func=_later("doctor"), parser=doctor)


def _later(name: str) -> Any:
    """The command `name` of `reclaim.commands`, which is imported when it is called."""
    def command(args: argparse.Namespace) -> int:
        from reclaim import commands
        code: int = getattr(commands, name)(args)
        return code
    return command


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--profile", metavar="NAME",
                         help="machine profile, packaged or a TOML file, instead of the scenario's")
    command.add_argument("--seconds", type=_seconds, metavar="S",
                         help="simulated time, instead of the scenario's: 5, 200ms")
    _add_json(command)


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


def _add_recording(command: argparse.ArgumentParser) -> None:
    command.add_argument("--record", action="store_true",
                         help="record what costs something for each page or target of a flush, too: latency "
                              "of faults and flushes, time that folios wait unmapped, who pays")
    command.add_argument("--interval", type=_seconds, metavar="S",
                         help="keep counters and times for each such interval of simulated time: 1, 10ms")


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
    if "help" in args.output:
        return _export_kinds()
    from reclaim.comparison import compare
    style = _style(args)
    if style == "help":
        from reclaim.styles import styles
        return _print_list(styles().items(), args.json)
    runs = [name for name in args.operands if name.endswith(".jsonl")]
    names = [name for name in args.operands if not name.endswith(".jsonl")]
    for kind, several in (("SCENARIO", names), ("file of RUNS", runs)):
        if len(several) > 1:
            args.parser.error(f"one {kind} at most: {several[1]!r} is a second one")
    if args.case is not None and not runs:
        args.parser.error("--case NAME needs a .jsonl file of RUNS")
    observation = None
    if runs:
        from reclaim.measured import Observation
        observation = Observation.load(runs[0], args.case)
        scenario = _load(names[0]) if names else observation.as_scenario()
    else:
        scenario = _load(names[0] if names else "batch-tlb-flush")
    scenario = _overridden(scenario, args)
    table = None
    try:
        with _exports(args, 2) as (before, after), _Progress() as progress:
            table = compare(scenario, args.before, args.after, seeds=args.seeds, progress=progress.callback,
                            observation=observation, exports=(before, after), record=args.record,
                            interval=args.interval)
    except OSError:
        if table is not None:
            _print_comparison(table, style)     # the work is not lost
        raise
    return _print_comparison(table, style)


def _print_comparison(table: Any, style: str) -> int:
    return _print(table, style == "json",
                  table.to_text(style) + "\n" if style not in ("json", "table") else None)


def _export_kinds() -> int:
    from reclaim.exports import kinds
    return _print_list((kind.name, kind.what) for kind in kinds().values())


@contextmanager
def _exports(args: argparse.Namespace, sides: int) -> Iterator[list[Any]]:
    """What -o asks for of a run, or of each side; checked before the work."""
    from reclaim.exports import Exports, parse, parse_sides
    for name in ("trace_from", "trace_for", "every"):
        if getattr(args, name) is not None and not args.output:
            args.parser.error(f"--{name.replace('_', '-')} needs -o KIND:FILE")
    wanted = [parse_sides(text) if sides == 2 else [parse(text)] for text in args.output]
    made = [Exports(column, trace_from=args.trace_from, trace_for=args.trace_for, every=args.every)
            for column in zip(*wanted, strict=True)] or [Exports([]) for _ in range(sides)]
    with ExitStack() as stack:
        for exports in made:
            stack.enter_context(exports)
        yield made
    for exports in made:
        for note in exports.notes():
            _complain(note, EXIT_OK)


def _style(args: argparse.Namespace) -> str:
    from reclaim.styles import check_style
    if args.json and args.style not in ("table", "json"):
        args.parser.error(f"--json and --style {args.style} are two styles; give one")
    return "json" if args.json else "help" if args.style == "help" else check_style(args.style)


def _observe(args: argparse.Namespace) -> int:
    from reclaim.observation import observe, summary
    if not args.command_line:
        args.parser.error("give the COMMAND after --")
    _check_policy(args.policy)
    try:
        run = observe(args.command_line, args.output, interval=args.interval, cgroup=args.cgroup,
                      case=args.case, policy=args.policy)
    except CommandError as err:
        return _complain(str(err), EXIT_NOT_FOUND if err.absent else EXIT_NOT_RUN)
    for note in run.notes:
        _complain(note, EXIT_OK)
    if run.failed is not None:        # what was measured is not lost
        print(json.dumps(run.line, allow_nan=False))
        return _complain(f"not stored, printed instead: {run.failed}", EXIT_FAILED)
    if args.json:
        print(json.dumps(run.line, allow_nan=False))
    _complain(summary(args.output, run), EXIT_OK)
    return run.status


def _check_policy(name: str) -> None:
    if name not in ("stage0", "stage5"):       # any other needs NumPy
        from reclaim.policies import stages
        stages.describe(name)


def _calibrate(args: argparse.Namespace) -> int:
    from reclaim.calibration import calibrate, write
    from reclaim.machine import is_path
    if args.output is not None and not is_path(args.output):
        args.parser.error(f"-o {args.output}: name it {args.output}.toml, so that [machine] profile takes it "
                          "for a file")
    with _Progress() as progress:
        try:
            profile = calibrate(args.seconds, parent=args.profile,
                                progress=lambda share, what: progress.show(share, what))
        except KeyboardInterrupt:
            return _complain("interrupted: no profile was written", EXIT_INTERRUPTED)
    if args.output is not None:
        write(args.output, profile.toml)
    if args.json:
        print(json.dumps(profile.to_dict(), indent=1, allow_nan=False))
    elif args.output is None:
        print(profile.toml, end="")
    else:
        print(profile.table())
        print(f"{args.output}: {profile.description}")
    return EXIT_OK


def _run(args: argparse.Namespace) -> int:
    if "help" in args.output:
        return _export_kinds()
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
    scenario = _overridden(scenario, args)
    result = None
    try:
        with _exports(args, 1) as (exports,), _Progress() as progress:
            result = simulate(scenario, args.policy, progress=progress.callback, exports=exports, record=args.record,
                              interval=args.interval)
    except OSError:
        if result is not None:
            _print(result, args.json)       # the work is not lost
        raise
    return _print(result, args.json)


def _validate(args: argparse.Namespace) -> int:
    from reclaim.validation import validate
    from reclaim.validation_page import page
    with _Progress() as progress:
        found = validate(args.file, cases=args.cases, seeds=args.seeds, profile=args.profile, jobs=args.jobs,
                         progress=progress.show)
    text = page(found, _told(args), profile=args.profile, path=args.file) if args.markdown else None
    code = _print(found, args.json, text, args.output)
    if not found.rows and code == EXIT_OK:
        return _complain("none of these cases is reproduced; each is listed with the reason", EXIT_INPUT)
    return code


def _sensitivity(args: argparse.Namespace) -> int:
    from reclaim.sensitivity import Plan
    scenario = _overridden(_load(args.scenario), args)
    plan = Plan.of(scenario, args.before, args.after, seeds=args.seeds,
                   choice_seeds=args.choice_seeds, only=args.only)
    if args.list:
        return _print_list(((choice.factor, choice.value) for choice in plan.choices), args.json)
    with _Progress() as progress:
        found = plan.run(jobs=args.jobs, whole=args.whole, progress=progress.show,
                         say=lambda text: print(text, file=sys.stderr))
    return _print(found, args.json, found.markdown(_told(args)) if args.markdown else None, args.output)


def _told(args: argparse.Namespace) -> str:
    """The command line that makes this page."""
    return " ".join(shlex.quote(word) for word in ["reclaim", *args.argv])


def _explore(args: argparse.Namespace) -> int:
    from reclaim.exploration import explore
    if args.schedules is not None and not args.random:
        args.parser.error("--schedules N needs --random")
    if args.environment == "pairs":
        return _explore_pairs(args)
    with _Progress() as progress:
        found = explore(
            args.policy, depth=args.depth, seconds=args.seconds, seed=args.seed, reduce=not args.no_reduction,
            symmetry=not args.no_symmetry, environment=args.environment, without=tuple(args.without),
            defects=tuple(args.defect), strict=args.strict, progress=progress.counted,
            schedules=(100_000 if args.schedules is None else args.schedules) if args.random else 0,
            **_world_of(args))
    print(json.dumps(found.to_dict(), indent=1, allow_nan=False) if args.json else str(found))
    if found.violations and args.save:
        found.violations[0].save(args.save)
        print(f"saved: reclaim replay {args.save}", file=sys.stderr)
    if found.interrupted:
        return _complain("interrupted: this is partial", EXIT_INTERRUPTED)
    return EXIT_FAILED if found.violations else EXIT_OK


def _explore_pairs(args: argparse.Namespace) -> int:
    from reclaim.exploration import explore_pairs
    if not args.random:
        args.parser.error("--environment pairs needs --random")
    found = explore_pairs(args.policy, schedules=10_000_000 if args.schedules is None else args.schedules,
                          seed=args.seed, jobs=args.jobs, without=tuple(args.without),
                          defects=tuple(args.defect), strict=args.strict, seconds=args.seconds, **_world_of(args))
    print(json.dumps(found.to_dict(), indent=1, allow_nan=False) if args.json else str(found))
    return EXIT_OK if found.clean else EXIT_FAILED


def _replay(args: argparse.Namespace) -> int:
    from reclaim.counterexample import replay
    found = replay(args.file)
    print(json.dumps(found.to_dict(), indent=1, allow_nan=False) if args.json else str(found))
    return EXIT_FAILED


def _ablate(args: argparse.Namespace) -> int:
    from reclaim.exploration import ablate
    with _Progress() as progress:
        table = ablate(args.version, environments=args.environment.split(","), seconds=args.seconds,
                       progress=progress.counted, **_world_of(args))
    return _print(table, args.json)


def _convert(args: argparse.Namespace) -> int:
    from reclaim.conversion import convert
    to = _format_name(args, args.to or _suffix_format(args), writable=True)
    if args.format is not None:
        _format_name(args, args.format)
    try:
        with _Progress() as progress:
            references, tasks = convert(
                args.input, args.output, to=to, format=args.format, writes=args.writes,
                progress=lambda share, done: progress.show(share, f"{done:,} references", done, "references"))
    except KeyboardInterrupt:
        return _complain(f"interrupted: {args.output} is as it was", EXIT_INTERRUPTED)
    if args.json:
        print(json.dumps({"output": args.output, "format": to, "references": references, "tasks": tasks}))
        return EXIT_OK
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
        last = os.path.basename(args.output).rpartition(".")[2]
        args.parser.error(f"the name {args.output!r} does not tell the format of OUTPUT: give "
                          f"--to {'|'.join(names)} (OUTPUT is never compressed)"
                          + did_you_mean(last, [name for name in names if name != last]))
    return found[0]


def _load(name: str) -> Any:
    from reclaim.scenario import Scenario
    return Scenario.load(name)


def _overridden(scenario: Any, args: argparse.Namespace) -> Any:
    """The scenario with what the options say instead."""
    if args.profile is not None:
        scenario = scenario.replace({"machine.profile": args.profile}, where="--profile")
    return scenario if args.seconds is None else scenario.replace(seconds=args.seconds, where="--seconds")


def _print(result: Any, as_json: bool, page: str | None = None, output: str | None = None) -> int:
    """Print a result, or the page made of it, whole, or write it to the file `output`; the exit code."""
    text = json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n" if as_json else \
        repr(result) + "\n" if page is None else page
    if output is None:
        print(text, end="")
    else:
        from reclaim.files import replacing
        with replacing(output) as file:
            file.write(text.encode())
    if result.partial:
        return _complain("interrupted: this is partial", EXIT_INTERRUPTED)
    return EXIT_OK


def _policies(args: argparse.Namespace) -> int:
    from reclaim.policies import stages
    return _print_list(((name, stages.describe(name)) for name in stages.names()), args.json)


def _scenarios(args: argparse.Namespace) -> int:
    from reclaim.scenario import Scenario
    scenarios = [Scenario.load(name) for name in Scenario.names()]
    return _print_list(((s.name, f"{s.seconds:g} s, {s.machine.cpus} CPUs, {s.workload.workers} workers "
                                f"of {s.workload.kind}, memcg {s.memcg.to_dict()['limit']}")
                        for s in scenarios), args.json)


def _profiles(args: argparse.Namespace) -> int:
    from reclaim.machine import Profile, profile_names
    return _print_list(((name, Profile.load(name).description) for name in profile_names()), args.json)


def _print_list(pairs: Any, as_json: bool = False) -> int:
    pairs = list(pairs)
    if as_json:
        print(json.dumps([{"name": name, "description": text} for name, text in pairs], indent=1))
        return EXIT_OK
    width = max((len(name) for name, _ in pairs), default=0)
    for name, text in pairs:
        print(f"{name:<{width}}  {text}".rstrip())
    return EXIT_OK


class _Progress:
    """A line on stderr, if that is a terminal, that shows how far a command is."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._start = self._last = time.monotonic()
        self._seen, self._rate = 0.0, ""    # of what is counted, at the last look
        self.callback = self._simulated if self._tty else None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._tty:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def counted(self, states: int, seconds: float) -> None:
        """Say how many states are behind; how many there are nobody knows."""
        now = time.monotonic()
        if self._tty and now - self._last >= 0.1:
            self._last = now
            print(f"\r\x1b[K{states:,} in {seconds:.0f} s, {states / max(seconds, 0.1):,.0f}/s", end="",
                  file=sys.stderr, flush=True)

    def _simulated(self, share: float, simulated_s: float) -> None:
        self.show(share, f"{simulated_s:.3g} s simulated", simulated_s, "s")

    def show(self, share: float, done: str, count: float | None = None, unit: str = "") -> None:
        """Say that `share` of the work, `done`, is behind, but not at every call.

        count : of what the rate is; it begins anew with each run.
        """
        now = time.monotonic()
        if not self._tty or now - self._last < 0.1:
            return
        if count is not None:
            if count > self._seen:
                self._rate = f", {(count - self._seen) / (now - self._last):,.3g} {unit}/s"
            self._seen = count
        self._last = now
        left = (now - self._start) * (1 / share - 1) if share > 0 else 0.0
        print(f"\r\x1b[K{share:4.0%}  {done}{self._rate}, {left:.0f} s to go",
              end="", file=sys.stderr, flush=True)
