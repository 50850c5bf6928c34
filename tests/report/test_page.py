"""The interactive report: complete, inert whatever records say, small, and usable in a real browser."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up_records import record_data

from vcil_bench import protocol as protocols
from vcil_bench.common.config import parse_assignments
from vcil_bench.record import Record, RecordError
from vcil_bench.report.page import PaperTable, build
from vcil_bench.report.page.command import command
from vcil_bench.report.tables import groups

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = "</script><img src=x onerror=\"document.title='taken'\">\u2028&<!--<script>{{7*7}}"
NAMES = (
    "tcd_ucf101_2x25",
    "tcd_ucf101_5x10",
    "tcd_ucf101_10x5",
    "vclimb_ucf101_10",
    "vclimb_ucf101_20",
    "kinetics400_40x10_seeded",
    "synthetic_3x4",
    "tcd_ssv2_5x18",
)
SORT_MS = 300


def site(*data: Any, errors: tuple[str, ...] = (), tables: tuple[PaperTable, ...] = ()) -> str:
    """Build the page of some made-up records."""
    records = [Record(Path(f"results/{i}.json"), one) for i, one in enumerate(data)]
    return build(records, [RecordError(text) for text in errors], groups(records), list(tables))


def content(page: str) -> dict[str, Any]:
    """Read the data that a page holds, as a browser would."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found, parse_constant=lambda name: pytest.fail(f"no browser reads {name}"))


def fabricate(methods: int = 21, seeds: int = 3) -> list[Any]:
    """Make up records as large as real ones: every step's counts, costs and fifty epochs of losses."""
    made = []
    rng = np.random.default_rng(0)
    for name in NAMES:
        loaded = protocols.load(name)
        spec = json.loads(json.dumps(loaded.expanded()))
        del spec["classes"]["orders"]
        sizes = loaded.spec.tasks.sizes
        totals = [38 * size for size in sizes]
        classes = (
            loaded.class_names if loaded.has_class_names else [str(i) for i in range(loaded.spec.classes.num)]
        )
        for number in range(methods):
            for seed in range(seeds):
                status = ("complete", "complete", "complete", "partial", "failed")[(number + 3 * seed) % 5]
                done = len(sizes) if status == "complete" else 2
                steps = [_step(rng, i, sizes, totals, number) for i in range(done)]
                command_line = f"vcil-bench run m{number} {name} --seed {seed} --results /somewhere"
                environment = {f"library_{i}": f"1.{i}.0+some.build" for i in range(20)} | {
                    "command": command_line
                }
                data = record_data(
                    method=f"method_{number:02}",
                    seed=seed,
                    status=status,
                    reason="out of memory" if status == "failed" else "",
                    protocol={
                        "name": name,
                        "label": name,
                        "fingerprint": loaded.fingerprint,
                        "title": loaded.spec.title,
                        "seeds": list(range(seeds)),
                        "spec": spec,
                    },
                    data={"kind": "synthetic" if name.startswith("synthetic") else "real"},
                    config={f"setting_{i}": {"value": i / 7, "origin": "default"} for i in range(30)},
                    environment=environment,
                )
                data |= {
                    "run_id": f"{name}/method_{number:02}/default-s{seed}",
                    "class_order": loaded.order(loaded.spec.seeds[0]),
                    "class_names": classes,
                    "classes_per_task": sizes,
                    "test_videos": totals,
                    "steps": steps,
                    "sessions": [{"started": "2025-01-01T00:00:00Z", "environment": environment}] * 2,
                }
                made.append(data)
    return made


def _step(rng: np.random.Generator, i: int, sizes: list[int], totals: list[int], number: int) -> dict[str, Any]:
    hit = (0.3 + 0.6 * number / 21) * (1 - 0.02 * i)
    seen = sum(sizes[: i + 1])
    return {
        "step": i,
        "classes_seen": seen,
        "correct": {"cnn": [int(rng.binomial(n, hit)) for n in totals[: i + 1]]},
        "costs": {
            **{key: float(rng.random()) * 1000 for key in ("train_s", "eval_s", "data_wait_s")},
            "peak_device_mb": 12345.6,
            "parameters": 24_000_000 + seen,
            "trainable": 24_000_000,
            "state_bytes": 96_000_000,
            "memory": {"videos": 5 * seen, "frames": 40 * seen, "bytes": 6_021_120 * seen},
        },
        "losses": [
            {
                "phase": f"task {i + 1}",
                "epoch": e + 1,
                "cross_entropy": float(rng.random()),
                "kd": float(rng.random()),
            }
            for e in range(50)
        ],
    }


@pytest.fixture(scope="module")
def large() -> str:
    """The page of 504 records."""
    return site(*fabricate(), errors=("results/x/y/z.json: corrupt record",))


def test_same_records_give_the_same_page() -> None:
    data = [record_data(seed=seed) for seed in (1, 2)] + [record_data(method="beta", status="failed")]
    assert site(*data) == site(*data)


def test_nothing_a_record_says_becomes_markup() -> None:
    data = record_data(method=HOSTILE, status="failed", reason=HOSTILE, class_names=[HOSTILE, "b", "c"])
    data["class_names"] = [HOSTILE, "b", "c"]
    table = PaperTable("t", HOSTILE, HOSTILE, [HOSTILE], [[{"ours": HOSTILE, "rest": HOSTILE}]], [["best"]])
    page = site(data, record_data(), errors=(HOSTILE,), tables=(table,))
    assert "<img" not in page.partition("// Draws the page")[0]
    assert page.count("</script>") == 3
    assert "49" not in re.findall(r"<h3[^>]*>(.*?)</h3>", page)[0]
    stored = content(page)
    (run,) = [run for run in stored["runs"] if run["status"] == "failed"]
    assert run["reason"] == HOSTILE
    assert stored["pool"][run["method"]]["name"] == HOSTILE
    assert stored["pool"][run["class_names"]][0] == HOSTILE


def test_only_the_own_scripts_may_run_and_nothing_is_loaded() -> None:
    page = site(record_data())
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)
    assert "default-src &#39;none&#39;" in policy
    assert policy.count("sha256-") == 2
    assert "unsafe-eval" not in policy
    assert "script-src &#39;unsafe-inline" not in policy
    own = page.partition("plotly.js (basic")[0]
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", own)
    assert not re.findall(r"<[a-z]+[^>]*\son[a-z]+=", own.partition("<script")[0])


def test_every_run_has_a_page_of_its_own() -> None:
    data = [record_data(seed=seed) for seed in (1, 2)]
    data += [
        record_data(seed=1),
        record_data(method="beta", status="partial", correct=[[3]]),
    ]  # a copy shares its id
    names = [run["id"] for run in content(site(*data))["runs"]]
    assert len(set(names)) == len(names) == 4
    assert {one["run_id"] for one in data} < set(names)


def test_a_run_holds_what_its_record_does() -> None:
    left_out = [{"id": "a/b.avi", "split": "test", "problem": "missing"}]
    data = record_data(data={"left_out": left_out}, method="alpha")
    data["steps"][0]["losses"] = [
        {"phase": "task 1", "epoch": 1, "ce": 0.123456},
        {"epoch": 2, "ce": 5e12},
    ]
    data["steps"][0]["costs"] |= {"train_s": 1.5, "memory": {"videos": 3, "frames": 9, "bytes": 27}}
    last = {"videos": 1, "frames": 2, "bytes": 6, "statistics_bytes": 8}
    data["steps"][1]["costs"] |= {"memory": last}  # type: ignore[typeddict-item]
    stored = content(site(data))
    (run,) = stored["runs"]
    assert stored["pool"][run["data"]]["left_out"] == left_out
    assert run["correct"] == {"cnn": [[4], [2, 1]]}
    assert run["losses"]["ce"] == [0.1235, 5e12]
    assert stored["groups"][0]["rows"][0]["memory"] == last
    kept = {"memory.videos": [3, 1], "memory.frames": [9, 2], "memory.bytes": [27, 6]}
    assert run["costs"].items() >= {"train_s": [1.5, 2.0], **kept}.items()
    assert run["values"]["cnn"] == {
        "average_incremental_accuracy": 75,
        "final_accuracy": 50,
        "backward_forgetting": 50,
        "final_task_mean": 50,
        "backward_forgetting_by_class": 50,
        "tcd_forgetting": 50,
        "max_forgetting": 50,
    }


def test_rows_are_means_of_finished_runs_and_say_what_is_missing() -> None:
    data = [record_data(seed=1), record_data(seed=2, correct=[[2], [2, 2]])]
    data += [record_data(seed=3, status="failed", reason="out of memory", correct=[[4]])]
    (group,) = content(site(*data))["groups"]
    (row,) = group["rows"]
    assert row["headline"] == pytest.approx([66.666667, 11.785113])
    assert (row["complete"], row["seeds"], row["incomplete"], len(row["runs"])) == (2, 3, True, 3)
    assert row["notes"] == ["2 of 3 seeds, 1 failed", "seed 3 failed: out of memory"]
    assert row["curve"]["seen"] == [2, 3]
    assert row["curve"]["accuracy"]["mean"] == [75, pytest.approx(58.333)]


def test_kinds_are_never_mixed() -> None:
    made = [
        record_data(method="a"),
        record_data(method="b", data={"kind": "synthetic"}),
        record_data(method="c", weights={"source": "random"}),
        record_data(method="d", protocol={"fingerprint": "e" * 64}),
    ]
    found = [(g["kind"], [row["method"] for row in g["rows"]]) for g in content(site(*made))["groups"]]
    assert sorted(found[:2]) == [("real", ["a"]), ("real", ["d"])]  # real data first
    assert found[2:] == [("random weights", ["c"]), ("synthetic", ["b"])]


def test_banner_where_all_data_are_synthetic() -> None:
    synthetic = record_data(data={"kind": "synthetic"})
    assert 'id="synthetic"' in site(synthetic)
    assert 'id="synthetic"' not in site(synthetic, record_data(method="beta"))
    assert 'id="synthetic"' not in site()


def test_paper_tables_and_unreadable_records_stand_on_the_page() -> None:
    table = PaperTable(
        "made",
        "A table",
        "A note.",
        ["Method", "5x2"],
        [
            [{"ours": "a | b", "rest": ""}, {"ours": "1.0", "rest": "3.0 (-2.0)"}],
            [{"ours": "b", "rest": ""}, {"ours": "2.0", "rest": ""}],
        ],
        [["best", "second"], ["", "best"]],
    )
    page = site(record_data(), errors=("results/a.json: corrupt",), tables=(table,))
    assert 'id="table-made"' in page
    assert "<u>1.0</u> | 3.0 (-2.0)</td>" in page  # what others published is not ours to mark
    assert "<b>2.0</b></td>" in page
    assert "<b>a | b</b></th>" in page  # a name is never taken apart
    assert "A note." in page
    assert "<li>results/a.json: corrupt</li>" in page


@pytest.mark.parametrize(
    "value",
    [0.1, 1e-05, 3, True, None, "random", "", "null", "1e3", "a b'c", [1, 2.5], ["x", "y z"], {"k": 1e-7}],
)
def test_command_gives_the_settings_back(value: Any) -> None:
    data = record_data(
        protocol={"overrides": {"clip.frames": 4}},
        config={"lr": {"value": value, "origin": "command line"}, "b": {"value": 1, "origin": "recipe x"}},
        options={"precision": {"value": "bf16", "origin": "command line"}},
    )
    words = shlex.split(command(Record(Path("x.json"), data)))
    assert words[:6] == ["vcil-bench", "run", "/nowhere/alpha.py", "made_up", "--seed", "1"]
    assert words[6:8] == ["--data", "/nowhere"]
    assert words[8] == "--set"
    given = parse_assignments(words[9:])
    assert given == {"protocol.clip.frames": 4, "precision": "bf16", "lr": value}
    assert type(given["lr"]) is type(value)


def test_long_runs_keep_a_bounded_number_of_losses() -> None:
    data = record_data()
    for step in data["steps"]:
        step["losses"] = [{"phase": "s", "epoch": e, "a": 1.0, "b": 2.0} for e in range(1, 2001)]
    losses = content(site(data))["runs"][0]["losses"]
    assert losses["every"] == 9
    assert len(losses["a"]) + len(losses["b"]) <= 1000
    assert {
        step: max(e for s, e in zip(losses["step"], losses["epoch"], strict=True) if s == step)
        for step in (0, 1)
    } == {
        0: 2000,
        1: 2000,
    }


def test_half_a_surrogate_pair_can_be_written() -> None:
    site(record_data(status="failed", reason="\ud800"), errors=("\udcff",)).encode()


@pytest.mark.slow
def test_five_hundred_records_stay_small(large: str) -> None:
    assert len(content(large)["runs"]) == 504
    assert len(large.encode()) < 15_000_000


def test_page_imports_neither_torch_nor_a_method() -> None:
    code = "import sys, vcil_bench.report.page as s; print({'torch', 'vcil_bench.methods'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---- in a real browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium of the system."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install 'vcil-bench[browser]'"
    )
    if CHROMIUM is None:
        pytest.skip("needs a chromium binary, such as the system's package")
    with api.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def visit(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Open pages from disk; at the end the console must have stayed silent."""
    said: list[str] = []
    contexts = []

    def open_page(text: str, **options: Any) -> Page:
        file = tmp_path / "index.html"
        file.write_text(text, encoding="utf-8")
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else said.append(r.url)
        )
        page.goto(file.as_uri())
        page.wait_for_selector("#plot .main-svg, #plot[hidden]", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def methods_shown(page: Page) -> list[str]:
    return page.locator(".overview tbody th a").all_inner_texts()


def until(page: Page, condition: str) -> None:
    """Wait for a condition; playwright's own way evaluates text in the page, which its policy forbids."""
    for _ in range(50):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    pytest.fail(f"never came true: {condition}")


def some() -> list[Any]:
    """Three methods whose order by name, accuracy and forgetting differ, one of them on synthetic data, too."""
    counts = {"alpha": [[2], [2, 2]], "beta": [[4], [2, 1]], "gamma": [[1], [2, 0]]}
    made = [record_data(method=name, seed=s, correct=c) for name, c in counts.items() for s in (1, 2, 3)]
    made += [record_data(method="delta", status="failed", reason="out of memory", correct=[])]
    return [*made, record_data(method="alpha", data={"kind": "synthetic"})]


@pytest.mark.slow
def test_sorting_by_mouse_and_keyboard(visit: Callable[..., Page]) -> None:
    page = visit(site(*some()))
    first = page.locator("details.group").first
    head = first.locator("th[data-key=headline]")
    assert head.get_attribute("aria-sort") is None
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert methods_shown(page)[:4] == ["beta", "alpha", "gamma", "delta"]  # what has no value comes last
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert methods_shown(page)[:4] == ["gamma", "alpha", "beta", "delta"]
    first.locator("th[data-key=forgetting] button").click()
    assert head.get_attribute("aria-sort") is None
    assert methods_shown(page)[:4] == ["gamma", "alpha", "beta", "delta"]


@pytest.mark.slow
def test_the_bar_of_the_plot_holds_what_stays_on_the_page(visit: Callable[..., Page]) -> None:
    page = visit(site(*some()))
    opened: list[str] = []
    page.context.on("page", lambda other: opened.append(other.url))
    page.hover("#plot")
    buttons = page.locator("#plot .modebar-btn")
    names = buttons.evaluate_all("all => all.map(one => one.dataset.title)")
    assert names == ["Download plot as a PNG", "Zoom", "Pan", "Reset axes"]
    for number in range(1, buttons.count()):
        buttons.nth(number).click()
    with page.expect_download() as saved:
        buttons.nth(0).click()
    assert saved.value.suggested_filename == "vcil-bench-curves.png"
    assert opened == []


@pytest.mark.slow
def test_filters(visit: Callable[..., Page]) -> None:
    page = visit(site(*some()))
    assert len(methods_shown(page)) == 5
    page.fill("#f-text", "memory DELTA")
    assert methods_shown(page) == ["delta"]
    page.click("button[type=reset]")
    until(page, "document.querySelectorAll('.overview tbody tr').length === 5")
    page.select_option("#f-kind", "synthetic")
    assert page.locator("details.group:visible").count() == 1
    assert page.locator(".overview tbody tr:visible").count() == 1
    page.select_option("#f-kind", "")
    page.check("#f-complete")
    assert page.locator(".overview tbody tr:visible").count() == 3
    page.select_option("#f-method", "beta")
    assert page.locator(".overview tbody tr:visible th a").all_inner_texts() == ["beta"]
    assert page.inner_text("#shown") == "1 of 5 rows shown"


@pytest.mark.slow
def test_a_run_opens_by_click_and_key_and_leads_back(visit: Callable[..., Page]) -> None:
    page = visit(site(*some()))
    page.locator(".overview tbody tr").nth(1).locator("td").nth(1).click()  # anywhere in the row
    page.wait_for_selector("#run-title")
    assert "#run/made_up/beta/default-s1" in page.url
    assert page.locator("#home").is_hidden()
    assert "vcil-bench run /nowhere/beta.py made_up --seed 1" in page.inner_text("#run pre")
    assert page.locator(".heat td.cell").all_inner_texts() == ["4/4", "2/4", "1/2"]
    page.go_back()
    page.wait_for_selector("#home:visible")
    assert page.locator("#run").is_hidden()
    page.locator(".overview tbody tr").nth(3).locator(".seeds a").nth(1).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#run-title")
    assert page.url.endswith("#run/made_up/gamma/default-s2")
    assert page.evaluate("document.activeElement.id") == "run-title"
    page.locator("#back").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#home:visible")
    assert page.evaluate("document.activeElement.innerText") == "2"  # back at the link that was followed
    page.goto(page.url.partition("#")[0] + "#run/made_up/nobody/default-s1")
    page.wait_for_selector("#run:visible")
    assert "No such run" in page.inner_text("#run")


@pytest.mark.slow
def test_everything_is_reached_with_the_tab_key(visit: Callable[..., Page]) -> None:
    page = visit(site(*some()[:3]))
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("(document.activeElement.id || document.activeElement.textContent).trim()"))
    wanted = [
        "skip",
        "f-text",
        "f-protocol",
        "f-kind",
        "f-complete",
        "Reset",
        "Method",
        "BWF\u00a0↓",
        "alpha",
        "c-group",
    ]
    places = [reached.index(one) for one in wanted]
    assert places == sorted(places)


@pytest.mark.slow
def test_hostile_records_do_nothing(visit: Callable[..., Page]) -> None:
    bad = record_data(method=HOSTILE, reason=HOSTILE, status="failed", correct=[[1]])
    good = record_data(method=HOSTILE, variant=HOSTILE, seed=2, weights={"source": HOSTILE})
    for data, seed in ((bad, 1), (good, 2)):
        data["class_names"] = [HOSTILE, "<b>b</b>", "c"]
        data["steps"][0]["losses"] = [{"phase": HOSTILE, "epoch": 1, HOSTILE: 1.0}]
        data["run_id"] = f"{HOSTILE}/{seed}/%ff"
    page = visit(site(bad, good))
    for number in range(2):
        page.locator(".overview tbody tr").nth(number).locator("th a").click()
        page.wait_for_selector("#run-title")
        assert HOSTILE.partition("\u2028")[0] in page.inner_text("#run")
        assert page.locator("img").count() == 0
        assert "taken" not in page.title().replace(HOSTILE, "")
        page.go_back()
        page.wait_for_selector("#home:visible")


@pytest.mark.slow
def test_curves_can_be_chosen_and_toggled(visit: Callable[..., Page]) -> None:
    page = visit(site(*some()))
    assert page.locator("#plot .legend .traces").count() == 3
    page.locator("#plot .legendtoggle").first.click()
    until(page, "document.getElementById('plot').data.some((t) => t.visible === 'legendonly')")
    page.select_option("#c-group", index=1)
    until(page, "document.getElementById('plot').data.length === 2")  # one row, a curve on either side


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"color_scheme": "dark"},
        {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
        {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "reduced_motion": "reduce"},
    ],
    ids=["desk", "dark", "phone", "phone dark"],
)
def test_it_fits_and_can_be_read(visit: Callable[..., Page], tmp_path: Path, options: dict[str, Any]) -> None:
    page = visit(site(*fabricate(methods=4)), **options)
    name = NAMES[0]
    for place in ("", f"#run/{name}/method_00/default-s0"):
        page.goto(page.url.partition("#")[0] + place)
        page.wait_for_selector("#run-title" if place else "#overview")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
            "the page scrolls sideways"
        )
        picture = tmp_path / "picture.png"
        page.screenshot(path=str(picture))
        assert picture.read_bytes().startswith(b"\x89PNG")
    text, ground = (
        sum(map(int, re.findall(r"\d+", page.evaluate(f"getComputedStyle(document.body).{key}"))[:3]))
        for key in ("color", "backgroundColor")
    )
    assert (text > ground) == (options.get("color_scheme") == "dark")
    assert abs(text - ground) > 500


@pytest.mark.slow
def test_print_has_no_controls_and_whole_tables(visit: Callable[..., Page]) -> None:
    page = visit(site(*some()))
    page.emulate_media(media="print")
    assert page.locator("#filters").is_hidden()
    assert page.locator("header.top").is_hidden()
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    assert page.pdf().startswith(b"%PDF")


@pytest.mark.slow
def test_five_hundred_records_open_and_sort_without_delay(visit: Callable[..., Page], large: str) -> None:
    start = time.perf_counter()
    page = visit(large)
    opened = time.perf_counter() - start
    took = page.evaluate(
        """async () => {
          const times = [];
          for (const key of ["headline", "forgetting", "method", "notes", "headline"]) {
            const start = performance.now();
            document.querySelector(`details.group th[data-key=${key}] button`).click();
            document.body.getBoundingClientRect(); // layout belongs to it
            times.push(performance.now() - start);
          }
          return times;
        }"""
    )
    sys.stdout.write(f"opened in {opened:.1f} s, sorted in {', '.join(f'{t:.0f}' for t in took)} ms\n")
    assert max(took) < SORT_MS
