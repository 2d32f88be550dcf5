"""The page in a real browser: charts that move, light and dark, a phone's width, names that stay text."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Browser
from common.required import unavailable
from scene import HOSTILE, Node, Told, Web, make_ledger, plain, png_size

from slurm_energy.ledger.store import Ledger
from slurm_energy.report.groups import group_report
from slurm_energy.report.selection import Selection, open_rows

PATHS = "[...document.querySelectorAll('#nodes .chart path')].map(path => path.getAttribute('d')).join()"
LOADED = "document.querySelectorAll('#projects tbody tr').length > 1 && document.querySelectorAll('.month').length > 1"
VIEWS = [("desktop", 1200, 1500, False), ("phone", 360, 780, True)]


@pytest.fixture(scope="module", autouse=True)
def chromium() -> str:
    """The program; asked for first, so that nothing is made ready without it."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or unavailable("chromium is not installed")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ledger(tmp_path_factory.mktemp("ledger"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("node"))
    node.begin(4711, "emma", "climate", 16, "0,1")
    node.begin(4712, "ananya", "protein-folding", 8, "2")
    node.begin(4713, "andrew", HOSTILE, 4)
    yield node
    node.close()


@pytest.fixture(scope="module")
def web(node: Node, ledger: Path) -> Iterator[Web]:
    web = Web("--socket", node.socket, "--ledger", ledger)
    yield web
    web.close()


@pytest.fixture(scope="module")
def browser(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(chromium, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def shown(browser: Browser, web: Web) -> Browser:
    """The page, loaded, with all its parts."""
    browser.failures.clear()
    browser.requests.clear()
    browser.look(1200, 1500)
    browser.open(web.address)
    browser.wait(LOADED)
    browser.wait(f"({PATHS}).length > 0 && document.querySelectorAll('.jobs tbody tr').length >= 3")
    return browser


def test_the_page_needs_nothing_from_elsewhere_and_complains_of_nothing(shown: Browser, web: Web) -> None:
    base = web.address.partition("#")[0]
    assert shown.failures == []
    assert {address for address in shown.requests if not address.startswith(base)} <= {"about:blank"}
    assert not [address for address in shown.requests if "token" in address.partition("#")[0]]


def test_the_token_is_taken_out_of_the_address_and_survives_a_reload(shown: Browser) -> None:
    assert shown.run("location.href").endswith("/")
    shown.run("window.old = true")
    shown.call("Page.reload")
    shown.wait(f"!window.old && {LOADED}")


def test_charts_and_watts_follow_the_agent(shown: Browser) -> None:
    before = shown.run(f"[{PATHS}, document.querySelector('.watts').textContent]")
    shown.wait(f"({PATHS}) !== {plain(before[0])}", 10)
    shown.wait(f"document.querySelector('.watts').textContent !== {plain(before[1])}", 10)
    watts = shown.run("document.querySelector('.watts').textContent")
    assert 500 < float(watts.removesuffix(" W").replace(",", "")) < 3000
    # Of two packages, memory and four GPUs; each job has a line of its own that has begun to grow.
    assert shown.run("[...document.querySelectorAll('#nodes .area')].map(one => one.classList[1])") == [
        "package",
        "dram",
        "gpu",
    ]
    shown.wait("[...document.querySelectorAll('.spark path')].length >= 3", 10)


def test_jobs_come_and_go(shown: Browser, node: Node) -> None:
    rows = "[...document.querySelectorAll('.jobs tbody th')].map(one => one.textContent)"
    node.begin(5000, "wei", "nlp", 4)
    shown.wait(f"{rows}.includes('5000')")
    node.end(5000)
    shown.wait(f"!{rows}.includes('5000')")


def test_names_stay_text(shown: Browser) -> None:
    assert shown.run("document.querySelectorAll('main img').length") == 0
    cells = shown.run("[...document.querySelectorAll('main td, main th')].map(one => one.textContent)")
    assert cells.count(HOSTILE) == 2  # in the jobs, and in the projects


def test_the_tables_are_the_ledgers_and_a_bar_chooses_its_month(shown: Browser, ledger: Path) -> None:
    months = group_report(open_rows(Ledger(ledger), Selection(), None), ["month"])
    bars = "[...document.querySelectorAll('.month')].map(one => one.dataset.key)"
    assert shown.run(bars) == [one["month"] for one in months]
    chosen = months[2]["month"]
    shown.run(f"document.querySelector('.month[data-key=\"{chosen}\"]').dispatchEvent(new MouseEvent('click'))")
    shown.wait(f"document.querySelector('#projects-title').textContent === 'Projects in {chosen}'")
    jobs = shown.run("document.querySelector('#projects tr.sum td[data-label=Jobs]').textContent")
    assert jobs == f"{months[2]['jobs']:,}"
    assert shown.run("document.querySelector('#month').value") == chosen
    assert shown.run("document.querySelector('.month.chosen').dataset.key") == chosen
    shown.run(
        "document.querySelector('#month').value = 'all'; document.querySelector('#month').dispatchEvent(new Event('change'))"
    )
    shown.wait("document.querySelector('#projects-title').textContent === 'Projects, all months'")
    heights = "[...document.querySelectorAll('.month .fill')].map(one => one.getAttribute('height')).join()"
    before = shown.run(heights)
    shown.run(
        "document.querySelector('#quantity').value = 'gpu'; document.querySelector('#quantity').dispatchEvent(new Event('change'))"
    )
    assert shown.run(heights) != before


def test_the_months_are_chosen_by_keyboard(shown: Browser) -> None:
    first = shown.run("document.querySelector('.month').dataset.key")
    shown.run("document.querySelector('.month').focus()")
    for kind in ("keyDown", "keyUp"):
        shown.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13)
    shown.wait(f"document.querySelector('#projects-title').textContent === 'Projects in {first}'")
    assert shown.run("document.activeElement.dataset.key") == first


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("name", "width", "height", "phone"), VIEWS, ids=[view[0] for view in VIEWS])
def test_nothing_is_wider_than_the_screen_and_text_stands_out(
    shown: Browser, tmp_path: Path, name: str, width: int, height: int, phone: bool, dark: bool
) -> None:
    shown.look(width, height, dark=dark, phone=phone)
    scheme = f"matchMedia('(prefers-color-scheme: {'dark' if dark else 'light'})').matches"
    shown.wait(f"innerWidth === {width} && {scheme} && ({PATHS}).length > 0")
    shown.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")  # charts are drawn anew
    assert shown.run("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    assert shown.run(OUTSIDE) == []
    shown.picture(tmp_path / "page.png")
    assert png_size(tmp_path / "page.png")[0] == width * (2 if phone else 1)
    background = shown.run("getComputedStyle(document.body).backgroundColor")
    assert (max(int(part) for part in background[4:-1].split(",")) < 64) is dark
    assert shown.run(CONTRAST) == []


OUTSIDE = (
    "[...document.querySelectorAll('main *')].filter(one => one.getClientRects().length && "
    "one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 80))"
)
"""Elements that are wider than the screen."""
CONTRAST = """(() => {
  const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map((one) => one / 255)
    .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, index) => sum + one * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (!colour.endsWith(" 0)") && colour !== "transparent") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("body *")].filter((one) => one.getClientRects().length
    && [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())).filter((one) => {
      const style = getComputedStyle(one), text = one instanceof SVGElement ? style.fill : style.color;
      const [a, b] = [light(text), light(behind(one))].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05) < 4.5;
    }).map((one) => one.outerHTML.slice(0, 120));
})()"""
"""Elements with text whose contrast to what is behind them is below WCAG's 4.5."""


def test_every_control_and_picture_has_a_name(shown: Browser) -> None:
    tree = shown.call("Accessibility.getFullAXTree")["nodes"]
    nameless = [
        one["role"]["value"]
        for one in tree
        if not one.get("ignored") and one.get("role", {}).get("value") in ("button", "combobox", "image", "img", "table", "link")
        and not one.get("name", {}).get("value")
    ]  # fmt: skip
    assert nameless == []
    assert shown.run("document.documentElement.lang") == "en"


def test_without_an_agent_the_ledger_is_shown_and_it_is_said(browser: Browser, ledger: Path, tmp_path: Path) -> None:
    web = Web("--socket", tmp_path / "none.sock", "--ledger", ledger)
    try:
        browser.look(1200, 1500)
        browser.open(web.address)
        browser.wait(LOADED)
        browser.wait("!document.querySelector('#live-notice').hidden")
        said = browser.run("document.querySelector('#live-notice').innerText")
        assert "No agent answers here" in said
        assert "is slurm-energy-agent running on this node?" in said
        assert browser.run("document.querySelector('#status').textContent") == "no live agent"
    finally:
        web.close()


def test_without_a_ledger_live_watts_are_shown_and_it_is_said(browser: Browser, node: Node, tmp_path: Path) -> None:
    web = Web("--socket", node.socket, "--ledger", tmp_path / "none")
    try:
        browser.look(360, 780, phone=True)
        browser.open(web.address)
        browser.wait(f"({PATHS}).length > 0")
        browser.wait("document.querySelector('#ledger-notice').innerText.includes('senergy aggregate')")
        assert browser.run("document.querySelector('#ledger-body').hidden") is True
        assert browser.run("document.documentElement.scrollWidth") == 360
    finally:
        web.close()


def test_without_the_token_the_page_says_where_to_get_it(browser: Browser, web: Web) -> None:
    browser.open(web.address.partition("#")[0].replace("127.0.0.1", "localhost"))  # another origin: no stored token
    browser.wait("document.querySelector('#ledger-notice').innerText.includes('open the address')")
    assert browser.run("document.querySelector('#status').textContent") == "not connected"
    assert browser.run("document.querySelectorAll('.month, .area').length") == 0


def test_a_page_that_lost_its_server_says_so_and_shows_no_old_watts(browser: Browser, node: Node, ledger: Path) -> None:
    web = Web("--socket", node.socket, "--ledger", ledger)
    browser.look(1200, 1500)
    browser.open(web.address)
    browser.wait(f"({PATHS}).length > 0")
    web.close()
    browser.wait("document.querySelector('#status').textContent === 'not connected'")
    assert browser.run("document.querySelectorAll('#nodes .watts').length") == 0


# While a person is at it.

WATTS = "document.querySelector('#nodes .watts').innerText"
STATUS = "document.querySelector('#status').textContent"
LIVE = f"!!document.querySelector('.area') && /\\d W$/.test({WATTS})"


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    agent = Told(tmp_path / "told.sock", 20)
    yield agent
    agent.close()


@pytest.fixture
def busy(browser: Browser, told: Told, tmp_path: Path) -> Iterator[Browser]:
    """A page with more jobs than it shows at once."""
    web = Web("--socket", told.path, "--ledger", tmp_path / "none")
    try:
        browser.failures.clear()
        browser.look(1200, 1500)
        browser.open(web.address)
        browser.wait(f"{LIVE} && !!document.querySelector('[data-toggle]')")
        yield browser
    finally:
        web.close()
    assert [one for one in browser.failures if "ERR_CONNECTION" not in one] == []


def looks(browser: Browser) -> None:
    """Waits until the page has shown other watts more than once."""
    for _ in range(2):
        before = browser.run(WATTS)
        browser.wait(f"{WATTS} !== {plain(before)}", 10)


def test_the_keyboard_stays_where_it_is(busy: Browser) -> None:
    busy.run("window.held = document.querySelector('[data-toggle]'); held.focus()")
    looks(busy)
    assert busy.run("document.activeElement === held && held.isConnected")
    for kind in ("keyDown", "keyUp"):
        busy.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    busy.wait("document.querySelectorAll('.jobs tbody tr').length === 20")
    assert busy.run("document.activeElement === held && held.getAttribute('aria-expanded')") == "true"
    looks(busy)
    assert busy.run("document.activeElement === held && held.textContent") == "Fewer jobs"


def test_rows_follow_their_jobs_and_stay_the_same_rows(busy: Browser, told: Told) -> None:
    first = "[...document.querySelectorAll('.jobs tbody tr')].map(one => one.dataset.key.split('/')[0])"
    busy.run("document.querySelector('[data-toggle]').click()")
    busy.run(
        "window.rows = new Map([...document.querySelectorAll('.jobs tbody tr')].map(one => [one.dataset.key, one]))"
    )
    before = busy.run(first)
    busy.wait(f"{first}.join() !== {plain(','.join(before))}", 20)  # another job draws the most
    assert sorted(busy.run(first)) == sorted(before)
    assert busy.run("[...document.querySelectorAll('.jobs tbody tr')].every(one => rows.get(one.dataset.key) === one)")
    power = "[...document.querySelectorAll('.jobs td[data-label=Power]')].map(one => parseFloat(one.innerText))"
    shown = busy.run(power)
    assert shown == sorted(shown, reverse=True)
    told.jobs = 3
    busy.wait("document.querySelectorAll('.jobs tbody tr').length === 3 && !document.querySelector('[data-toggle]')")


@pytest.mark.parametrize("what", ["#nodes h3", "#nodes .jobs tbody tr:nth-child(2)", "#nodes .legend"])
def test_text_that_is_selected_can_be_copied_while_the_rest_goes_on(busy: Browser, what: str) -> None:
    busy.run(f"getSelection().selectAllChildren(document.querySelector({plain(what)}))")
    text = busy.run("getSelection().toString()")
    assert text
    looks(busy)
    assert busy.run("getSelection().toString()") == text
    assert busy.run(f"document.querySelector({plain(what)}).closest('[data-part]').className") == "waits"
    busy.wait(f"{STATUS} === 'live, every 2 s; what is selected waits'")
    inner = f"document.querySelector({plain(what)}).innerText"
    busy.run("getSelection().removeAllRanges()")
    busy.wait(f"{STATUS} === 'live, every 2 s' && !document.querySelector('.waits')")
    if what != "#nodes h3":
        busy.wait(f"{inner} !== {plain(busy.run(inner))}", 10)


def test_selected_watts_do_not_outlive_their_agent(busy: Browser, told: Told) -> None:
    busy.run("getSelection().selectAllChildren(document.querySelector('#nodes'))")
    told.stopped_ns = time.time_ns() - 10**10
    busy.wait(f"{WATTS} === 'no live watts'")
    assert busy.run("document.querySelectorAll('#nodes .chart, #nodes .jobs, #nodes .legend').length") == 0


@pytest.mark.parametrize("ago_s", [9, 29, -3600])
def test_an_agent_that_is_stuck_shows_no_watts_and_what_to_do(busy: Browser, told: Told, ago_s: int) -> None:
    told.stopped_ns = time.time_ns() - ago_s * 10**9
    busy.wait(f"{STATUS} === 'no live agent'")
    assert busy.run("document.querySelector('#status').className") == "status off"
    assert busy.run(WATTS) == "no live watts"
    assert busy.run("document.querySelectorAll('#nodes .chart, #nodes .jobs, #nodes .legend').length") == 0
    assert "systemctl restart slurm-energy-agent" in busy.run("document.querySelector('.problem').innerText")
    told.stopped_ns = None
    busy.wait(f"{STATUS} === 'live, every 2 s' && {LIVE}")


def test_the_charts_go_on_when_the_clock_is_set_back(busy: Browser, told: Told) -> None:
    told.period_s = 10
    looks(busy)
    told.ahead_s = -30  # less than makes an agent with this period stuck
    looks(busy)
    sparks = "[...document.querySelectorAll('.spark path')].map(one => one.getAttribute('d')).join()"
    for drawn in (PATHS, sparks):
        before = busy.run(drawn)
        busy.wait(f"({drawn}) !== {plain(before)}", 10)
        assert "NaN" not in busy.run(drawn)


def test_a_ledger_without_news_is_not_made_anew(shown: Browser) -> None:
    shown.run(
        "window.row = document.querySelector('#projects tbody tr'); window.bar = document.querySelector('.month')"
    )
    shown.run("bar.focus()")
    shown.run("import('./ledger.js').then((ledger) => ledger.refreshLedger())")
    assert shown.run("row.isConnected && bar.isConnected && document.activeElement === bar")
