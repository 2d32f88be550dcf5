"""The configuration: defaults, and each mistake told with file, key and what was expected."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from helpers import config

from slurm_energy.config import Config, ConfigError, explain, ledger_path, load_config, parse_config, profile_of

ROOT = Path(__file__).parents[2]


def test_everything_has_a_default() -> None:
    assert msgspec.structs.replace(config(), file=Config().file) == Config()
    assert Config().slurm.energy_plugin == "auto"
    assert profile_of(Config()).name == "site"


def test_a_whole_file_is_read() -> None:
    site = config(
        """
        [site]
        timezone = "Europe/Berlin"
        cluster = "alpha"
        [power.partition.gpu]
        gpu = "a100"
        exclusive = true
        [[power.nodes]]
        names = "n[1-4]"
        cpu_core_w = 4
        [[projects]]
        project = "{comment}"
        [account_parents]
        child = "parent"
        [sweeps]
        sources = ["array"]
        """
    )
    assert (site.site.timezone, site.site.cluster) == ("Europe/Berlin", "alpha")
    assert site.power.partition["gpu"].exclusive is True
    assert site.power.nodes[0].cpu_core_w == 4.0
    assert (site.projects[0].project, site.account_parents, site.sweeps.sources) == (
        "{comment}",
        {"child": "parent"},
        ("array",),
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[site]\nlookback_days = 'x'", ("[site] lookback_days = 'x'", "expected `int`, got `str`")),
        ("[site]\ntimezon = 'UTC'", ("[site] timezon: no such key", "did you mean timezone?")),
        ("[sit]\na = 1", ("[top level] sit: no such key", "did you mean site?")),
        ("frobnicate = 1", ("[top level] frobnicate: no such key",)),
        ("file = 'x'", ("[top level] file: no such key",)),
        ("timezone = 'UTC'", ("[top level] timezone: no such key; it belongs in [site]",)),
        (
            "[power.partition.gpu]\nnames = 'n1'",
            ("[power.partition.gpu] names: no such key; it belongs in [[power.nodes]]",),
        ),
        (
            "[slurm]\ncpu_core_w = 4",
            ("[slurm] cpu_core_w: no such key; it belongs in [power.partition.NAME] or [[power.nodes]]",),
        ),
        ("[[power.nodes]]\nnames = 'n1'\ncpus = 4", ("[power.nodes.#1] cpus: no such key",)),
        ("[site]\nlookback_days = -1", ("[site] lookback_days = -1", "expected 0 to 3660")),
        ("[site]\nlookback_days = 99999", ("[site] lookback_days = 99999", "expected 0 to 3660")),
        ("[site]\nfirst_days = 0", ("[site] first_days = 0", "expected at least 1")),
        (
            "[slurm]\nenergy_plugin = 'nvml'",
            ("[slurm] energy_plugin = 'nvml'", "expected one of auto, none, rapl, ipmi"),
        ),
        ("[slurm]\nclusters = 'a'", ("[slurm] clusters = 'a'", "expected `array`, got `str`")),
        (
            "[sweeps]\nsources = ['name']",
            ("[sweeps] sources has 'name'", "expected any of comment, job_name, array, wckey"),
        ),
        ("[sweeps]\njob_name = '('", ("[sweeps] job_name = '('", "not a regular expression")),
        (
            "[[projects]]\nproject = '{job}'",
            ("[[projects]] #1 project = '{job}'", "{account}, {user}, {wckey} or {comment}"),
        ),
        ("[[projects]]\nproject = ''", ("[[projects]] #1 project = ''", "expected a name")),
        ("[[projects]]\nproject = 'a'\n[[projects]]\nuser = 'b'", ("projects", "missing required field `project`")),
        ("[power.partition.gpu]\ncpu_core_w = -1", ("[power] gpu: cpu_core_w = -1", "expected watts, at least 0")),
        ("[power.partition.gpu]\ndram_w_per_gb = inf", ("[power] gpu: dram_w_per_gb = inf", "expected watts")),
        ("[power.partition.gpu]\ncpu_core_w = nan", ("[power] gpu: cpu_core_w = nan", "expected watts")),
        ("[power.partition.gpu]\nexclusive = 'yes'", ("[power.partition.gpu] exclusive = 'yes'", "expected `bool`")),
        (
            "[power.partition.\"gpu.big one\"]\nexclusive = 'yes'",
            ("[power.partition.gpu.big one] exclusive = 'yes'", "expected `bool`"),
        ),
        ("[account_parents]\na = 'b'\nc = 4", ("[account_parents] c = 4", "expected `str`, got `int`")),
        ("[profiles]\ngreen = 4", ("[profiles] green = 4", "expected `object`, got `int`")),
        ("[[power.nodes]]\ncpu_core_w = 4", ("[[power.nodes]] #1", "expected names, such as")),
        ("[[power.nodes]]\nnames = 4", ("names = 4", "expected `str`, got `int`")),
        ("[site\n", ("not TOML",)),
        ("a = 1\na = 2", ("not TOML",)),
    ],
)
def test_a_mistake_is_told_with_file_key_and_expectation(text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text.encode(), "/etc/slurm-energy/config.toml")
    message = str(caught.value)
    assert message.startswith("/etc/slurm-energy/config.toml")
    assert "\n" not in message
    for part in parts:
        assert part in message


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    by_name: dict[str, int] = {}


class Other(msgspec.Struct, forbid_unknown_fields=True):
    """Some other table than the configuration's own."""

    size: int
    limits: Limits = Limits()
    rows: list[Limits] = []


@pytest.mark.parametrize(
    ("table", "place", "line"),
    [
        ({"size": "x"}, "agent", "f, [agent] size = 'x': expected `int`, got `str`"),
        ({"size": 1, "siz": 1}, "agent", "f, [agent] siz: no such key; did you mean size?"),
        ({"size": 1, "by_name": {}}, "a", "f, [a] by_name: no such key; it belongs in [a.limits] or [[a.rows]]"),
        ({"size": 1, "limits": {"by_name": {"a": 1, "b": ""}}}, "a", "f, [a.limits.by_name] b = '': expected"),
        ({"size": 1, "rows": [{}, {"by_name": {"b": ""}}]}, "", "f, [rows.#2.by_name] b = '': expected"),
        ({}, "agent", "f, [agent]: object missing required field `size`"),
        ({}, "", "f, [top level]: object missing required field `size`"),
    ],
)
def test_a_mistake_in_another_table_is_told_alike(table: dict[str, object], place: str, line: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(table, Other)
    assert explain(caught.value, Other, "f", table, place).startswith(line)


def test_bytes_that_are_no_text_are_no_toml() -> None:
    with pytest.raises(ConfigError, match=r"config\.toml: not TOML"):
        parse_config(b"[site]\ncluster = '\xff\xfe'", "config.toml")


def test_a_factor_out_of_range_is_told_with_its_key() -> None:
    with pytest.raises(ConfigError, match=r"\[factors\] pue = 0\.8: expected"):
        profile_of(config("[factors]\npue = 0.8"))


def test_a_profile_of_the_site_s_own_is_laid_over_its_base() -> None:
    text = "[factors]\npue = 1.2\n[profiles.green]\ncarbon_g_per_kwh = 10\n[profiles.paper]\nbase = 'strubell2019'\npue = 1.1"
    green = profile_of(config(text), "green")
    assert (green.name, green.pue, green.carbon_g_per_kwh) == ("green", 1.2, 10)
    paper = profile_of(config(text), "paper")
    assert (paper.name, paper.pue, paper.any_gpu_w) == ("paper", 1.1, 216.961)
    assert profile_of(config(text), "strubell2019").pue == 1.58  # the site's factors do not change the paper's


def test_a_profile_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="no profile 'gren': there are green, site, strubell2019"):
        profile_of(config("[profiles.green]\npue = 1.1"), "gren")
    with pytest.raises(ConfigError, match="no profile 'gren'"):
        profile_of(config("[site]\nprofile = 'gren'"))


def test_the_file_is_the_one_given_else_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text("[site]\ncluster = 'one'")
    other.write_text("[site]\ncluster = 'other'")
    monkeypatch.setenv("SENERGY_CONFIG", str(other))
    assert load_config(one)[0].site.cluster == "one"
    assert (load_config()[0].site.cluster, load_config()[1]) == ("other", other)


def test_a_file_that_was_named_and_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: no such file; check --config or SENERGY_CONFIG"):
        load_config(tmp_path / "gone.toml")
    monkeypatch.setenv("SENERGY_CONFIG", str(tmp_path / "gone.toml"))
    with pytest.raises(ConfigError, match="no such file"):
        load_config()
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)


def test_the_ledger_lies_where_the_nearest_word_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENERGY_LEDGER", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert ledger_path(Config()) == tmp_path / "slurm-energy" / "ledger"
    named = config("[site]\nledger = '/srv/ledger'")
    assert ledger_path(named) == Path("/srv/ledger")
    monkeypatch.setenv("SENERGY_LEDGER", "/data/ledger")
    assert ledger_path(named) == Path("/data/ledger")
    assert ledger_path(named, Path("/given")) == Path("/given")


def test_without_a_word_the_ledger_is_below_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENERGY_LEDGER", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("slurm_energy.config.places.SERVICE_STATE", tmp_path / "var")
    assert ledger_path(Config()) == tmp_path / ".local/state/slurm-energy/ledger"
    (tmp_path / "var" / "ledger").mkdir(parents=True)
    assert ledger_path(Config()) == tmp_path / "var" / "ledger"


def test_reading_a_configuration_loads_no_factors() -> None:
    code = (
        "import sys, slurm_energy.config as c; c.parse_config(b'', 'f');"
        "print([m for m in sys.modules if m.startswith(('slurm_energy.factors', 'slurm_energy.ledger', 'typer', 'csv'))])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_page_has_every_variable_that_the_code_reads_and_no_other() -> None:
    read = set()
    for file in (*ROOT.glob("slurm_energy/**/*.py"), *ROOT.glob("exporters/**/*.py"), *ROOT.glob("deploy/slurm/*.d/*")):
        read |= set(re.findall(r"\bSENERGY_[A-Z_]+", file.read_text()))
    page = (ROOT / "docs/configuration.md").read_text()
    section = page.partition("\n## Environment\n")[2].partition("\n## ")[0]
    assert read >= {"SENERGY_CONFIG", "SENERGY_INBOX", "SENERGY_HOOKS"}
    assert set(re.findall(r"^\| `(SENERGY_[A-Z_]+)` \|", section, re.MULTILINE)) == read
