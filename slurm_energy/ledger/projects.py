"""Which project a job belongs to, and which sweep: the site's rules as one expression, and told for one job."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from slurm_energy.config import Config, ProjectRule
from slurm_energy.sql import quoted

_IN_COMMENT = r"(?:^|[ \t\n\r\f,;]){key}=([^ \t\n\r\f,;]+)"
r"""`project=NAME` anywhere in a comment; RE2 and Python read it alike, as they would not read \s."""
DEFAULT_RULE = ProjectRule(project="{account}")
_FIELDS = {"account": "account", "user": '"user"', "wckey": "wckey"}


class Verdict(NamedTuple):
    """Whether a rule matched a job, and why or why not."""

    rule: ProjectRule
    matched: bool
    why: str
    project: str


def accounts_below(account: str, parents: Mapping[str, str]) -> set[str]:
    """The account and all whose parents lead to it. parents: child to parent."""
    found = {account}
    for child in parents:
        chain, at = [child], child
        while at in parents and parents[at] not in chain:
            at = parents[at]
            chain.append(at)
        if account in chain:
            found.add(child)
    return found


def clean_wckey(wckey: str) -> str:
    """A WCKey without the asterisk by which Slurm marks a default; '' where the user gave none himself."""
    return "" if wckey.startswith("*") else wckey


def rules_of(config: Config) -> tuple[ProjectRule, ...]:
    """The site's rules, and last the one that always matches."""
    return (*config.projects, DEFAULT_RULE)


def project_sql(config: Config, parents: Mapping[str, str]) -> str:
    """SQL for the project of a record; first match wins."""
    cases = []
    for rule in rules_of(config):
        conditions = _conditions_sql(rule, parents)
        cases.append(f"WHEN {' AND '.join(conditions) or 'true'} THEN {_name_sql(rule.project)}")
    return f"CASE {' '.join(cases)} END"


def _conditions_sql(rule: ProjectRule, parents: Mapping[str, str]) -> list[str]:
    found = []
    if rule.account:
        names = ", ".join(quoted(name) for name in sorted(accounts_below(rule.account, parents)))
        found.append(f"account IN ({names})")
    if rule.user:
        found.append(f'"user" = {quoted(rule.user)}')
    if rule.wckey:
        found.append(f"ltrim(wckey, '*') = {quoted(rule.wckey)}")
    if rule.job_name:
        found.append(f"regexp_full_match(job_name, {quoted(_glob(rule.job_name))})")
    if rule.comment:
        found.append(f"regexp_full_match(comment, {quoted(_glob(rule.comment))})")
    if "{comment}" in rule.project:
        found.append(f"{_comment_sql('project')} <> ''")
    if "{wckey}" in rule.project:
        found.append("wckey <> '' AND wckey NOT LIKE '*%'")
    return found


def _glob(pattern: str) -> str:
    """A shell pattern (*, ?, [abc], [!a-z]) as a regular expression that RE2 and Python read alike.

    That of fnmatch differs from one Python to the next and holds what RE2 has not.
    """
    found, at = "", 0
    while at < len(pattern):
        sign, at = pattern[at], at + 1
        if sign == "*":
            found += ".*"
        elif sign == "?":
            found += "."
        elif sign == "[" and (end := pattern.find("]", at + 1 + (pattern[at : at + 1] == "!"))) > 0:
            found, at = found + _set(pattern[at:end]), end + 1
        else:
            found += re.escape(sign)
    return f"(?s:{found})"


def _set(inside: str) -> str:
    """What stands between the brackets of a shell pattern as a regular expression; a range that is none has nothing."""
    negated, inside = inside[0] == "!", inside.removeprefix("!")
    items = []
    while inside:
        if inside[1:2] == "-" and len(inside) > 2:
            if inside[0] <= inside[2]:
                items.append(f"{re.escape(inside[0])}-{re.escape(inside[2])}")
            inside = inside[3:]
        else:
            items.append(re.escape(inside[0]))
            inside = inside[1:]
    if not items:
        return "." if negated else r"[^\s\S]"
    return f"[{'^' if negated else ''}{''.join(items)}]"


def _comment_sql(key: str) -> str:
    return f"regexp_extract(comment, {quoted(_IN_COMMENT.format(key=key))}, 1)"


def _name_sql(template: str) -> str:
    parts = []
    for text in re.split(r"(\{\w+\})", template):
        if text == "{comment}":
            parts.append(_comment_sql("project"))
        elif text.startswith("{"):
            parts.append(_FIELDS[text[1:-1]])
        elif text:
            parts.append(quoted(text))
    return " || ".join(parts)


def sweep_sql(config: Config) -> str:
    """SQL for the sweep of a record; null for a single job."""
    cases = []
    for source in config.sweeps.sources:
        if source == "comment":
            cases.append(f"nullif({_comment_sql('sweep')}, '')")
        elif source == "job_name" and config.sweeps.job_name:
            group = min(re.compile(config.sweeps.job_name).groups, 1)
            cases.append(f"nullif(regexp_extract(job_name, {quoted(config.sweeps.job_name)}, {group}), '')")
        elif source == "array":
            cases.append("CAST(array_job_id AS VARCHAR)")
        elif source == "wckey":
            cases.append("CASE WHEN wckey NOT LIKE '*%' THEN nullif(wckey, '') END")
    return f"coalesce({', '.join([*cases, 'CAST(NULL AS VARCHAR)'])})"


def explain(job: Mapping[str, str], rules: Sequence[ProjectRule], parents: Mapping[str, str]) -> list[Verdict]:
    """What each rule says of one job (account, user, wckey, job_name, comment), up to the first that matches."""
    verdicts: list[Verdict] = []
    for rule in rules:
        misses: list[str] = []
        hits: list[str] = []

        def test(ok: bool, text: str, hits: list[str] = hits, misses: list[str] = misses) -> None:
            (hits if ok else misses).append(text)

        account, wckey = job["account"], job["wckey"]
        if rule.account:
            below = accounts_below(rule.account, parents)
            test(
                account in below,
                f"account {account!r} is {'' if account in below else 'not '}{rule.account!r} or below it",
            )
        if rule.user:
            test(
                job["user"] == rule.user,
                f"user {job['user']!r} is {'' if job['user'] == rule.user else 'not '}{rule.user!r}",
            )
        if rule.wckey:
            same = wckey.lstrip("*") == rule.wckey
            test(same, f"WCKey {wckey!r} is {'' if same else 'not '}{rule.wckey!r}")
        for key in ("job_name", "comment"):
            pattern = getattr(rule, key)
            if pattern:
                ok = re.fullmatch(_glob(pattern), job[key]) is not None
                test(ok, f"{key} {job[key]!r} {'matches' if ok else 'does not match'} {pattern!r}")
        match = re.search(_IN_COMMENT.format(key="project"), job["comment"])
        if "{comment}" in rule.project:
            test(match is not None, f"the comment {'has' if match else 'has no'} project=NAME")
        if "{wckey}" in rule.project:
            given = clean_wckey(wckey)
            test(bool(given), "the job has a WCKey of its own" if given else "the job has no WCKey of its own")
        if misses:
            verdicts.append(Verdict(rule, False, "; ".join(misses), ""))
            continue
        values = {"account": account, "user": job["user"], "wckey": wckey, "comment": match[1] if match else ""}
        name = re.sub(r"\{(\w+)\}", lambda found, values=values: values[found[1]], rule.project)  # type: ignore[misc]
        verdicts.append(
            Verdict(rule, True, "; ".join(hits) or "no other rule matched: the project is the account", name)
        )
        break
    return verdicts
