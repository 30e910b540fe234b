"""Pictures: what each shows, that nothing in it is cut off, overlaps or lacks a unit; grids; reports."""

import dataclasses
import html.parser
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from reclaim import plots, report  # noqa: E402
from reclaim.cli import main  # noqa: E402
from reclaim.comparison import Comparison, compare, simulate  # noqa: E402
from reclaim.errors import ReclaimError, ResultError  # noqa: E402
from reclaim.grid import Grid, parse_axis, run_grid  # noqa: E402
from reclaim.result import Result  # noqa: E402
from reclaim.scenario import Scenario  # noqa: E402

KINDS = list(plots.kinds())


@pytest.fixture(scope="module")
def results():
    return [simulate("batch-tlb-flush", policy, seconds=0.05) for policy in ("stage0", "stage5")]


@pytest.fixture(scope="module")
def recorded():
    """Runs that hold what every kind of picture shows."""
    return [simulate("batch-tlb-flush", policy, seconds=0.04, record=True, interval=0.005)
            for policy in ("stage0", "stage5")]


@pytest.fixture(scope="module")
def hard(results, recorded):
    """Long and hostile names, many policies, many CPUs."""
    a, b = results
    wide = {"targets_per_flush": np.arange(512), "flush_batch_size": np.arange(33)}
    return {"five": [dataclasses.replace(r, policy=p) for r, p in zip(
                [a, b, a, b, b], ["stage0", "$x^{$ & <b> " + "long" * 20, "v2:3", "v4:5", "mine"],
                strict=True)],
            "one": [b], "no batch": [a],
            "512": [dataclasses.replace(r, histograms=wide) for r in results],
            "scenarios": [a, dataclasses.replace(b, scenario=b.scenario.replace(name="other" * 30))],
            "seeds": [dataclasses.replace(r, seed=s) for r in results for s in (1, 2)],
            "recorded": recorded, "many recorded": [dataclasses.replace(r, policy=p) for r, p in zip(
                recorded * 3, ["stage0", "long" * 20, "v2:3", "v4:5", "mine", "$x"], strict=True)]}


def texts(figure):
    import matplotlib.text
    figure.draw_without_rendering()
    unseen = set()     # labels of ticks beyond the axes' ends are not drawn
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            unseen |= {label for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
                       if not low - 1e-9 <= tick.get_loc() <= high + 1e-9
                       for label in (tick.label1, tick.label2)}
    return [t for t in figure.findobj(matplotlib.text.Text)
            if t.get_visible() and t.get_text().strip() and t not in unseen]


def check_layout(figure):
    """Nothing written leaves the picture or meets other writing; every axis says what it is and its unit."""
    inside = figure.bbox
    boxes = []
    for text in texts(figure):
        box = text.get_window_extent()
        assert box.x0 >= inside.x0 - 1 and box.x1 <= inside.x1 + 1, text.get_text()
        assert box.y0 >= inside.y0 - 1 and box.y1 <= inside.y1 + 1, text.get_text()
        boxes.append((text.get_text(), box))
    for i, (one, a) in enumerate(boxes):
        for other, b in boxes[i + 1:]:
            x = min(a.x1, b.x1) - max(a.x0, b.x0)
            y = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert x <= 1 or y <= 1, f"{one!r} and {other!r} overlap by {x:.0f} by {y:.0f} pixels"
    for axes in figure.axes:
        assert axes.get_title(loc="left") or axes.get_ylabel()
        for label in (axes.get_xlabel(), axes.get_ylabel()):
            assert not label or "[" in label, f"no unit: {label!r}"


@pytest.mark.parametrize("kind", KINDS)
def test_layout(results, kind):
    figure = plots.plot(results, kind)
    check_layout(figure)
    title = figure.axes[0].get_title(loc="left")
    assert "simulated" in title and "batch-tlb-flush: 0.05 s" in title


@pytest.mark.parametrize("case", ["five", "one", "no batch", "512", "scenarios", "seeds", "recorded", "many recorded"])
@pytest.mark.parametrize("kind", KINDS)
def test_layout_of_hard_cases(hard, kind, case):
    check_layout(plots.plot(hard[case], kind))


def test_the_bars_are_the_numbers(results):
    axes = plots.plot(results, "per-page").axes[0]
    heights = {round(bar.get_height(), 9) for bar in axes.patches}
    for result in results:
        c = result.counters
        for name in ("tlb_shootdowns", "function_call_ipis", "pgscan_anon"):
            assert round(c[name] / c["pgsteal_anon"], 9) in heights
    assert round(55428953 / 29004962, 9) in heights       # published
    axes = plots.plot(results, "time").axes[0]
    for y, result in enumerate(results):
        bars = [bar for bar in axes.patches if abs(bar.get_y() + bar.get_height() / 2 - y) < 0.01]
        assert sum(bar.get_width() for bar in bars) == pytest.approx(100)
        assert any(bar.get_width() == pytest.approx(100 * result.shares()["swap"]) for bar in bars)
    axes = plots.plot(results, "targets").axes[0]
    assert 199 <= sum(bar.get_height() for bar in axes.patches) <= 200.001
    rare = dataclasses.replace(results[1], histograms={"targets_per_flush": np.array([0, 5000, 4000, 0, 1])})
    axes = plots.plot(rare, "targets").axes[0]
    assert "; up to 4, each below 0.1%" in axes.get_xlabel() and axes.get_xlim()[1] < 3


def test_the_curves_are_the_percentiles(recorded):
    figure = plots.plot(recorded, "latency")
    assert [axes.get_title(loc="left").split("\n")[-1] for axes in figure.axes] == [
        "direct reclaim", "flush that is sent to others", "page fault"]
    line = figure.axes[0].lines[0]
    x, y = line.get_xdata(), line.get_ydata()
    for q in (50, 99):
        reached = x[np.argmax(y >= q - 1e-9)] * 1e9
        assert reached == pytest.approx(recorded[0].percentile("direct_reclaim_latency", q) + 1)
    assert "nothing to show" in str(texts(plots.plot(recorded[0].__class__(
        recorded[0].scenario, "p", 1, {}), "unmapped")))


def test_bars_of_causes_and_payers(recorded):
    widths = [bar.get_width() for bar in plots.plot(recorded, "causes").axes[0].patches]
    for result in recorded:
        for value in result.flushes["remote"]:
            assert not value or any(width == pytest.approx(value / result.seconds) for width in widths)
    widths = [bar.get_width() for bar in plots.plot(recorded, "payers").axes[0].patches]
    assert any(width == pytest.approx(recorded[0].flushes["wait"].sum() / 1e6 / 0.04) for width in widths)


def test_the_timeline_is_the_series(recorded):
    axes = plots.plot(recorded, "timeline").axes
    values, edges, _ = axes[1].patches[0].get_data()
    assert np.allclose(values * 0.005, recorded[0].series["pgsteal_anon"]) and edges[-1] == pytest.approx(0.04)


@pytest.mark.parametrize("policy", ["stage0", "stage5"])
def test_anatomy(policy, tmp_path):
    from reclaim.anatomy import anatomy
    flush = anatomy("batch-tlb-flush", policy)
    flush.spinners.append((15, flush.began, flush.ended))
    figure = plots.plot_anatomy(flush, "$x^{$ " + "long" * 30)
    check_layout(figure)
    ends = {round(bar.get_x() + bar.get_width(), 9) for bar in figure.axes[0].patches}
    assert {round((target.left - flush.began) / 1e6, 9) for target in flush.targets} <= ends
    plots.save(figure, tmp_path / "x.svg")


def test_anatomy_of_many_cpus():
    from reclaim.anatomy import Flush, Target
    flush = Flush(0, "copy_on_write", 0, 10**8, 0, 10**7, 10**7, 2 * 10**7, 2 * 10**7, [
        Target(cpu, 0, cpu * 10**6, cpu * 10**6 + 10, cpu * 10**6 + 1000, cpu * 10**6 + 10**5, 1) for cpu in range(1, 300)])
    figure = plots.plot_anatomy(flush)
    check_layout(figure)
    assert "266 more CPUs are not shown" in figure.axes[0].get_title(loc="left")


def test_series_differ_without_their_hue():
    """In greyscale: each pair of series differs in lightness or in hatch, and the first two in both."""
    def grey(colour):
        r, g, b = (int(colour[i:i + 2], 16) for i in (1, 3, 5))
        return 0.299 * r + 0.587 * g + 0.114 * b
    for i, (one, hatch) in enumerate(plots._SERIES):
        for other, other_hatch in plots._SERIES[i + 1:]:
            assert abs(grey(one) - grey(other)) > 40 or hatch != other_hatch
    assert abs(grey(plots._SERIES[0][0]) - grey(plots._SERIES[1][0])) > 60
    shown = list(plots._TIME.values())
    for (_, one, hatch), (_, other, other_hatch) in zip(shown, shown[1:]):
        assert abs(grey(one) - grey(other)) > 25 or hatch != other_hatch, (one, other)


def test_every_time_has_a_look():
    from reclaim.names import TIMES
    assert set(plots._TIME) == set(TIMES)


def test_nothing_to_show():
    empty = Result(Scenario.load("small"), "stage0", 1, {})
    with pytest.raises(ResultError, match="no time was spent"):
        plots.plot(empty)
    with pytest.raises(ResultError, match="nothing was reclaimed"):
        plots.plot(empty, "per-page")
    for bad in ([], [empty] * 65):
        with pytest.raises(ResultError, match="1 to 64"):
            plots.plot(bad)
    with pytest.raises(ResultError, match="7 scenarios and policies"):
        plots.plot([dataclasses.replace(empty, policy=f"p{i}") for i in range(7)])
    with pytest.raises(ResultError, match="did you mean 'batches'"):
        plots.plot(empty, "batchs")


@pytest.mark.parametrize("suffix, start", [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_save(results, tmp_path, suffix, start):
    paths = [tmp_path / f"{i}.{suffix}" for i in range(2)]
    for path in paths:
        plots.save(plots.plot(results, "per-page"), path)
    one, two = (path.read_bytes() for path in paths)
    assert one.startswith(start) and one == two       # no date, no random id
    assert sorted(p.name for p in tmp_path.iterdir()) == [p.name for p in paths]
    with pytest.raises(ResultError, match="did you mean 'svg'"):
        plots.save(plots.plot(results), tmp_path / "x.svgz")


def test_plot_command(results, tmp_path, capsys):
    files = []
    for i, result in enumerate(results):
        files.append(str(tmp_path / f"{i}.json"))
        result.save(files[-1])
    out = tmp_path / "x.svg"
    assert main(["plot", *files, "-o", str(out), "--kind", "targets"]) == 0
    assert ET.parse(out).getroot().tag.endswith("svg") and capsys.readouterr().out == f"{out}\n"
    assert main(["plot", "--kind", "help", "-o", "x"]) == 0
    assert {*KINDS, "anatomy", "grid"} == {line.split()[0] for line in capsys.readouterr().out.splitlines()}


def test_without_matplotlib(results, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ResultError, match=r'pip install "reclaim-sim\[plot\]"'):
        plots.plot(results)
    assert main(["plot", "x.json", "-o", str(tmp_path / "x.svg")]) == 3
    assert main(["report", "small", "--seconds", "0.01", "-o", str(tmp_path / "x.html")]) == 0
    assert "no picture" in capsys.readouterr().err and "no picture" in (tmp_path / "x.html").read_text()


# --- grids ----------------------------------------------------------------------------------------

def test_grid(tmp_path, capsys):
    shares = []
    grid = run_grid("small", {"policy.flush": ["batch(1)", "batch(8)", "batch(31)"],
                              "memcg.limit": ["4M", "8M"]}, seconds=0.02,
                    progress=lambda share, s: shares.append(share))
    assert grid.values.shape == (2, 3) and shares == sorted(shares) and shares[-1] == 1.0
    assert (np.diff(grid.values, axis=1) < 0).all()       # larger batches, fewer shootdowns a page
    c = simulate(Scenario.load("small").replace({"memcg.limit": "4M"}, seconds=0.02),
                 {"base": "stage5", "flush": "batch(8)"}).counters
    assert grid.values[0, 1] == c["tlb_shootdowns"] / c["pgsteal_anon"]
    check_layout(plots.plot_grid(grid))
    assert "memcg.limit" in repr(grid) and "<table>" in grid._repr_html_()
    out = tmp_path / "g.png"
    assert main(["plot", "small", "--kind", "grid", "--over", "policy=stage0,stage5",
                 "--over", "machine.cpus=1,2", "--seconds", "0.01", "--metric", "pgscan_anon",
                 "-o", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG") and "stage0" in capsys.readouterr().out


def test_partial_and_large_grids(monkeypatch):
    calls = []

    def stop(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return simulate(*args, **kwargs)
    monkeypatch.setattr("reclaim.grid.simulate", stop)
    grid = run_grid("small", {"seed": [1, 2], "machine.cpus": [1, 2]}, seconds=0.01, metric="pgfault")
    assert grid.partial and np.isnan(grid.values[1]).all() and np.isfinite(grid.values[0]).all()
    assert "PARTIAL" in grid.title and "PARTIAL" in repr(grid)
    figure = plots.plot_grid(grid)
    check_layout(figure)
    assert "(-: none)" in figure.axes[0].get_title(loc="left")
    rng = np.random.default_rng(1)
    for shape in ((12, 12), (1, 1), (2, 30)):
        axes = tuple((name, tuple(f"{i * 37}M" for i in range(n)))
                     for name, n in zip(("memcg.limit", "workload.bytes"), shape[::-1], strict=True))
        check_layout(plots.plot_grid(Grid(Scenario.load("small"), "stage5", "pgscan_anon", axes,
                                          rng.random(shape) * 1e9)))


@pytest.mark.parametrize("over, part", [
    ({"a.b": [1]}, "1 parameters"), ({"machine.cpus": [1], "seed": []}, "no values"),
    ({"machine.cpus": range(100), "seed": range(100)}, "10000 runs"),
    ({"machine.cpu": [1], "seed": [1]}, "cpus"),
    ({"machine.cpus": [0], "seed": [1]}, "machine.cpus = 0"), ({"policy": ["stage9"], "seed": [1]}, "stage9"),
    ({"policy.flash": ["batch"], "seed": [1]}, "did you mean 'flush'"),
    ({"policy.flush": ["bach"], "seed": [1]}, "did you mean 'batch'")])
def test_grids_refused_before_the_first_run(monkeypatch, over, part):
    monkeypatch.setattr("reclaim.grid.simulate", None)
    with pytest.raises(ReclaimError, match=part):
        run_grid("small", over)


def test_metrics_and_axes_refused():
    with pytest.raises(ResultError, match="did you mean 'tlb_shootdowns_per_page'"):
        run_grid("small", {"seed": [1], "machine.cpus": [1]}, metric="tlb_shootdown_per_page")
    for bad in ("x", "x=", "=1", "x=1,,2"):
        with pytest.raises(ResultError, match="KEY=VALUE"):
            parse_axis(bad)
    assert parse_axis("a.b = 1, 2.5,4M,true,batch(3)") == ("a.b", [1, 2.5, "4M", True, "batch(3)"])


# --- reports --------------------------------------------------------------------------------------

class Page(html.parser.HTMLParser):
    """What a reader sees, and what the page would fetch or run."""

    VOID = {"meta", "br", "hr", "img", "link"}

    def __init__(self, text):
        super().__init__()
        self.text, self.open, self.outside, self.ids = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        assert tag not in ("script", "iframe", "object", "link", "img")
        assert not any(a.startswith("on") for a in attrs)
        self.outside += [v for k, v in attrs.items() if k in ("href", "xlink:href", "src")
                         and not v.startswith("#")]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "svg"} & set(self.open):
            self.text.append(data)


@pytest.fixture(scope="module")
def comparison():
    return compare("batch-tlb-flush", seeds=2, seconds=0.03)


def test_report(comparison):
    text, lacks = report.page(comparison)
    page = Page(text)
    assert lacks == [] and page.outside == [] and len(page.ids) == len(set(page.ids))
    assert "http://" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "https://" not in text and "@import" not in text
    words = " ".join(" ".join(page.text).split())
    for part in ("Simulated.", "TLB shootdowns per reclaimed page", "55,428,953", "published after",
                 "95% interval", "memcg.limit 512M file", "swap.latency 80us default",
                 "seconds 0.03 changed; file: 60.0",
                 "Not stated there, chosen here: the swap device", comparison.before.runs[0].digest,
                 "flush per-folio", "--policy stage5 --seed 2 -o after-2.json", "Warning: 2 seeds", "vm16"):
        assert part in words, part
    assert text.count('<svg') == 8 and text.count('role="img" aria-label="') == 8
    for row in comparison.rows:
        assert row.metric in words
    assert report.page(comparison) == (text, [])      # the same bytes again


def test_hostile_names_are_escaped(comparison):
    evil = '<script>alert(1)</script>"\'&'
    scenario = comparison.scenario.replace(name=evil)
    sides = [[dataclasses.replace(run, scenario=scenario, policy=evil + side, provenance={"reclaim": evil})
              for run in of.runs] for side, of in (("a", comparison.before), ("b", comparison.after))]
    text, _ = report.page(Comparison.of(*sides), command=["reclaim", evil])
    Page(text)
    assert "<script" not in text


def test_scenarios_that_differ_are_named(results):
    a, b = results
    other = dataclasses.replace(b, scenario=b.scenario.replace({"swap.size": "4G"}))
    text, _ = report.page(Comparison.of(a, other))
    assert "swap.size: 8191M before, 4G after" in text


def test_a_scenario_of_ones_own_is_on_the_page(tmp_path, capsys):
    mine = tmp_path / "mine.toml"
    mine.write_text('seconds = 0.01\n[machine]\ncpus = 2\n[memcg]\nlimit = "4M"\n'
                    '[workload]\nkind = "writer"\nworkers = 2\nbytes = "16M"\n')
    out = tmp_path / "r.html"
    assert main(["report", str(mine), "--seeds", "2", "-o", str(out)]) == 0
    page = " ".join(" ".join(Page(out.read_text()).text).split())
    assert "memcg.limit 4M file" in page and "machine.pcid true default" in page
    assert f"reclaim report {mine} --before stage0 --after stage5 --seeds 2 -o {out}" in page
    result = simulate(Scenario.load(mine), "stage5")
    text, _ = report.page(Comparison.of(result, result))
    assert "bytes = &quot;16M&quot;" in text and "scenario.toml" in text


def test_report_command(results, tmp_path, capsys):
    a, b = (tmp_path / "a.json", tmp_path / "b.json")
    results[0].save(a)
    results[1].save(b)
    out = tmp_path / "r.html"
    assert main(["report", str(a), str(b), "-o", str(out)]) == 0
    assert "stage0 and stage5" in out.read_text() and capsys.readouterr().out == f"{out}\n"
    assert main(["report", str(a), "-o", str(out)]) == 3
    assert "give one before and one after" in capsys.readouterr().err
    before = out.read_bytes()
    assert main(["report", str(a), str(tmp_path / "none.json"), "-o", str(out)]) == 3
    assert out.read_bytes() == before and len(list(tmp_path.iterdir())) == 5


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium")
@pytest.mark.parametrize("width", [500, 1280])    # headless chromium has no narrower window
def test_in_a_browser(comparison, tmp_path, width):
    """Rendered: the text is there, nothing is wider than the window, nothing is fetched."""
    path = tmp_path / "r.html"
    report.write(comparison, path)
    shot = tmp_path / "shot.png"
    # A page may not run scripts; the probe is a copy that may.
    probe = tmp_path / "probe.html"
    probe.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text()).replace(
        "</main>", "</main>"
        "<pre id=probe></pre><script>document.getElementById('probe').textContent = 'probe ' + "
        "JSON.stringify([document.documentElement.scrollWidth <= innerWidth, [...document.querySelectorAll("
        "'svg, p, li, td, h1, h2, pre')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).length, "
        "document.querySelectorAll('svg').length])</script>"))
    base = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile",
            f"--window-size={width},1000"]
    done = subprocess.run([*base, "--dump-dom", f"file://{probe}"], capture_output=True, text=True,
                          timeout=120)
    assert "probe [true,0,8]" in done.stdout
    subprocess.run([*base, f"--screenshot={shot}", f"file://{path}"], capture_output=True, timeout=120,
                   check=True)
    import matplotlib.image
    pixels = matplotlib.image.imread(shot)
    assert pixels.shape[1] == width and len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20
