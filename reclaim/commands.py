"""The commands of `reclaim.cli` about results: rerun, plot, report, doctor."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from reclaim.cli import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, _complain, _print, _print_list, _Progress
from reclaim.errors import ResultError

GRID, ANATOMY = "grid", "anatomy"
SAMPLES = 50      # intervals of the series that a report's own runs keep


def rerun(args: argparse.Namespace) -> int:
    """Repeat a saved result and compare its digest."""
    from reclaim import saved
    result = saved.load_for_rerun(args.result)
    with _Progress() as progress:
        again = saved.rerun(result, progress=progress.callback)
    code = _print(again, args.json)
    if code != EXIT_OK:
        return code
    problem = saved.difference(result, again)
    if problem:
        return _complain(f"{args.result}: {problem}", EXIT_FAILED)
    print(f"{args.result}: reproduced, the digest is the same", file=sys.stderr)
    return EXIT_OK


def plot(args: argparse.Namespace) -> int:
    """Draw saved results or a grid."""
    from reclaim import plots
    if args.kind == "help":
        return _print_list([*plots.kinds().items(),
                            (ANATOMY, "One flush: which CPUs, when, and who waited; of a run that is made anew."),
                            (GRID, "A metric over two parameters, of runs of one scenario.")], args.json)
    plots.check_kind(args.kind, [GRID, ANATOMY])
    if args.output is None:
        args.parser.error("give -o FILE, where the picture goes")
    plots.check_name(args.output)
    plots.matplotlib()
    if args.kind == GRID:
        return _grid(args)
    if args.kind == ANATOMY:
        return _anatomy(args)
    if args.over:
        args.parser.error("--over KEY=VALUE,... needs --kind grid")
    if not args.results:
        args.parser.error("give a RESULT, as `reclaim run -o result.json` saves it")
    figure = plots.plot([_load_result(name) for name in args.results], args.kind)
    plots.save(figure, args.output)
    print(json.dumps({"output": args.output, "kind": args.kind, "results": args.results}) if args.json
          else args.output)
    return EXIT_OK


def _anatomy(args: argparse.Namespace) -> int:
    from reclaim import plots
    from reclaim.anatomy import anatomy
    from reclaim.saved import load_for_rerun
    if len(args.results) != 1:
        args.parser.error(f"--kind anatomy needs one RESULT or SCENARIO, got {len(args.results)}")
    scenario, policy, seed = args.results[0], args.policy, None
    if scenario.endswith(".json"):
        result = load_for_rerun(scenario)
        scenario, policy, seed = result.scenario, result.policy, result.seed
    flush = anatomy(scenario, policy, start=args.start, number=args.flush, seed=seed)
    plots.save(plots.plot_anatomy(flush, f"{getattr(scenario, 'name', scenario)}, {policy}"), args.output)
    print(repr(flush))
    return EXIT_OK


def _grid(args: argparse.Namespace) -> int:
    from reclaim import plots
    from reclaim.grid import parse_axis, run_grid
    if len(args.results) != 1:
        args.parser.error(f"--kind grid needs one SCENARIO, got {len(args.results)}")
    axes = [parse_axis(text) for text in args.over]
    if len(axes) != 2 or axes[0][0] == axes[1][0]:
        args.parser.error(f"--kind grid needs --over KEY=VALUE,... twice, for two keys; got {len(axes)}")
    with _Progress() as progress:
        grid = run_grid(args.results[0], dict(axes), policy=args.policy, metric=args.metric,
                        seconds=args.seconds, progress=progress.callback)
    plots.save(plots.plot_grid(grid), args.output)
    print(json.dumps(grid.to_dict() | {"output": args.output}, allow_nan=False) if args.json else repr(grid))
    if grid.partial:
        return _complain(f"interrupted: {args.output} is partial", EXIT_INTERRUPTED)
    return EXIT_OK


def _load_result(name: str) -> Any:
    from reclaim.result import Result
    if not name.endswith(".json"):
        from reclaim.scenario import Scenario
        raise ResultError(f"{name}: not a saved result, whose name ends in .json"
                          + ("; it is a scenario: save a run of it, `reclaim run "
                             f"{name} -o result.json`" if name in Scenario.names() else ""))
    return Result.load(name)


def report(args: argparse.Namespace) -> int:
    """Write the page of saved results or of a scenario."""
    from reclaim import report as pages
    pages.check_name(args.output)
    command: list[str] = []
    if any(name.endswith(".json") for name in args.inputs):
        given = [f"--{name}" for name in ("before", "after", "seeds", "seconds", "record")
                 if getattr(args, name) is not None]
        if given:
            args.parser.error(f"{given[0]} is for a SCENARIO; the saved results say it themselves")
        comparison, stated = _saved_sides(args), None
    elif len(args.inputs) > 1:
        args.parser.error(f"give saved results (NAME.json), or one SCENARIO; got {', '.join(args.inputs)}")
    else:
        comparison, command, stated = _run_sides(args)
    for sentence in pages.write(comparison, args.output, command=command, stated=stated):
        print(f"reclaim: {sentence}", file=sys.stderr)
    print(json.dumps(comparison.to_dict() | {"output": args.output}, indent=1, allow_nan=False) if args.json
          else args.output)
    if comparison.partial:
        return _complain("interrupted: this is partial", EXIT_INTERRUPTED)
    return EXIT_OK


def _saved_sides(args: argparse.Namespace) -> Any:
    """Two results are before and after; more are told apart by their policy."""
    from reclaim.comparison import Comparison
    results = [_load_result(name) for name in args.inputs]
    if len(results) == 2:
        return Comparison.of(*results)
    policies = list(dict.fromkeys(result.policy for result in results))
    if len(policies) != 2:
        raise ResultError(f"{len(results)} result{'s' * (len(results) != 1)}, policies {', '.join(policies)}: "
                          "give one before and one after, or the runs of two policies")
    return Comparison.of(*([r for r in results if r.policy == policy] for policy in policies))


def _run_sides(args: argparse.Namespace) -> tuple[Any, list[str], dict[str, Any] | None]:
    from reclaim.comparison import compare
    from reclaim.keys import read_toml
    from reclaim.scenario import Scenario
    name = args.inputs[0]
    scenario = Scenario.load(name)
    stated = None if name in Scenario.names() else read_toml(name, "scenario")
    before, after = args.before or "stage0", args.after or "stage5"
    seeds = 1 if args.seeds is None else args.seeds
    command = ["reclaim", "report", name, "--before", before, "--after", after, "--seeds", str(seeds)]
    if args.seconds is not None:
        command += ["--seconds", f"{args.seconds!r}"]
    if args.record:
        command.append("--record")
    seconds = scenario.seconds if args.seconds is None else args.seconds
    with _Progress() as progress:
        comparison = compare(scenario, before, after, seeds=seeds, seconds=args.seconds,
                             progress=progress.callback, record=bool(args.record),
                             interval=seconds / SAMPLES or None)
    return comparison, [*command, "-o", args.output], stated


def doctor(args: argparse.Namespace) -> int:
    """Print the diagnosis."""
    from reclaim.doctor import BROKEN, diagnose, show
    findings = diagnose()
    print(json.dumps([f.to_dict() for f in findings], indent=1) if args.json else show(findings))
    return EXIT_FAILED if any(f.status == BROKEN for f in findings) else EXIT_OK
