"""What the pages say is so: columns, settings, commands and options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
import typer

import slurm_energy.config
from slurm_energy.agent.options import AgentOptions, command_line
from slurm_energy.cli.app import app
from slurm_energy.cli.ship import _parser
from slurm_energy.config import Config, parse_config, profile_of
from slurm_energy.factors import layers
from slurm_energy.factors.layers import load_profile, profile_names
from slurm_energy.ledger.rating import Rater
from slurm_energy.ledger.schema import COLUMNS
from slurm_energy.report.groups import KEYS
from slurm_energy.segment import DOMAINS, KEY, GpuUse, Segment
from slurm_energy.sources.base import DRAM, GPU, NODE, PACKAGE
from slurm_energy.sources.options import Options

ROOT = Path(slurm_energy.__file__).parent.parent
PAGES = {str(path.relative_to(ROOT)): path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
EVERYTHING = "\n".join(TEXTS.values())
CONFIGURATION = TEXTS["docs/configuration.md"]

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the pages are not installed with the package")


# Commands.


def commands(group: Any = None, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its whole name."""
    here = group if group is not None else typer.main.get_command(app)
    for one, command in here.commands.items():
        if command.hidden:
            continue
        whole = f"{name} {one}".strip()
        if hasattr(command, "commands"):
            yield from commands(command, whole)
        else:
            yield whole, command


COMMANDS = dict(commands())


def command_lines() -> list[tuple[str, str]]:
    """Each `senergy ...` that a page writes in a block or between backticks, with its page."""
    found = []
    for page, text in TEXTS.items():
        blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
        inline = re.findall(
            r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
        )
        for line in [*(line for block in blocks for line in block.splitlines()), *inline]:
            line = line.partition("   #")[0]
            match = re.search(r"(?:^|[\s/])senergy ((?:-|[a-z]).*)", line)
            if match and not line.lstrip().startswith(("{", "usage:")):
                words = match[1].split("'")[0] if line.lstrip().startswith("echo '") else match[1]
                found.append((page, words.strip().rstrip(".;")))
    return sorted(set(found))


def taken(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words begin with, and the rest of them."""
    for length in (2, 1):
        if " ".join(words[:length]) in COMMANDS:
            return COMMANDS[" ".join(words[:length])], words[length:]
    return None, words


def test_there_are_command_lines_in_the_pages() -> None:
    assert len(command_lines()) >= 10
    assert {page for page, _ in command_lines()} >= {"README.md", "docs/install.md"}


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_a_command_line_in_a_page_is_one_that_the_command_takes(page: str, line: str) -> None:
    words = shlex.split(line)
    command, rest = taken(words)
    if command is None:  # a group, or an option of the whole: `senergy --version`, `senergy project`
        groups = typer.main.get_command(app).commands  # type: ignore[attr-defined]
        options = [option for one in typer.main.get_command(app).params for option in one.opts]
        assert words[0] in (*groups, *options), f"{page}: senergy {line}"
        return
    if not rest:
        return  # the name of the command alone, in a sentence
    last = next((one for one in command.params if rest[-1] in one.opts), None)
    value = (
        ["1"] if last is not None and not getattr(last, "is_flag", False) else []
    )  # `report --project` in a sentence
    command.make_context(line, [*rest, *value]).close()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_is_in_the_pages(name: str) -> None:
    assert re.search(rf"senergy {re.escape(name)}\b", EVERYTHING)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_and_each_of_its_options_say_what_they_do(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    for parameter in command.params:
        if parameter.name != "help":
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


OPTIONS = {option for command in COMMANDS.values() for one in command.params for option in one.opts}
OPTIONS |= {option for parser in (command_line(), _parser()) for option in parser._option_string_actions}
FOREIGN = {"--parsable2", "--system", "--home-dir", "--create-home", "--shell"}
"""Options of other programs' that the pages write."""


def test_an_option_that_a_page_names_alone_is_there() -> None:
    named = {match for text in TEXTS.values() for match in re.findall(r"`(--[a-z][a-z0-9-]*)(?=[ `=])", text)}
    assert named - FOREIGN <= OPTIONS | {"--version", "--help"}


def test_each_key_of_by_is_in_the_help() -> None:
    text = next(one.help for one in COMMANDS["report"].params if "--by" in one.opts)
    assert set(re.findall(r"\w+", text.partition("by ")[2])) == set(KEYS)


# The ledger.


def test_the_columns_of_the_ledger_are_those_of_the_page() -> None:
    table = TEXTS["docs/schema.md"].partition("## Columns")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| (.+) \|$", table, re.MULTILINE)
    assert rows == [(column.name, str(column.type), column.what) for column in COLUMNS]


TYPES = {
    int: "integer", str: "string", float: "number", bool: "boolean", dict[str, int]: "object of integers",
    list[str]: "array of strings", tuple[str, ...]: "array of strings", str | None: "string or null",
    list[GpuUse]: "array of objects",
}  # fmt: skip
UNITS = {"_s": "s", "_ns": "ns", "uj": "µJ", "gpus": "µJ", "session_start": "s since 1970"} | dict.fromkeys(
    ("start", "end"), "ns since 1970"
)


def segment_rows() -> dict[str, tuple[str, str, str]]:
    table = TEXTS["docs/schema.md"].partition("## Segments")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]*)\| (.+) \|$", table, re.MULTILINE)
    return {name: (kind, unit.strip(), what) for name, kind, unit, what in rows}


def test_the_fields_of_a_segment_are_those_of_the_page() -> None:
    fields = msgspec.structs.fields(Segment)
    assert list(segment_rows()) == [field.name for field in fields]
    for field in fields:
        kind, unit, what = segment_rows()[field.name]
        assert kind == TYPES[field.type], field.name
        ending = field.name if field.name in UNITS else field.name[field.name.rfind("_") :]
        assert unit == UNITS.get(ending, ""), field.name
        assert field.required is ("; without it: " not in what), field.name


def test_the_values_of_a_segment_s_fields_are_those_of_the_page() -> None:
    rows = {name: what for name, (_, _, what) in segment_rows().items()}
    source = "\n".join(path.read_text() for path in (ROOT / "slurm_energy/agent").glob("*.py"))
    reasons = {a or b for a, b in re.findall(r'close\(live, "([\w ]+)"\)|closed="([\w ]+)"', source)}
    assert reasons >= {"epilog", "orphan", "reboot", "taken out"}
    said = {
        "closed": reasons, "origin": set(re.findall(r'origin ?= ?"(\w+)"', source)), "uj": set(DOMAINS),
        "gpus": set(GpuUse.__struct_fields__), "measured": {PACKAGE, DRAM, GPU, NODE},
    }  # fmt: skip
    assert said["origin"] == {"hook", "discovered", "idle"}
    for name, values in said.items():
        assert {value for value in values if f"`{value}`" in rows[name]} == values, name
    page = TEXTS["docs/schema.md"].partition("## Segments")[2].partition("\n| field")[0]
    assert {name for name in KEY if f"`{name}`" in page} == set(KEY)


def test_the_files_of_the_ledger_are_said_alike_in_the_page_and_in_the_code() -> None:
    import slurm_energy.ledger.store as store

    page = TEXTS["docs/schema.md"]
    names = re.findall(r"^(?:  )?([\w.=/-]+)  +", store.__doc__ or "", re.MULTILINE)
    assert len(names) >= 4
    for name in names:
        assert name in page, name


# The configuration.


def blocks() -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```", CONFIGURATION, re.DOTALL | re.MULTILINE)


def test_the_settings_of_the_page_are_taken() -> None:
    for number, block in enumerate(blocks()):
        config = parse_config(block.encode(), f"block {number}")
        for name in (None, *config.profiles):
            Rater(profile_of(config, name), config.power)
    assert blocks()


def test_the_page_sets_what_it_says(tmp_path: Path) -> None:
    config = parse_config(blocks()[0].encode(), "page")
    assert profile_of(config).pue == 1.21
    assert profile_of(config, "green").carbon_g_per_kwh == 20.0


def structs(kind: Any, seen: set[type] | None = None) -> set[type[msgspec.Struct]]:
    """Config and every struct within it."""
    seen = seen if seen is not None else set()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind not in seen:
            seen.add(kind)
            for one in get_type_hints(kind).values():
                structs(one, seen)
    else:
        for one in get_args(kind):
            structs(one, seen)
    return seen


FIELDS = sorted({(struct.__name__, field) for struct in structs(Config) for field in struct.__struct_fields__})


def test_all_structs_of_the_configuration_are_looked_at() -> None:
    assert {struct for struct, _ in FIELDS} >= {"Config", "Site", "Hardware", "Power", "Slurm", "ProjectRule", "Sweeps"}


@pytest.mark.parametrize(("struct", "field"), FIELDS)
def test_each_setting_is_in_the_page(struct: str, field: str) -> None:
    assert re.search(rf"\b{re.escape(field)}\b", CONFIGURATION), f"{struct}.{field}"


def agent_block() -> str:
    """The page's own block of the agent, without which a key of the same name elsewhere would do."""
    (block,) = [block for block in blocks() if "[agent]" in block]
    return block


AGENT = msgspec.toml.decode(agent_block())["agent"]


@pytest.mark.parametrize(
    ("struct", "table"), [(AgentOptions, AGENT), (Options, AGENT["sources"])], ids=["agent", "agent.sources"]
)
def test_the_agent_s_settings_are_all_in_its_block_of_the_page_and_no_others(
    struct: type[msgspec.Struct], table: dict[str, Any]
) -> None:
    assert sorted(table) == sorted(struct.__struct_fields__)
    msgspec.convert(table, struct, str_keys=True)


def test_the_agent_s_defaults_in_the_page_are_those_of_the_code() -> None:
    found = {}
    for entry in re.split(r"\n(?=\w+ =|\[)", agent_block()):
        key, _, rest = entry.partition(" = ")
        if rest and "default:" not in rest:
            found[key] = {**AGENT, **AGENT["sources"]}[key]
    assert len(found) >= 18
    for key, value in found.items():
        defaults = AgentOptions() if key in AGENT else AgentOptions().sources
        assert value == getattr(defaults, key), key


@pytest.mark.parametrize("key", layers.KEYS)
def test_each_factor_is_in_the_page(key: str) -> None:
    assert re.search(rf"\b{re.escape(key)}\b", CONFIGURATION)


@pytest.mark.parametrize("choice", [*slurm_energy.config.ENERGY_PLUGINS, *slurm_energy.config.SWEEP_SOURCES])
def test_each_value_that_a_setting_may_have_is_in_the_page(choice: str) -> None:
    assert re.search(rf"\b{re.escape(choice)}\b", CONFIGURATION)


def test_the_defaults_of_the_page_are_those_of_the_code() -> None:
    site = msgspec.toml.decode(blocks()[0])["site"]
    for key in ("cluster", "profile", "lookback_days", "first_days"):
        assert site[key] == getattr(Config().site, key), key
    assert tuple(msgspec.toml.decode(blocks()[0])["sweeps"]["sources"]) == Config().sweeps.sources


def test_the_packaged_profiles_are_in_the_pages() -> None:
    for name in profile_names():
        assert f"`{name}`" in EVERYTHING


def test_the_choice_of_model_and_tune_is_in_the_page() -> None:
    section = CONFIGURATION.partition("## Which job is the model")[2].partition("\n## ")[0]
    for word in ("--sweep", "--model", "ended last", "completed", "GPU-hours", "no tune"):
        assert word in section


# The README.


def test_the_report_in_the_readme_is_what_the_demo_prints() -> None:
    golden = (ROOT / "tests" / "golden" / "demo.txt").read_text(encoding="utf-8").splitlines()
    printed = [line.strip() for line in golden]
    shown = re.findall(r"```\n(Project lisa.*?)```", TEXTS["README.md"], re.DOTALL)
    assert shown
    for line in shown[0].splitlines():
        if line.strip(" ─"):  # the rules are as wide as the longest line, and the README leaves lines out
            assert line.strip() in printed, line


def test_links_between_the_pages_lead_somewhere() -> None:
    for name, path in PAGES.items():
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", TEXTS[name]):
            assert (path.parent / target).exists(), f"{name}: {target}"


def test_the_figures_of_the_paper_s_profile_are_in_the_equations() -> None:
    paper = load_profile("strubell2019")
    for figure in (paper.pue, paper.any_gpu_w, paper.electricity_usd_per_kwh, 0.954):
        assert str(figure) in TEXTS["docs/equations.md"]
