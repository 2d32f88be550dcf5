"""The page in a real browser: charts that move, light and dark, a phone's width, names that stay text."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Browser
from scene import HOSTILE, Node, Web, make_ledger, plain, png_size

from slurm_energy.ledger.store import Ledger
from slurm_energy.report.groups import group_report
from slurm_energy.report.selection import Selection, open_rows

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
PATHS = "[...document.querySelectorAll('#nodes .chart path')].map(path => path.getAttribute('d')).join()"
LOADED = "document.querySelectorAll('#projects tbody tr').length > 1 && document.querySelectorAll('.month').length > 1"
VIEWS = [("desktop", 1200, 1500, False), ("phone", 360, 780, True)]

if not CHROMIUM and not os.environ.get("SENERGY_REQUIRE_CLUSTER"):
    pytest.skip("chromium is not installed", allow_module_level=True)


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
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM, "chromium is not installed"
    browser = Browser(CHROMIUM, tmp_path_factory.mktemp("chromium"))
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
    shown.call("Page.reload")
    time.sleep(0.5)
    shown.wait(LOADED)


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
    time.sleep(0.5)
    shown.wait(f"({PATHS}).length > 0")
    assert shown.run("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    outside = shown.run(
        "[...document.querySelectorAll('main *')].filter(one => one.getClientRects().length && "
        "one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 80))"
    )
    assert outside == []
    shown.picture(tmp_path / "page.png")
    assert png_size(tmp_path / "page.png")[0] == width * (2 if phone else 1)
    background = shown.run("getComputedStyle(document.body).backgroundColor")
    assert (max(int(part) for part in background[4:-1].split(",")) < 64) is dark
    assert shown.run(CONTRAST) == []


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
