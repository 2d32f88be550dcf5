"""The command as a person runs it: what it prints, where, and with which exit code."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from helpers import DAY, NOON, row, running, sacct_text, save

import slurm_energy
from slurm_energy import load_profile, open_ledger
from slurm_energy.cli import main
from slurm_energy.ledger.schema import NAMES, SCHEMA
from slurm_energy.ledger.store import Ledger, LedgerError
from slurm_energy.report.formats import printable
from slurm_energy.report.totals import TOTALS

SENERGY = str(Path(sys.executable).with_name("senergy"))
HEAVY = {"pandas", "ibis", "pyarrow", "numpy", "duckdb", "sqlglot", "hostlist", "pydantic"}
Done = subprocess.CompletedProcess


def surroundings(home: Path, **more: str) -> dict[str, str]:
    """The environment of a person of whom nothing is left but the PATH."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SENERGY_", "XDG_", "PYTHON"))}
    return {**kept, "HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "TZ": "UTC", "COLUMNS": "100", **more}


def senergy(home: Path, *arguments: str | Path, give: bytes | None = None, **more: str) -> Done[str]:
    """Runs the command with a home of its own; what it printed is taken as UTF-8."""
    done = subprocess.run(
        [SENERGY, *map(str, arguments)], env=surroundings(home, **more), cwd=home, input=give, capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip
    texts = (done.stdout.decode("utf-8"), done.stderr.decode("utf-8", "backslashreplace"))
    assert "Traceback" not in texts[1], texts[1]
    return Done(done.args, done.returncode, *texts)


def inside(home: Path, *arguments: str | Path, **more: str) -> Done[str]:
    """The same within this process, which is quicker by the time that a start takes."""
    out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(home)
    try:
        with (
            mock.patch.dict(os.environ, surroundings(home, **more), clear=True),
            mock.patch.object(sys, "argv", ["senergy"]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main([str(argument) for argument in arguments])
    finally:
        os.chdir(before)
    return Done(arguments, code, out.getvalue(), err.getvalue())


def quick(home: Path, *arguments: str | Path, **more: Any) -> str:
    """As `fine`, within this process."""
    done = inside(home, *arguments, **more)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def fine(home: Path, *arguments: str | Path, **more: Any) -> str:
    """What a command prints that must succeed and say nothing on stderr."""
    done = senergy(home, *arguments, **more)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def figures(text: str) -> Any:
    return json.loads(text)


@pytest.fixture(scope="module")
def lisa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the demo's log was written and aggregated."""
    home = tmp_path_factory.mktemp("lisa")
    written = senergy(home, "demo", "--write", home / "lisa.txt")
    assert (written.returncode, written.stdout) == (0, "")
    assert "4,789 jobs written" in written.stderr
    fine(home, "aggregate", "--from", home / "lisa.txt", "--profile", "strubell2019")
    return home


@pytest.fixture(scope="module")
def demo_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which nothing but the demo runs."""
    home = tmp_path_factory.mktemp("demo")
    (home / "tmp").mkdir()
    return home


@pytest.fixture(scope="module")
def demo(demo_home: Path) -> dict[str, Any]:
    """The demo's report as JSON."""
    found: dict[str, Any] = figures(fine(demo_home, "demo", "--json", TMPDIR=str(demo_home / "tmp")))
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a ledger of a few jobs: two projects, two users, two clusters, three days."""
    home = tmp_path_factory.mktemp("small")
    rows = [
        row(JobID="1"), row(JobID="2", User="ananya", Start=NOON + DAY), row(JobID="3", Account="nlp", ElapsedRaw=7200),
        row(JobID="4", Cluster="beta", Account="nlp", User="ananya", Start=NOON + 2 * DAY),
    ]  # fmt: skip
    fine(home, "aggregate", "--from", save(home / "jobs.txt", rows))
    return home


# The paper's case study.


def test_the_demo_prints_table_4_to_the_digit(tmp_path: Path) -> None:
    shown = [line.split() for line in fine(tmp_path, "demo").splitlines()]
    assert ["one", "model", "1", "120", "52", "175", "5", "39"] in shown
    assert ["one", "tune", "24", "2,880", "1,238", "4,205", "118", "942"] in shown
    assert ["all", "jobs", "4,789", "239,942", "103,175", "350,315", "9,870", "78,468"] in shown


def test_the_demo_s_json_holds_what_the_paper_prints(demo: dict[str, Any]) -> None:
    rows = [
        [
            round(one[key])
            for key in ("models", "gpu_hours", "cloud_low_usd", "cloud_high_usd", "electricity_usd", "co2e_lb")
        ]
        for one in demo["rnd"]
    ]
    assert rows == [
        [1, 120, 52, 175, 5, 39],
        [24, 2880, 1238, 4205, 118, 942],
        [4789, 239942, 103175, 350315, 9870, 78468],
    ]
    grown = demo["development"]
    assert (grown["jobs"], grown["sweeps"], grown["span_days"]) == (4789, 123, 172.0)
    assert (grown["shortest_s"], grown["longest_s"]) == (180, 9 * DAY)
    assert {model: round(share, 4) for model, share in grown["gpu_models"].items()} == {"TITANX": 0.72, "M40": 0.28}
    assert demo["own_hardware"]["usd"] == 145_000


def test_written_aggregated_and_reported_the_demo_gives_the_same(lisa: Path, demo: dict[str, Any]) -> None:
    found = figures(fine(lisa, "report", "--project", "lisa", "--profile", "strubell2019", "--json"))
    stored = figures(fine(lisa, "report", "--project", "lisa", "--json"))
    for one in (found, stored):
        assert set(one) == set(demo)
        assert [list(part.values()) for part in one["rnd"]] == [list(part.values()) for part in demo["rnd"]]
        for key in ("project", "start", "end", "profile", "provenance", "development", "model", "tune", "jobs"):
            assert one[key] == demo[key], key
        for key in TOTALS:
            assert one[key] == pytest.approx(demo[key], rel=1e-12), key


def test_a_site_s_settings_and_zone_have_no_say_in_the_demo(tmp_path: Path, demo: dict[str, Any]) -> None:
    rules = tmp_path / "config.toml"
    rules.write_text('[[projects]]\nuser = "emma"\nproject = "other"\n[site]\ntimezone = "Asia/Kathmandu"\n')
    found = figures(fine(tmp_path, "demo", "--json", SENERGY_CONFIG=str(rules), TZ="America/New_York"))
    assert [list(one.values()) for one in found["rnd"]] == [list(one.values()) for one in demo["rnd"]]
    assert (found["start"], found["end"]) == (demo["start"], demo["end"])


def test_the_demo_leaves_nothing_behind(demo_home: Path, demo: dict[str, Any]) -> None:
    assert demo["jobs"] == 4789
    assert [path.name for path in demo_home.rglob("*")] == ["tmp"]


def test_the_paper_s_tables_are_checked() -> None:
    done = senergy(Path.cwd(), "paper", "--check")
    assert done.returncode == 0
    assert "Table 3" in done.stdout


@pytest.mark.parametrize("table", [1, 2, 3, 4])
def test_a_table_of_the_paper_has_the_columns_of_its_csv(tmp_path: Path, table: int) -> None:
    data = Path(slurm_energy.__file__).parent / "paper" / "data"
    (source,) = data.glob(f"table{table}_*.csv")
    headings = source.read_text(encoding="utf-8").splitlines()[0].split(",")
    rows = figures(quick(tmp_path, "paper", "--table", str(table), "--json"))
    assert rows
    for one in rows:
        assert [key for key in one if key in headings] == headings
        assert set(one) - set(headings) <= ({"g_co2e_per_kwh_estimated"} if table == 2 else set())


# Version, help, start-up.


def test_the_version_is_said_by_the_command_and_by_the_module(tmp_path: Path) -> None:
    assert fine(tmp_path, "--version") == f"senergy {slurm_energy.__version__}\n"
    done = subprocess.run(
        [sys.executable, "-m", "slurm_energy", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"senergy {slurm_energy.__version__}\n"


def loaded(home: Path, *arguments: str) -> set[str]:
    """The heavy modules that a command has loaded."""
    code = (
        "import sys; from slurm_energy.cli import main; code = main(sys.argv[1:]); "
        f"print('loaded', *({HEAVY!r} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=surroundings(home), capture_output=True, text=True, check=True
    )
    return set(done.stderr.rpartition("loaded")[2].split())


@pytest.mark.parametrize("arguments", [("--help",), ("report", "--help"), ("--version",), ("paper", "--json")])
def test_commands_that_need_no_ledger_load_no_database(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert loaded(tmp_path, *arguments) == set()


@pytest.mark.parametrize("arguments", [("--by", "user"), ("-p", "lisa", "--json"), ("--profile", "strubell2019")])
def test_a_report_loads_duckdb_and_nothing_else_that_is_heavy(small: Path, arguments: tuple[str, ...]) -> None:
    assert loaded(small, "report", *arguments) == {"duckdb"}


# Reports.


def rows_of(home: Path, *arguments: str) -> list[dict[str, Any]]:
    found = figures(quick(home, "report", *arguments, "--json"))
    assert list(found) == ["rows"]
    rows: list[dict[str, Any]] = found["rows"]
    return rows


def test_without_a_word_the_projects_are_reported(small: Path) -> None:
    assert {one["project"]: one["jobs"] for one in rows_of(small)} == {"lisa": 2, "nlp": 2}


def test_rows_have_their_keys_and_the_totals(small: Path) -> None:
    for one in rows_of(small, "--by", "user,month"):
        assert list(one)[: len(TOTALS) + 3] == ["user", "month", *TOTALS, "provenance"]


@pytest.mark.parametrize(
    ("arguments", "days"),
    [
        (("-S", "2026-11-25"), ["2026-11-25", "2026-11-26"]),
        (("--starttime", "2026-11-25T13:00"), ["2026-11-25", "2026-11-26"]),
        (("-E", "2026-11-25"), ["2026-11-24"]),
        (("--endtime", "2026-11-25T00:01"), ["2026-11-24", "2026-11-25"]),
        (("-S", "11/25/26", "-E", "2026-11-26"), ["2026-11-25"]),
        (("-S", f"uts={NOON + DAY}", "-E", f"uts={NOON + DAY + 1}"), ["2026-11-25"]),
    ],
)
def test_days_are_chosen_as_sacct_takes_them(small: Path, arguments: tuple[str, ...], days: list[str]) -> None:
    assert [one["day"] for one in rows_of(small, "--by", "day", *arguments)] == days


@pytest.mark.parametrize(
    ("arguments", "jobs"),
    [
        (("-u", "emma"), 2),
        (("--user", "emma,ananya"), 4),
        (("-u", "emma", "-u", "ananya"), 4),
        (("-A", "nlp"), 2),
        (("--account", "nlp", "--user", "emma"), 1),
        (("-M", "beta"), 1),
        (("--clusters", "alpha,beta"), 4),
        (("-p", "lisa", "-p", "nlp"), 4),
    ],
)
def test_only_what_was_asked_for_counts(small: Path, arguments: tuple[str, ...], jobs: int) -> None:
    assert sum(one["jobs"] for one in rows_of(small, "--by", "cluster", *arguments)) == jobs


def test_sorted_and_cut_the_first_groups_are_left(small: Path) -> None:
    assert [one["project"] for one in rows_of(small, "--sort", "jobs", "--top", "1")] == ["lisa"]
    assert [one["user"] for one in rows_of(small, "--by", "user", "--sort", "user")] == ["ananya", "emma"]
    assert [one["project"] for one in rows_of(small, "--top", "1")] == ["nlp"]


def test_groups_of_a_project_sum_up_to_its_report(lisa: Path, demo: dict[str, Any]) -> None:
    rows = rows_of(lisa, "--by", "user,month,gpu", "--project", "lisa")
    for name in TOTALS:
        if name != "jobs":
            assert sum(one[name] for one in rows) == pytest.approx(demo[name], rel=1e-12), name


def test_all_formats_have_the_same_numbers(small: Path) -> None:
    wanted = rows_of(small, "--by", "user")
    csv, parsable = (fine(small, "report", "--by", "user", form).splitlines() for form in ("--csv", "-P"))
    assert csv[0] == parsable[0].replace("|", ",")
    assert csv[0].startswith("user,jobs,gpu_hours,")
    for one, comma, bar in zip(wanted, csv[1:], parsable[1:], strict=True):
        assert comma.split(",") == bar.split("|")
        assert comma.split(",")[:4] == [one["user"], *(repr(one[key]) for key in TOTALS[:3])]
    table, markdown = (fine(small, "report", "--by", "user", *form) for form in ((), ("--markdown",)))
    for one in wanted:
        cells = [line for line in table.splitlines() if line.strip().startswith(one["user"])]
        assert [cell.strip() for cell in cells[0].split()][:3] == [one["user"], "2", f"{one['gpu_hours']:.2f}"]
        assert f"| {one['user']} | 2 | {one['gpu_hours']:.2f} |" in markdown


def test_a_project_s_line_has_the_same_numbers_as_its_json(small: Path) -> None:
    wanted = figures(quick(small, "report", "-p", "lisa", "--json"))
    header, line = quick(small, "report", "-p", "lisa", "--parsable2").splitlines()
    found = dict(zip(header.split("|"), line.split("|"), strict=True))
    assert found["project"] == "lisa"
    assert (found["start"], found["end"]) == (wanted["start"], wanted["end"])
    assert all(float(found[key]) == wanted[key] for key in TOTALS)
    assert float(found["estimated_share"]) == wanted["provenance"]["estimated"] == 1.0


def test_the_model_and_the_tune_may_be_chosen(lisa: Path) -> None:
    found = figures(quick(lisa, "report", "-p", "lisa", "--json", "--model", "1000_0", "--sweep", "1000"))
    assert (found["model"], found["tune"]) == ("1000_0", "1000")
    sweep = next(one for one in rows_of(lisa, "--by", "sweep", "-p", "lisa") if one["sweep"] == "1000")
    assert found["rnd"][1]["models"] == sweep["jobs"]
    assert found["rnd"][1]["gpu_hours"] == pytest.approx(sweep["gpu_hours"])


def test_under_another_profile_the_energy_stays(lisa: Path, demo: dict[str, Any]) -> None:
    found = figures(quick(lisa, "report", "-p", "lisa", "--json", "--profile", "site"))
    site = load_profile("site")
    assert found["it_kwh"] == pytest.approx(demo["it_kwh"], rel=1e-12)
    assert found["facility_kwh"] == pytest.approx(demo["it_kwh"] * site.pue)
    assert found["profile"] == "site"


def test_by_may_be_given_twice_as_well_as_with_a_comma(small: Path) -> None:
    twice = figures(fine(small, "report", "--by", "project", "--by", "user", "--json"))
    assert twice == figures(fine(small, "report", "--by", "project,user", "--json"))
    assert {"project", "user"} <= set(twice["rows"][0])


def test_a_project_s_span_in_a_window_is_that_of_the_window(lisa: Path) -> None:
    day = figures(fine(lisa, "report", "--project", "lisa", "-S", "2018-03-01", "-E", "2018-03-02", "--json"))
    grown = day["development"]
    assert grown["span_days"] == pytest.approx(1.0)
    assert grown["mean_gpus"] == pytest.approx(day["gpu_hours"] / 24)
    assert day["own_hardware"]["gpus"] == round(grown["mean_gpus"])
    assert (day["start"][:10], day["end"][:10]) == ("2018-03-01", "2018-03-02")


def test_nothing_found_is_said_and_no_error_for_a_script(small: Path) -> None:
    done = inside(small, "report", "--user", "emma", "-M", "beta", "--by", "month", "--json")
    assert (done.returncode, figures(done.stdout)) == (0, {"rows": []})
    assert "no jobs of user 'emma' on beta; the ledger has some from 2026-11-24 to 2026-11-24" in done.stderr
    assert inside(small, "report", "--user", "emma", "-M", "beta").stdout == ""


def test_a_running_job_is_reported(tmp_path: Path) -> None:
    quick(tmp_path, "aggregate", "--from", save(tmp_path / "jobs.txt", [running(ElapsedRaw=600)]))
    assert "1 job was still running" in quick(tmp_path, "report", "-p", "lisa")
    assert figures(quick(tmp_path, "report", "-p", "lisa", "--json"))["running_jobs"] == 1


# What users typed.

HOSTILE = (
    "a|b",
    "\x1b[31mred",
    "\x9b31mred",
    "[bold]x",
    "<script>alert(1)</script>",
    "=cmd()",
    "@SUM(1)",
    "~~x~~",
    "日本",
)
RULES = '[[projects]]\ncomment = "*project=*"\nproject = "{comment}"\n[[projects]]\naccount = "nl\\nnl"\nproject = "two\\nlines"\n'


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a project of each name, and sweeps of the same names."""
    home = tmp_path_factory.mktemp("hostile")
    (home / "config.toml").write_text(RULES, encoding="utf-8")
    rows = [
        row(JobID=str(number * 10 + part), Comment=f"project={name} sweep=Sweep-{name}")
        for number, name in enumerate(HOSTILE, 1)
        for part in range(2)
    ]
    save(home / "jobs.txt", rows)
    quick(home, "aggregate", "--from", home / "jobs.txt", "--config", home / "config.toml")
    return home


def terminal(home: Path, *arguments: str, **more: str) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [SENERGY, *arguments], env=surroundings(home, **more), stdout=theirs, stdin=theirs
    ) as process:
        os.close(theirs)
        found = b""
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:  # the terminal is gone with the command
                break
            if not block:
                break
            found += block
        assert process.wait(60) == 0
    os.close(ours)
    return found.decode("utf-8")


@pytest.mark.parametrize("columns", ["60", "80"])
def test_a_narrow_terminal_gets_every_name_and_number(lisa: Path, columns: str) -> None:
    wide = senergy(lisa, "report", "--by", "user,month").stdout
    cells = {cell for line in wide.splitlines() if "2017" in line for cell in line.split()}
    narrow = terminal(lisa, "report", "--by", "user,month", COLUMNS=columns, TERM="dumb")
    assert {"emma", "ananya", "andrew", "2017-10"} <= cells
    assert cells <= set(narrow.split())


@pytest.mark.parametrize("columns", ["60", "80"])
def test_a_narrow_terminal_gets_the_paper_s_tables_whole(tmp_path: Path, columns: str) -> None:
    wide, narrow = senergy(tmp_path, "paper").stdout, terminal(tmp_path, "paper", COLUMNS=columns, TERM="dumb")
    numbers = [re.findall(r"[\d,.]*\d", text.partition("Inputs")[0]) for text in (wide, narrow)]
    assert sorted(numbers[0]) == sorted(numbers[1])
    assert "\u2026" not in narrow


@pytest.mark.parametrize("form", ["table", "--parsable2", "--json", "--csv", "--markdown"])
def test_a_hostile_name_does_nothing_to_a_terminal(hostile: Path, form: str) -> None:
    options = [] if form == "table" else [form]
    groups = terminal(hostile, "report", "--by", "project,sweep", *options)
    one = terminal(hostile, "report", "--project", "\x1b[31mred", *options)
    for text in (groups, one):
        assert "\x1b[31m" not in text
        assert "\x9b" not in text
        assert "31mred" in text


def test_hostile_names_come_back_from_json(hostile: Path) -> None:
    assert {one["project"] for one in rows_of(hostile)} == set(HOSTILE)
    assert {one["sweep"] for one in rows_of(hostile, "--by", "sweep")} == {f"Sweep-{name}" for name in HOSTILE}


def test_every_hostile_name_is_a_row_of_the_tables(hostile: Path) -> None:
    table, markdown, parsable = (quick(hostile, "report", *form) for form in ((), ("--markdown",), ("-P",)))
    for name in HOSTILE:
        assert any(line.strip().startswith(printable(name)) for line in table.splitlines()), name
    assert "<script>" not in markdown
    assert len([line for line in markdown.splitlines() if line.startswith("|")]) == len(HOSTILE) + 2
    assert {line.count("|") for line in markdown.splitlines() if line.startswith("|")} == {10}
    assert "\na\\|b|2|" in parsable
    assert "\n\\x1b[31mred|2|" in parsable


def test_a_spreadsheet_takes_no_name_for_a_formula(hostile: Path) -> None:
    starts = [line[0] for line in fine(hostile, "report", "--csv").splitlines()]
    assert not {"=", "+", "-", "@"} & set(starts)
    assert starts.count("'") == 2


@pytest.mark.parametrize("name", HOSTILE)
def test_a_project_of_a_hostile_name_can_be_asked_for(hostile: Path, name: str) -> None:
    found = figures(quick(hostile, "report", "--project", name, "--json"))
    assert (found["project"], found["tune"], found["jobs"]) == (name, f"Sweep-{name}", 2)


def test_a_name_that_the_terminal_cannot_show_is_no_reason_to_fail(hostile: Path) -> None:
    assert fine(hostile, "report", "--csv", PYTHONIOENCODING="ascii") == fine(hostile, "report", "--csv")
    assert "\\u65e5\\u672c" in fine(hostile, "report", PYTHONIOENCODING="ascii")


def test_a_name_that_is_no_utf8_is_a_name_that_is_not_there(small: Path) -> None:
    for option in ("--project", "--user", "--account", "--sweep"):
        arguments = ["report", option, os.fsdecode(b"\xff"), *(["-p", "lisa"] if option != "--project" else [])]
        done = senergy(small, *arguments)
        assert done.returncode == 2, option
        assert "no job" in done.stderr


# Wrong usage.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("report", "-p", "nosuch"), ("'nosuch'", "senergy report --by project")),
        (("report", "-p", "lisa", "-p", "nosuch"), ("'nosuch'", "senergy report --by project")),
        (("report", "-p", "nosuch", "--by", "user", "--json"), ("'nosuch'", "senergy report --by project")),
        (("report", "--by", "colour"), ("colour", "project, user, account, month, day, gpu")),
        (("report", "--sort", "watts"), ("watts", "facility_kwh")),
        (("report", "--profile", "nosuch"), ("'nosuch'", "site, strubell2019")),
        (("report", "-S", "someday"), ("'someday'", "2026-11-24", "now-7days")),
        (("report", "-E", "2026-13-01"), ("'2026-13-01'", "-E")),
        (("report", "-S", "2026-11-25", "-E", "2026-11-24"), ("not after",)),
        (("report", "-S", "2030-01-01"), ("2026-11-24", "2026-11-26")),
        (("report", "-M", "gamma"), ("alpha, beta",)),
        (("report", "--nosuch"), ("--nosuch", "senergy report -h")),
        (("report", "--json", "--csv"), ("exclude each other",)),
        (("report", "--top", "0"), ("--top",)),
        (("report", "-p", "lisa", "--top", "3"), ("--by",)),
        (("report", "-p", "lisa", "--sort", "jobs"), ("--by",)),
        (("report", "--model", "1"), ("--project",)),
        (("report", "-p", "lisa", "--by", "user", "--sweep", "x"), ("--project",)),
        (("report", "-p", "lisa", "--model", "99"), ("99", "no such job")),
        (("report", "-p", "lisa", "--model", "first"), ("1234_5",)),
        (("report", "-p", "lisa", "--sweep", "nosuch"), ("nosuch", "--by sweep")),
        (("nosuch",), ("nosuch", "senergy -h")),
        (("paper", "--table", "5"), ("1, 2, 3 or 4",)),
        (("paper", "--json", "-P"), ("exclude each other",)),
        (("aggregate", "--from", "nosuch.txt"), ("nosuch.txt", "sacct or pyslurm")),
        (("aggregate", "--from", "jobs.txt", "--profile", "nosuch"), ("site, strubell2019",)),
        (("aggregate", "--from", "jobs.txt", "--ledger", "jobs.txt"), ("jobs.txt", "--ledger")),
        (("aggregate", "-S", "someday"), ("'someday'",)),
        (("demo", "--write", "nosuch/lisa.txt"), ("nosuch/lisa.txt", "No such file")),
        (("report", "--config", "nosuch.toml"), ("nosuch.toml", "SENERGY_CONFIG")),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_there_is(
    small: Path, arguments: tuple[str, ...], said: tuple[str, ...]
) -> None:
    done = inside(small, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    for part in said:
        assert part in done.stderr


def test_the_command_itself_ends_with_2_too(small: Path) -> None:
    done = senergy(small, "report", "--by", "colour")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("senergy: --by colour: expected one or more of project, user")


def test_a_missing_ledger_is_told_with_the_next_step(tmp_path: Path) -> None:
    done = senergy(tmp_path, "report")
    assert (done.returncode, done.stdout) == (2, "")
    assert "run `senergy aggregate` first" in done.stderr
    assert str(tmp_path / "state" / "slurm-energy" / "ledger") in done.stderr


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        ("[site]\nlookback_days = 'x'", "lookback_days"),
        ("[site]\nlookback = 1", "lookback"),
        ("[site]\nlookback_days = -1", "lookback_days"),
        ("[slurm]\nenergy_plugin = 'warp'", "energy_plugin"),
        ("[[projects]]\nuser = 'emma'", "project"),
        ("[sweeps]\njob_name = '('", "job_name"),
        ("[site", "TOML"),
    ],
)
def test_a_mistake_in_the_configuration_is_told_with_file_and_key(small: Path, toml: str, key: str) -> None:
    (small / "bad.toml").write_text(toml)
    done = inside(small, "report", "--config", "bad.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "bad.toml" in done.stderr
    assert key in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        ("[factors]\npue = 0.5", "pue"),
        ("[site]\ntimezone = 'Mars/Base'", "timezone"),
        ("[site]\nprofile = 'nosuch'", "nosuch"),
        ("[sweeps]\njob_name = '(?=x)'", "job_name"),
        ("[[power.nodes]]\nnames = 'n[1'", "n[1"),
    ],
)
def test_a_mistake_that_shows_when_it_is_used_is_told_with_file_and_key(tmp_path: Path, toml: str, key: str) -> None:
    (tmp_path / "bad.toml").write_text(toml)
    save(tmp_path / "jobs.txt", [row()])
    done = inside(tmp_path, "aggregate", "--from", "jobs.txt", "--config", "bad.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert key in done.stderr
    assert "bad.toml" in done.stderr


# Aggregating.


def test_a_run_says_what_it_did_and_a_second_one_changes_nothing(tmp_path: Path) -> None:
    log = save(tmp_path / "jobs.txt", [row(), row(JobID="8", Start=NOON + DAY)])
    assert quick(tmp_path, "aggregate", "--from", log).startswith("2 allocations from 2026-11-24 to 2026-11-25; 2 days")
    again = figures(quick(tmp_path, "aggregate", "--from", log, "--json"))
    assert (again["records"], again["days_written"], again["days_unchanged"], again["set_aside"]) == (2, 0, 2, 0)
    assert quick(tmp_path, "aggregate", "--from", log, "--quiet") == ""


def test_a_packed_file_and_standard_input_give_the_same_ledger(tmp_path: Path) -> None:
    text = sacct_text([row()]).encode()
    (tmp_path / "jobs.txt.gz").write_bytes(gzip.compress(text))
    quick(tmp_path, "aggregate", "--from", "jobs.txt.gz", "--ledger", "packed")
    fine(tmp_path, "aggregate", "--from", "-", "--ledger", "input", give=text)
    reports = [quick(tmp_path, "report", "-P", "--ledger", ledger) for ledger in ("packed", "input")]
    assert reports[0] == reports[1] != ""


def test_a_file_without_a_header_is_read_by_the_columns_given(tmp_path: Path) -> None:
    columns = ("JobID", "User", "Account", "State", "Start", "ElapsedRaw", "NCPUS", "AllocTRES")
    save(tmp_path / "jobs.txt", [row()], columns=columns, delimiter="%", header=False)
    options = ("--columns", ",".join(columns), "--delimiter", "%", "--cluster", "gamma")
    quick(tmp_path, "aggregate", "--from", "jobs.txt", *options)
    assert [(one["cluster"], one["jobs"]) for one in rows_of(tmp_path, "--by", "cluster")] == [("gamma", 1)]


def test_only_the_days_asked_for_are_aggregated(tmp_path: Path) -> None:
    save(tmp_path / "jobs.txt", [row(JobID=str(day + 1), Start=NOON + day * DAY) for day in range(4)])
    quick(tmp_path, "aggregate", "--from", "jobs.txt", "-S", "2026-11-25", "-E", "2026-11-27")
    assert [one["day"] for one in rows_of(tmp_path, "--by", "day")] == ["2026-11-25", "2026-11-26"]


def test_rows_set_aside_end_with_1_and_are_named_with_file_and_line(tmp_path: Path) -> None:
    rows = [row(), row(JobID="8", State="\x1b[31mODD"), row(JobID="9", ElapsedRaw="x", End="Unknown")]
    save(tmp_path / "jobs.txt", rows)
    done = senergy(tmp_path, "aggregate", "--from", "jobs.txt")
    assert done.returncode == 1
    assert done.stdout.startswith("1 allocations")
    first, second, last, *rest = done.stderr.splitlines()
    assert "jobs.txt, line 3: State" in first
    assert "jobs.txt, line 4: " in second
    assert "2 rows set aside" in last
    assert rest == []
    assert "\x1b" not in done.stderr
    kept = Path(last.rpartition("kept in ")[2]).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["line"] for line in kept] == [3, 4]
    assert inside(tmp_path, "aggregate", "--from", "jobs.txt", "--quiet").stderr == done.stderr


def test_of_many_rows_set_aside_the_first_ten_are_shown(tmp_path: Path) -> None:
    save(tmp_path / "jobs.txt", [row(JobID=str(number), State="ODD") for number in range(1, 15)])
    done = inside(tmp_path, "aggregate", "--from", "jobs.txt", "--json")
    assert (done.returncode, figures(done.stdout)["set_aside"]) == (1, 14)
    assert len(done.stderr.splitlines()) == 11
    assert "14 rows set aside (the first 10 are shown)" in done.stderr


def test_of_two_at_once_the_second_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    save(tmp_path / "jobs.txt", [row()])
    with Ledger(tmp_path / "ledger").writer():
        done = senergy(tmp_path, "aggregate", "--from", "jobs.txt", "--ledger", "ledger")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"process {os.getpid()}" in done.stderr
    assert "run this again" in done.stderr
    fine(tmp_path, "aggregate", "--from", "jobs.txt", "--ledger", "ledger")


def test_interrupted_it_says_so_and_has_written_nothing(tmp_path: Path) -> None:
    command = [SENERGY, "aggregate", "--from", "-", "--ledger", "ledger"]
    with subprocess.Popen(
        command, env=surroundings(tmp_path), cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(sacct_text([row()] * 20_000).encode())  # more than a pipe holds: it is being read
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        process.stdin.close()  # a signal just before a read begins is seen when the read ends
        said = process.stderr.read().decode()
        assert process.wait(60) == 130
    assert said == "senergy: interrupted; nothing is half written, run it again\n"
    assert list((tmp_path / "ledger").rglob("*.parquet")) == []


@pytest.mark.parametrize("variable", ["SENERGY_LEDGER", "SENERGY_CONFIG"])
def test_the_ledger_is_where_the_environment_says(tmp_path: Path, variable: str) -> None:
    save(tmp_path / "jobs.txt", [row()])
    (tmp_path / "c.toml").write_text(f'[site]\nledger = "{tmp_path / "there"}"\n')
    named = {variable: str(tmp_path / ("there" if variable == "SENERGY_LEDGER" else "c.toml"))}
    quick(tmp_path, "aggregate", "--from", "jobs.txt", **named)
    assert list((tmp_path / "there").rglob("2026-11-24.parquet"))
    assert quick(tmp_path, "report", "-P", **named) == quick(tmp_path, "report", "-P", "--ledger", "there") != ""


# What is no usage and no site's matter.


def broken(home: Path, place: str, error: str, *arguments: str) -> Done[str]:
    """Runs the command with a function of ours that raises this."""
    module, name = place.rsplit(".", 1)
    code = (
        f"import sys, {module} as module\n"
        f"def broken(*_, **__): raise {error}\n"
        f"module.{name} = broken\n"
        "from slurm_energy.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=surroundings(home), cwd=home, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


FAULTS = {
    "aggregate": ("slurm_energy.cli.aggregate_run.run", "aggregate", "--quiet"),
    "report": ("slurm_energy.report.selection.open_rows", "report"),
    "sd": ("slurm_energy.slurm.nodes.read_nodes", "sd"),
    "doctor": ("slurm_energy.config.load_config", "doctor"),
    "agent": ("slurm_energy.agent.command.run", "agent", "--node", "n1"),
    "ship": ("slurm_energy.cli.ship.ship_once", "ship", "--once", "--inbox", ".", "--node", "n1", "--cluster", "a"),
}


@pytest.mark.parametrize("name", sorted(FAULTS))
@pytest.mark.parametrize(
    "error", ["KeyError('x')", "ValueError('a \\x1b[31mname')", "RecursionError()", "EOFError('short')"]
)
def test_a_fault_of_the_program_ends_with_70_and_says_where_to_report_it(tmp_path: Path, name: str, error: str) -> None:
    place, *arguments = FAULTS[name]
    done = broken(tmp_path, place, error, *arguments)
    assert done.returncode == 70  # 1 would be success to the nightly unit
    first, *rest = done.stderr.replace("\nAborted!\n", "").splitlines()
    assert first.startswith("senergy: a fault of the program, not of yours")
    for word in ("nothing is half written", "report it", "issues", slurm_energy.__version__):
        assert word in first
    assert rest[0].startswith("Traceback")
    assert rest[-1].startswith(error.partition("(")[0])
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("name", ["aggregate", "ship"])
def test_ctrl_c_ends_with_130_and_no_traceback(tmp_path: Path, name: str) -> None:
    place, *arguments = FAULTS[name]
    done = broken(tmp_path, place, "KeyboardInterrupt()", *arguments)
    assert (done.returncode, done.stderr) == (130, "senergy: interrupted; nothing is half written, run it again\n")


def test_a_module_that_is_not_installed_is_no_fault(tmp_path: Path) -> None:
    place, *arguments = FAULTS["aggregate"]
    done = broken(tmp_path, place, "ModuleNotFoundError('no', name='pyarrow')", *arguments)
    assert done.returncode == 2
    assert "the module pyarrow is not installed" in done.stderr
    done = broken(tmp_path, place, "ModuleNotFoundError('no', name='slurm_energy.x')", *arguments)
    assert done.returncode == 70


def test_a_full_disk_of_the_database_is_no_fault(tmp_path: Path) -> None:
    place, *arguments = FAULTS["aggregate"]
    done = broken(tmp_path, place, "__import__('duckdb').IOException('IO Error: no space left')", *arguments)
    assert (done.returncode, done.stderr) == (2, "senergy: IO Error: no space left\n")


# A day of the ledger that is damaged.

DAMAGE = {
    "nothing": lambda whole: b"",
    "garbage": lambda whole: bytes(range(256)) * 20,
    "cut short": lambda whole: whole[:-300],
    "its end": lambda whole: whole[:-8] + b"\\0\\1\\0\\0PAR1",
    "its rows": lambda whole: whole[:40] + bytes(len(whole[40:400])) + whole[400:],
    "another table": lambda whole: other_table(),
}


def other_table() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": [1, 2]}), buffer)
    return buffer.getvalue()


@pytest.fixture
def damaged(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, bytes]:
    """A ledger of two days, of which the first is damaged; the file, and what was in it."""
    save(tmp_path / "jobs.txt", [row(), row(JobID="8", Start=NOON + DAY)])
    quick(tmp_path, "aggregate", "--from", "jobs.txt", "--ledger", "ledger")
    (file,) = (tmp_path / "ledger").rglob("2026-11-24.parquet")
    whole = file.read_bytes()
    file.write_bytes(DAMAGE[request.param](whole))
    return file, whole


@pytest.mark.parametrize("damaged", DAMAGE, indirect=True)
def test_a_damaged_day_is_named_kept_and_made_anew_as_it_is_said(tmp_path: Path, damaged: tuple[Path, bytes]) -> None:
    file, whole = damaged
    now = file.read_bytes()
    (other,) = (tmp_path / "ledger").rglob("2026-11-25.parquet")
    before = other.read_bytes()
    rest = ("--ledger", "ledger")
    for arguments in (("report",), ("report", "-p", "lisa"), ("aggregate", "--from", "jobs.txt")):
        done = inside(tmp_path, *arguments, *rest)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr.count("\n") == 1
        assert f"{file.relative_to(tmp_path)} is damaged" in done.stderr
        assert "senergy aggregate -S 2026-11-24 -E 2026-11-25" in done.stderr
        assert (file.read_bytes(), other.read_bytes()) == (now, before)
    kept = file.rename(f"{file}.damaged")
    quick(tmp_path, "aggregate", "--from", "jobs.txt", "-S", "2026-11-24", "-E", "2026-11-25", *rest)
    assert (file.read_bytes(), other.read_bytes(), kept.read_bytes()) == (whole, before, now)


@pytest.mark.parametrize("damaged", ["garbage"], indirect=True)
def test_a_damaged_day_is_told_to_python_too(tmp_path: Path, damaged: tuple[Path, bytes]) -> None:
    for read in (open_ledger(tmp_path / "ledger").pandas, open_ledger(tmp_path / "ledger").relation):
        with pytest.raises(LedgerError, match=r"2026-11-24\.parquet is damaged"):
            read()


@pytest.mark.parametrize("name", ["garbage", "its end", "its rows"])
def test_a_damaged_day_of_segments_is_named_and_nothing_leaves_the_inbox(tmp_path: Path, name: str) -> None:
    from test_segments import segment

    jobs, inbox = save(tmp_path / "jobs.txt", [row()]), tmp_path / "inbox"
    inbox.mkdir()
    line = json.dumps(segment(cluster=row()["Cluster"])) + "\n"
    (inbox / "a.jsonl").write_text(line)
    arguments = ("aggregate", "--ledger", "ledger", "--inbox", "inbox", "--from", jobs)
    assert inside(tmp_path, *arguments).returncode == 0
    (file,) = (tmp_path / "ledger/segments").rglob("*.parquet")
    file.write_bytes(now := DAMAGE[name](file.read_bytes()))
    (inbox / "b.jsonl").write_text(line)
    for more in (arguments, ("ledger", "verify", "--ledger", "ledger")):
        done = inside(tmp_path, *more)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{file.relative_to(tmp_path)} is damaged" in done.stderr
        assert "restore it from a backup" in done.stderr
    assert (file.read_bytes(), (inbox / "b.jsonl").read_text()) == (now, line)
    (inbox / "b.jsonl").unlink()
    assert "is damaged" in inside(tmp_path, *arguments).stderr


# Pipes.


@pytest.mark.parametrize(
    "arguments", [("report", "--by", "day"), ("report", "--by", "sweep", "--csv"), ("report", "-p", "lisa", "--json"),
                  ("paper",), ("aggregate", "--from", "lisa.txt", "--ledger", "other"), ("--help",)],
)  # fmt: skip
def test_a_reader_that_has_seen_enough_ends_it_quietly(lisa: Path, arguments: tuple[str, ...]) -> None:
    with subprocess.Popen(
        [SENERGY, *arguments], env=surroundings(lisa), cwd=lisa, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_an_error_and_no_traceback(small: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [SENERGY, "report"], env=surroundings(small), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (2, "senergy: No space left on device\n")


# Which project a job belongs to.

EXPLAINED: Mapping[str, tuple[str, ...]] = {
    "7": (
        "job 7 of user emma on alpha: project lisa",
        "rule 1 (big): does not match",
        "default (the account): matches",
    ),
    "9_1": ("project big", "rule 1 (big): matches: job_name 'big-run' matches 'big-*'", "sweep: 9"),
}


@pytest.mark.parametrize("job", sorted(EXPLAINED))
def test_the_rule_that_a_job_belongs_to_is_explained(tmp_path: Path, job: str) -> None:
    (tmp_path / "c.toml").write_text('[[projects]]\njob_name = "big-*"\nproject = "big"\n')
    save(tmp_path / "jobs.txt", [row(), row(JobID="9_1", JobIDRaw="10", JobName="big-run")])
    text = quick(tmp_path, "project", "explain", job, "--from", "jobs.txt", "--config", "c.toml")
    for part in EXPLAINED[job]:
        assert part in text


def test_the_project_explained_is_the_one_in_the_ledger(hostile: Path) -> None:
    for number, name in enumerate(HOSTILE, 1):
        if number % 3 == 0:
            options = ("--from", "jobs.txt", "--config", "config.toml")
            text = quick(hostile, "project", "explain", f"{number}0", *options)
            assert f"project {printable(name)}\n" in text


@pytest.mark.parametrize("job", ["99", "7_1", "7+1"])
def test_a_job_without_a_record_is_told(tmp_path: Path, job: str) -> None:
    save(tmp_path / "jobs.txt", [row()])
    done = inside(tmp_path, "project", "explain", job, "--from", "jobs.txt")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"no record of job {job} in jobs.txt" in done.stderr


# From Python.


def test_the_ledger_opens_as_arrow_pandas_and_duckdb(small: Path) -> None:
    ledger = open_ledger(small / "state" / "slurm-energy" / "ledger")
    table = ledger.arrow()
    assert table.schema.equals(SCHEMA)
    frame = ledger.pandas()
    assert tuple(frame.columns) == NAMES
    assert len(frame) == table.num_rows == 4
    by_project = frame.groupby("project")["facility_kwh"].sum()
    assert {one["project"]: one["facility_kwh"] for one in rows_of(small)} == pytest.approx(dict(by_project))
    assert ledger.relation(["beta"]).aggregate("count(*)").fetchall() == [(1,)]


def test_the_ledger_opens_where_the_environment_says(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENERGY_LEDGER", str(small / "state" / "slurm-energy" / "ledger"))
    assert len(open_ledger().pandas()) == 4
    with pytest.raises(LedgerError, match="`senergy aggregate` writes them"):
        open_ledger(str(tmp_path)).arrow()


def test_a_name_that_the_package_has_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nosuch"):
        slurm_energy.nosuch  # noqa: B018


def test_segments_whose_record_was_not_read_wait_for_a_run_that_reads_it(tmp_path: Path) -> None:
    from test_segments import segment

    ledger, inbox = tmp_path / "ledger", tmp_path / "inbox"
    mine, other = save(tmp_path / "a.txt", [row()]), save(tmp_path / "b.txt", [row(JobID="9", JobIDRaw="9")])
    senergy(tmp_path, "aggregate", "--ledger", ledger, "--from", mine)
    inbox.mkdir()
    (inbox / "n1.jsonl").write_text(json.dumps(segment(cluster=row()["Cluster"])) + "\n")
    senergy(tmp_path, "aggregate", "--ledger", ledger, "--inbox", inbox, "--from", other)
    assert "2026" in (ledger / "unbooked.json").read_text()
    assert senergy(tmp_path, "ledger", "verify", "--ledger", ledger).returncode == 1
    senergy(tmp_path, "aggregate", "--ledger", ledger, "--from", mine)
    assert not (ledger / "unbooked.json").exists()
    assert senergy(tmp_path, "ledger", "verify", "--ledger", ledger).returncode == 0
