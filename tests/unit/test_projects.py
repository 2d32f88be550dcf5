"""Which project and sweep a job belongs to: the statement for millions, the explanation for one, and that they agree."""

from __future__ import annotations

from fnmatch import fnmatchcase

import duckdb
import pyarrow as pa
import pytest
from helpers import config
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slurm_energy.config import Config, ConfigError, ProjectRule
from slurm_energy.ledger.projects import accounts_below, clean_wckey, explain, project_sql, rules_of, sweep_sql

FIELDS = ("account", "user", "wckey", "job_name", "comment")
PARENTS = {"nlp": "cs", "lisa": "nlp", "vision": "cs", "cs": "root", "phys": "root"}


def job(**values: object) -> dict[str, object]:
    return {
        "account": "lisa",
        "user": "emma",
        "wckey": "",
        "job_name": "train",
        "comment": "",
        "array_job_id": None,
        **values,
    }


def ask(sql: str, jobs: list[dict[str, object]]) -> list[str | None]:
    """The expression for each of these jobs."""
    con = duckdb.connect()
    columns = {name: pa.array([one[name] for one in jobs], pa.string()) for name in FIELDS}
    columns["array_job_id"] = pa.array([one["array_job_id"] for one in jobs], pa.int64())
    con.register("jobs", pa.table({**columns, "n": pa.array(range(len(jobs)), pa.int64())}))
    found = con.execute(f"SELECT {sql} FROM jobs ORDER BY n").fetchall()
    con.close()
    return [name for (name,) in found]


def project(rules: str, one: dict[str, object], parents: dict[str, str] | None = None) -> str | None:
    return ask(project_sql(config(rules), parents or {}), [one])[0]


def test_the_project_is_the_account_unless_a_rule_says_otherwise() -> None:
    assert project("", job()) == "lisa"
    assert project("[[projects]]\nproject = 'x'\nuser = 'ananya'", job()) == "lisa"


def test_the_first_rule_that_matches_wins() -> None:
    rules = "[[projects]]\nproject = 'first'\nuser = 'emma'\n[[projects]]\nproject = 'second'\naccount = 'lisa'"
    assert project(rules, job()) == "first"
    assert project(rules, job(user="x")) == "second"


def test_a_rule_s_conditions_must_all_hold() -> None:
    rules = "[[projects]]\nproject = 'both'\nuser = 'emma'\njob_name = 'tr*'"
    assert [project(rules, job()), project(rules, job(job_name="x")), project(rules, job(user="x"))] == [
        "both",
        "lisa",
        "lisa",
    ]


def test_an_account_rule_holds_for_the_accounts_below() -> None:
    rules = "[[projects]]\nproject = 'computer-science'\naccount = 'cs'"
    found = [project(rules, job(account=name), PARENTS) for name in ("cs", "nlp", "lisa", "vision", "phys", "root")]
    assert found == ["computer-science"] * 4 + ["phys", "root"]


def test_a_tree_of_accounts_that_bites_its_tail_ends() -> None:
    assert accounts_below("a", {"a": "b", "b": "a", "c": "c"}) == {"a", "b"}
    assert accounts_below("c", {"a": "b", "b": "a", "c": "c"}) == {"c"}
    assert accounts_below("nobody", PARENTS) == {"nobody"}


def test_a_name_may_hold_what_the_job_says() -> None:
    rules = "[[projects]]\nproject = '{account}/{user}:{wckey}'\nwckey = 'paper'"
    assert project(rules, job(wckey="paper")) == "lisa/emma:paper"


def test_the_comment_names_the_project_only_where_it_does() -> None:
    rules = "[[projects]]\nproject = 'p-{comment}'"
    for comment, found in [
        ("project=aurora sweep=lr1", "p-aurora"), ("sweep=lr1,project=aurora", "p-aurora"), ("x;project=a;b", "p-a"),
        ("myproject=aurora", "lisa"), ("project= aurora", "lisa"), ("", "lisa"), ("one\nproject=two\nthree", "p-two"),
        ("project=a project=b", "p-a"), ("project=o'hara", "p-o'hara"), ("project=имя", "p-имя"), ("project=a\u00a0b", "p-a\u00a0b"),
    ]:  # fmt: skip
        assert project(rules, job(comment=comment)) == found


def test_a_default_wckey_is_not_one_that_the_user_gave() -> None:
    rules = "[[projects]]\nproject = '{wckey}'"
    assert [project(rules, job(wckey=key)) for key in ("paper", "*paper", "", "*")] == ["paper", "lisa", "lisa", "lisa"]
    assert [clean_wckey(key) for key in ("paper", "*paper", "", "*")] == ["paper", "", "", ""]


def test_a_rule_for_a_wckey_holds_for_it_as_default_too() -> None:
    rules = "[[projects]]\nproject = 'x'\nwckey = 'paper'"
    assert [project(rules, job(wckey=key)) for key in ("paper", "*paper", "papers")] == ["x", "x", "lisa"]


@pytest.mark.parametrize("pattern", [
    "*", "", "tr*n", "t?ain", "[tT]rain", "[!x]rain", "*a*i*", "tr[a-z]in", "TRAIN", "train.", "[", "tr[ain", "[]t]rain",
    "[!]x]rain", "[t-]rain", "[z-a]rain", "[!z-a]rain", "*\n*", "a|b", "^train$", "\\*", "[\\w]rain",
])  # fmt: skip
@pytest.mark.parametrize(
    "name", ["train", "Train", "xrain", "new\nline", "", "tr[ain", "[", "]rain", "-rain", "\\*", "trainé", "tr🙂n"]
)
def test_a_pattern_means_what_a_shell_means(pattern: str, name: str) -> None:
    rule = ProjectRule(project="hit", job_name=pattern)
    expected = fnmatchcase(name, pattern) if pattern else True  # an empty pattern is no condition
    assert (explain(job(job_name=name), (rule,), {})[0].matched) is expected  # type: ignore[arg-type]


WORDS = st.text("ab*?[]!-^\\|.\n'\"{}=,; \té🙂ж\u00a0\u2028\x1c\x85", max_size=8)
TEXTS = st.one_of(
    WORDS,
    st.text(max_size=10),
    st.sampled_from(["lisa", "emma", "paper", "*paper", "project=a", "x project=b\u00a0c", "a\nb"]),
)
PATTERNS = st.one_of(st.text("ab*?[]!-^\\|.\n'é", max_size=8), st.sampled_from(["*", "a*b*", "[!a-c]*", "[z-a]"]))
NAMES = st.sampled_from(["{account}", "{comment}", "{wckey}-{user}", "o'hara", "x{comment}y{account}", "%s", "a;b"])
RULES = st.builds(
    ProjectRule, project=NAMES, account=st.sampled_from(["", "", "cs", "lisa"]), user=st.one_of(st.just(""), WORDS),
    wckey=st.sampled_from(["", "", "paper"]), job_name=PATTERNS, comment=PATTERNS,
)  # fmt: skip
JOBS = st.fixed_dictionaries(dict.fromkeys(FIELDS, TEXTS) | {"array_job_id": st.none()})


@settings(max_examples=100, deadline=None)
@given(st.lists(RULES, max_size=3), st.lists(JOBS, min_size=1, max_size=12))
@example([ProjectRule(project="{comment}")], [job(comment="project=a\u00a0b"), job(comment="\u2003project=a")])
@example([ProjectRule(project="x", job_name="a*b*c")], [job(job_name="aXbYc"), job(job_name="a\nb\nc")])
@example([ProjectRule(project="x", job_name="[z-a]")], [job(job_name="z")])
def test_the_statement_and_the_explanation_agree_on_any_text(
    rules: list[ProjectRule], jobs: list[dict[str, object]]
) -> None:
    site = Config(projects=rules)
    told = [explain(one, rules_of(site), PARENTS)[-1] for one in jobs]  # type: ignore[arg-type]
    assert all(verdict.matched for verdict in told)
    assert ask(project_sql(site, PARENTS), jobs) == [verdict.project for verdict in told]


def test_an_explanation_says_what_held_and_what_did_not() -> None:
    rules = rules_of(
        config(
            "[[projects]]\nproject = 'x'\nuser = 'ananya'\naccount = 'cs'\n[[projects]]\nproject = '{comment}'\njob_name='t*'"
        )
    )
    first, second, third = explain(job(), rules, PARENTS)  # type: ignore[arg-type]
    assert (first.matched, first.why, first.project) == (False, "user 'emma' is not 'ananya'", "")
    assert (second.matched, second.why) == (False, "the comment has no project=NAME")
    assert (third.matched, third.project, third.why) == (
        True,
        "lisa",
        "no other rule matched: the project is the account",
    )
    found = explain(job(comment="project=aurora"), rules, PARENTS)  # type: ignore[arg-type]
    assert [verdict.matched for verdict in found] == [False, True]
    assert "job_name 'train' matches 't*'" in found[-1].why


def sweeps(settings_: str, *jobs: dict[str, object]) -> list[str | None]:
    return ask(sweep_sql(config(settings_)), list(jobs))


def test_a_sweep_is_the_first_source_that_a_job_has() -> None:
    jobs = (
        job(comment="sweep=lr1", array_job_id=12, wckey="paper"), job(array_job_id=12, wckey="paper"), job(wckey="paper"),
        job(wckey="*paper"), job(),
    )  # fmt: skip
    assert sweeps("", *jobs) == ["lr1", "12", "paper", None, None]
    assert sweeps("[sweeps]\nsources = ['wckey', 'array']", *jobs) == ["paper", "paper", "paper", None, None]
    assert sweeps("[sweeps]\nsources = []", *jobs) == [None] * 5


def test_a_job_name_s_pattern_names_a_sweep_by_its_group_or_whole() -> None:
    jobs = (job(job_name="lr-grid-01"), job(job_name="other"), job(job_name="lr-grid-02"))
    assert sweeps("[sweeps]\njob_name = '^(.*)-grid-'", *jobs) == ["lr", None, "lr"]
    assert sweeps("[sweeps]\njob_name = '^lr-grid'", *jobs) == ["lr-grid", None, "lr-grid"]


def test_a_pattern_that_the_engine_cannot_read_is_refused_before_anything_is_read(tmp_path) -> None:
    from helpers import aggregate_file, row, save

    with pytest.raises(
        ConfigError, match=r"\[sweeps\] job_name = 'a\(\?=b\)': expected a regular expression as RE2 takes it"
    ):
        aggregate_file(
            save(tmp_path / "jobs.txt", [row()]), tmp_path / "ledger", settings="[sweeps]\njob_name = 'a(?=b)'"
        )
