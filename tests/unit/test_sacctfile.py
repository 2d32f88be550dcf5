"""Saved sacct output as files get: any order of columns, joined, compressed, cut off, broken."""

from __future__ import annotations

import gzip
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import COLUMNS, FIXTURES, NOON, VERSIONS, Parsed, parse, row, running, sacct_text, save

from slurm_energy.slurm.errors import SourceError
from slurm_energy.slurm.sacctfile import scan

PLAIN = sacct_text([row()])


def key(parsed: Parsed) -> list[tuple[Any, ...]]:
    """What matters of the records."""
    return [tuple(record.items()) for record in parsed.records]


@pytest.mark.parametrize("version", VERSIONS)
def test_real_output_is_read_whole(version: str) -> None:
    parsed = parse(FIXTURES / version / "sacct-X-P.txt")
    assert parsed.set_aside == []
    assert parsed.counts[:3] == (30, 3, 0)
    names = {record["job_id"]: record["job_name"] for record in parsed.records}
    assert names[5] == "pipe|name `double` 'single'"
    assert names[6] == "new\nline"
    assert names[7] == "имя 模型 नाम é🙂"
    assert names[8] == "bad??utf"
    assert names[9] == "carriage\rtab\there"
    comments = {record["job_id"]: record["comment"] for record in parsed.records}
    assert comments[11] == "project=aurora sweep=lr1"
    assert comments[12] == "a|b\nc"


@pytest.mark.parametrize("version", VERSIONS)
def test_steps_change_nothing(version: str) -> None:
    with_steps = parse(FIXTURES / version / "sacct-steps.txt")
    assert with_steps.set_aside == []
    assert [(r["job_id"], r["start"], r["cpus"], r["job_name"]) for r in with_steps.records] == [
        (r["job_id"], r["start"], r["cpus"], r["job_name"]) for r in parse(FIXTURES / version / "sacct-X-P.txt").records
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_epoch_seconds_and_the_wall_clock_say_the_same(version: str) -> None:
    wall = parse(FIXTURES / version / "sacct-X-P.txt").records
    epoch = parse(FIXTURES / version / "sacct-epoch.txt", "Asia/Kolkata").records
    ended = [(r["job_id"], r["submit"], r["start"], r["end"], r["elapsed_s"]) for r in wall if r["end"]]
    assert len(ended) == 29
    assert [(r["job_id"], r["submit"], r["start"], r["end"], r["elapsed_s"]) for r in epoch if r["end"]] == ended


def test_columns_may_stand_in_any_order_and_unknown_ones_between_them() -> None:
    mixed = ("Reserved", *reversed(COLUMNS), "AveCPUFreq")
    assert key(parse(sacct_text([{**row(), "Reserved": "x"}], mixed))) == key(parse(PLAIN))


def test_a_header_in_another_case_is_understood() -> None:
    assert key(parse(PLAIN.replace("JobName", "JOBNAME").replace("AllocTRES", "alloctres"))) == key(parse(PLAIN))


@pytest.mark.parametrize("elapsed", ["01:00:00", "3600"])
def test_elapsed_stands_in_for_elapsedraw(elapsed: str) -> None:
    names = tuple("Elapsed" if name == "ElapsedRaw" else name for name in COLUMNS)
    assert key(parse(sacct_text([{**row(), "Elapsed": elapsed}], names))) == key(parse(PLAIN))


def test_elapsed_of_days_is_understood() -> None:
    names = tuple("Elapsed" if name == "ElapsedRaw" else name for name in COLUMNS)
    text = sacct_text([{**running(), "Elapsed": "2-03:04:05"}], names)
    assert parse(text).only["elapsed_s"] == 2 * 86400 + 3 * 3600 + 4 * 60 + 5


def test_alloccpus_and_allocnodes_stand_in_for_ncpus_and_nnodes() -> None:
    text = PLAIN.replace("NCPUS", "AllocCPUS").replace("NNodes", "AllocNodes")
    assert key(parse(text)) == key(parse(PLAIN))


@pytest.mark.parametrize(
    "optional", ["QOS", "WCKey", "NodeList", "ConsumedEnergyRaw", "Comment", "Suspended", "JobIDRaw", "NCPUS"]
)
def test_an_optional_column_may_be_missing(optional: str) -> None:
    found = parse(sacct_text([row()], [name for name in COLUMNS if name != optional])).only
    assert (found["job_id"], found["elapsed_s"], found["cpus"], found["nodes"]) == (7, 3600, 4, 1)


@pytest.mark.parametrize("necessary", ["Account", "State", "Start", "AllocTRES"])
def test_a_necessary_column_that_is_missing_is_named(necessary: str, tmp_path: Path) -> None:
    path = save(tmp_path / "old.txt", [row()], columns=[name for name in COLUMNS if name != necessary])
    with pytest.raises(SourceError, match=rf"old\.txt, line 1: no column {necessary}; ask sacct for it with -o"):
        scan(path, tmp_path)


def test_of_each_group_one_column_is_enough_and_none_is_named_with_all(tmp_path: Path) -> None:
    path = save(tmp_path / "old.txt", [row()], columns=[n for n in COLUMNS if n not in ("JobID", "JobIDRaw", "Start")])
    with pytest.raises(SourceError, match="no column JobID or JobIDRaw and no column Start"):
        scan(path, tmp_path)
    path = save(tmp_path / "old.txt", [row()], columns=[n for n in COLUMNS if n not in ("ElapsedRaw", "End")])
    with pytest.raises(SourceError, match="no column ElapsedRaw or Elapsed or End"):
        scan(path, tmp_path)


def test_a_file_without_a_header_is_read_with_columns_given() -> None:
    text = sacct_text([row(), row(JobID=8)], header=False)
    assert [record["job_id"] for record in parse(text, columns=COLUMNS).records] == [7, 8]


def test_columns_given_do_not_make_a_job_of_a_header() -> None:
    assert key(parse(PLAIN, columns=COLUMNS)) == key(parse(PLAIN))


def test_a_file_without_a_header_and_without_columns_says_what_to_do(tmp_path: Path) -> None:
    path = save(tmp_path / "bare.txt", [row()], header=False)
    with pytest.raises(SourceError, match=r"bare\.txt: no header line; name the columns in their order:  --columns"):
        scan(path, tmp_path)


@pytest.mark.parametrize("mark", ["|", "\t", "\x1f", ";", "^", "!"])
def test_the_delimiter_is_found(mark: str) -> None:
    assert key(parse(sacct_text([row()], delimiter=mark))) == key(parse(PLAIN))


def test_an_unusual_delimiter_can_be_named() -> None:
    assert key(parse(sacct_text([row()], delimiter="~~"), delimiter="~~")) == key(parse(PLAIN))


def test_commas_do_when_the_columns_hold_none() -> None:
    assert key(parse(sacct_text([row(AllocTRES="cpu=4")], delimiter=","))) == key(parse([row(AllocTRES="cpu=4")]))


def test_a_job_name_is_kept_as_the_user_typed_it() -> None:
    names = [
        "a|b", "|", "||||", 'say "hi"', "it's", "new\nline", "\n", "a\n|b\nc|", "carriage\rreturn", "tab\there", "имя 模型 नाम é🙂",
        "`$(reboot)`", "<script>", "' OR 1=1 --", "a\\", "\x1b[31m", "JobID", "#", "a,b;c"
    ]  # fmt: skip
    rows = [row(JobID=2 * number, JobName=name) for number, name in enumerate(names)]
    rows += [row(JobID=2 * number + 1, JobName=name, Comment="a|b") for number, name in enumerate(names)]
    parsed = parse([*rows[::2], *rows[1::2]])
    assert parsed.set_aside == []
    assert [record["job_name"] for record in parsed.records] == [name for name in names for _ in range(2)]
    assert {record["gpu_key"] for record in parsed.records} == {"gres/gpu:a100=1,gres/gpu=1"}


def test_bytes_that_are_no_utf8_are_shown_as_such_and_cost_no_job() -> None:
    data = sacct_text([row(JobName="bad-XX-name"), row(JobID=8)]).encode().replace(b"XX", b"\xff\xfe")
    parsed = parse(data)
    assert parsed.set_aside == []
    assert [record["job_name"] for record in parsed.records] == ["bad-\\xff\\xfe-name", "train"]


def test_a_comment_of_several_lines_at_the_end_of_a_row_stays_with_it() -> None:
    parsed = parse([row(JobID=6), row(JobID=7, Comment="one\ntwo|2\nthree"), row(JobID=8)])
    assert parsed.set_aside == []
    assert [record["comment"] for record in parsed.records] == ["", "one\ntwo|2\nthree", ""]


def test_gzip_is_read_without_asking() -> None:
    assert key(parse(gzip.compress(PLAIN.encode()))) == key(parse(PLAIN))


def test_two_compressed_files_one_after_the_other_are_one() -> None:
    data = gzip.compress(PLAIN.encode()) + gzip.compress(sacct_text([row(JobID=8)]).encode())
    assert [record["job_id"] for record in parse(data).records] == [7, 8]


def test_a_compressed_file_that_was_cut_off_gives_what_is_there_and_says_so() -> None:
    rows = [row(JobID=number, JobName=f"job-{number * 7919 % 1013}") for number in range(1, 2001)]
    data = gzip.compress(sacct_text(rows).encode())
    parsed = parse(data[: len(data) * 3 // 4])
    jobs = [record["job_id"] for record in parsed.records]
    assert 500 < len(jobs) < 2000
    assert jobs == list(range(1, len(jobs) + 1))
    cut = parsed.set_aside[-1]
    assert "the compressed stream ends early" in cut.reason
    assert cut.line is not None
    assert cut.line >= len(jobs) + 2


def test_what_only_looks_like_gzip_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "jobs.gz", b"\x1f\x8bnot really")
    with pytest.raises(SourceError, match=r"jobs\.gz: not a readable gzip file"):
        scan(path, tmp_path)


@pytest.mark.parametrize("cut", [5, 60, 100])
def test_a_last_line_that_was_cut_off_is_set_aside_with_its_place(cut: int) -> None:
    lines = sacct_text([row(), row(JobID=8)]).splitlines()
    text = "\n".join([*lines[:2], lines[2][:-cut]])
    parsed = parse(text)
    assert [record["job_id"] for record in parsed.records] == [7]
    (aside,) = parsed.set_aside
    assert (aside.line, aside.text) == (3, lines[2][:-cut])
    assert f"fields where the header has {len(COLUMNS)}" in aside.reason


@pytest.mark.parametrize("begun", ["8", "8|", "8|8"])
def test_a_line_that_had_only_begun_is_no_text_of_the_row_before(begun: str) -> None:
    parsed = parse(PLAIN + begun)
    assert parsed.records[0]["comment"] == ""
    assert [(aside.line, aside.text) for aside in parsed.set_aside] == [(3, begun)]


def test_a_last_line_without_a_newline_counts() -> None:
    assert key(parse(PLAIN.rstrip("\n"))) == key(parse(PLAIN))


def test_a_byte_order_mark_is_no_part_of_the_first_column() -> None:
    assert key(parse(b"\xef\xbb\xbf" + PLAIN.encode())) == key(parse(PLAIN))
    assert key(parse(b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode())) == key(parse(PLAIN))
    bare = sacct_text([row()], header=False).encode()
    assert key(parse(b"\xef\xbb\xbf" + bare, columns=COLUMNS)) == key(parse(PLAIN))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf16_is_refused_with_the_command_that_helps(encoding: str, tmp_path: Path) -> None:
    mark = b"" if encoding == "utf-16" else b"\xfe\xff"
    path = save(tmp_path / "jobs.txt", mark + PLAIN.encode(encoding))
    with pytest.raises(SourceError, match="UTF-16 text; convert it first:  iconv"):
        scan(path, tmp_path)


def test_lines_that_end_as_on_windows_are_read() -> None:
    rows = [row(), row(JobID=8, JobName="a|b"), row(JobID=9, Comment="last")]
    parsed = parse(sacct_text(rows).replace("\n", "\r\n"))
    assert key(parsed) == key(parse(rows))
    assert parsed.set_aside == []


def test_empty_lines_are_nothing() -> None:
    assert key(parse(PLAIN.replace("\n", "\n\n") + "\n\n")) == key(parse(PLAIN))


def test_a_header_alone_is_no_job() -> None:
    parsed = parse(sacct_text([]))
    assert (parsed.records, parsed.set_aside) == ([], [])


def test_two_dumps_with_the_same_header_are_one_file() -> None:
    parsed = parse(PLAIN + sacct_text([row(JobID=8)]))
    assert [record["job_id"] for record in parsed.records] == [7, 8]
    assert parsed.set_aside == []


def test_two_dumps_with_different_headers_are_each_read_by_their_own() -> None:
    other = ("State", "End", "Start", "AllocTRES", "Account", "User", "JobID", "Cluster", "Elapsed", "JobName")
    second = sacct_text(
        [
            {**row(JobID=8, JobName="x|y", User="ananya"), "Elapsed": "01:00:00"},
            {**row(JobID=9), "Elapsed": "01:00:00"},
        ],
        other,
    )
    parsed = parse(sacct_text([row(JobName="a|b")]) + second + PLAIN.replace("\n7|7|", "\n10|10|"))
    assert parsed.set_aside == []
    found = [(r["job_id"], r["user"], r["job_name"], r["start"], r["elapsed_s"]) for r in parsed.records]
    assert found == [
        (7, "emma", "a|b", NOON, 3600), (8, "ananya", "x|y", NOON, 3600), (9, "emma", "train", NOON, 3600),
        (10, "emma", "train", NOON, 3600),
    ]  # fmt: skip


def test_a_joined_dump_without_a_necessary_column_is_named_with_its_line(tmp_path: Path) -> None:
    path = save(tmp_path / "two.txt", PLAIN + sacct_text([row()], [name for name in COLUMNS if name != "Account"]))
    with pytest.raises(SourceError, match=r"two\.txt, line 3: no column Account"):
        scan(path, tmp_path)


def test_two_files_in_one_working_folder_do_not_overwrite_each_other(tmp_path: Path) -> None:
    first = scan(save(tmp_path / "a.txt", PLAIN.replace("\n", "\r\n")), tmp_path)
    scan(save(tmp_path / "b.txt", sacct_text([row(JobID=8)]).replace("\n", "\r\n")), tmp_path)
    assert first.tables[0].path.read_text().startswith("7|7|")


def test_the_tail_of_a_row_is_no_text_of_the_row_before() -> None:
    tail = sacct_text([row(JobID=8)], header=False)[9:]
    parsed = parse(PLAIN + tail + sacct_text([row(JobID=9)], header=False))
    assert [(record["job_id"], record["comment"]) for record in parsed.records] == [(7, ""), (9, "")]
    assert [(aside.line, aside.text) for aside in parsed.set_aside] == [(3, tail.rstrip("\n"))]


def test_a_row_of_too_many_fields_that_make_no_sense_is_set_aside() -> None:
    parsed = parse(PLAIN + "8|8" + "|x" * 30 + "\n" + sacct_text([row(JobID=9)], header=False))
    assert [record["job_id"] for record in parsed.records] == [7, 9]
    assert [(aside.line, aside.reason) for aside in parsed.set_aside] == [
        (3, f"32 fields where the header has {len(COLUMNS)}")
    ]


def test_a_file_that_turns_into_something_else_is_set_aside_in_no_time() -> None:
    columns = [name for name in COLUMNS if name != "Comment"]
    began = time.process_time()
    parsed = parse(sacct_text([row()], columns) + "sacct: error: slurmdbd does not answer\n" * 5_000)
    assert time.process_time() - began < 4
    assert (parsed.counts.records, parsed.counts.set_aside) == (1, 5_000)


def test_the_line_of_a_bad_row_is_that_of_the_file_after_odd_rows_too() -> None:
    text = sacct_text(
        [
            row(),
            row(JobID=8, JobName="new\nline"),
            row(JobID=9, State="MELTED"),
            row(JobID=10, JobName="b\rc", State="ODD"),
        ]
    )
    parsed = parse(text)
    assert sorted((aside.line, aside.reason) for aside in parsed.set_aside) == [
        (5, "State 'MELTED' is unknown"), (6, "State 'ODD' is unknown"),
    ]  # fmt: skip
    assert all(aside.text.startswith(("9|9|alpha|", "10|10|alpha|")) for aside in parsed.set_aside)


@pytest.mark.parametrize("path", ["gone.txt", "."])
def test_a_file_that_cannot_be_opened_is_named(path: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"(No such file|Is a directory)"):
        scan(tmp_path / path, tmp_path)


def test_a_file_s_name_may_hold_what_a_shell_pattern_holds(tmp_path: Path) -> None:
    save(tmp_path / "jobs1.txt", sacct_text([row(JobID=8)]))
    odd = save(tmp_path / "jobs[1]'s *.txt", PLAIN)
    assert [record["job_id"] for record in parse(odd).records] == [7]
