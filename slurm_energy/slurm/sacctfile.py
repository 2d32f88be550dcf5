"""Saved sacct output: plain or gzip, columns by header in any order, joined or broken as files get.

A file that is whole is not copied: `scan` only looks that every line has as many fields as the header and hands the
file on. Where lines are odd (a delimiter or a newline in a job name, a foreign encoding, a second header, an end cut
off) the good lines go to a copy, and the odd ones are put together again one by one or set aside.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from operator import methodcaller
from pathlib import Path
from typing import IO

from slurm_energy.slurm.columns import FREE_TEXT, canonical, missing_necessary, recognised
from slurm_energy.slurm.errors import SourceError
from slurm_energy.slurm.good_lines import GoodLines
from slurm_energy.slurm.plausible import put_together
from slurm_energy.slurm.records import RawRecords, SetAside, Table

BLOCK = 8 << 20
_DELIMITERS = ("|", "\t", "\x1f", ";", "^", ",", "!")


def scan(path: Path, workdir: Path, columns: Sequence[str] = (), delimiter: str = "") -> RawRecords:
    """The records of a saved sacct file.

    columns: the file's columns where it has no header; delimiter: where it is none of the usual ones.
    workdir: a folder for a copy, where one is needed; it must outlive the use of the result.
    Raises SourceError where the file cannot be read or a necessary column is missing.
    """
    try:
        with path.open("rb") as file:
            start = file.read(65536)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise SourceError(f"{path}: UTF-16 text; convert it first:  iconv -f UTF-16 -t UTF-8 {path} > NEW")
    packed = start[:2] == b"\x1f\x8b"
    reader = _Reader(path, packed, workdir, tuple(columns), delimiter)
    if not packed and reader.is_whole():
        return RawRecords(str(path), tables=(reader.as_it_is(),))
    return reader.sorted_out()


class _Reader:
    """One pass over one file; what it found stays in it until it is handed over."""

    def __init__(self, path: Path, packed: bool, workdir: Path, columns: tuple[str, ...], delimiter: str) -> None:
        self.path, self.packed, self.workdir = path, packed, workdir
        with self._open() as file:
            first = self._first_line(file)
        self.ending = b"\r" if first.endswith(b"\r\n") else b""
        header = first.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "backslashreplace").rstrip("\r\n")
        self.delimiter = delimiter or self._delimiter_of(header, columns)
        self.byte = self.delimiter.encode()
        if not first.strip():
            raise SourceError(f"{path}: the file is empty, or its first line is")
        self.has_header = recognised(header.split(self.delimiter)) >= (2 if columns else 1)
        names = canonical(header.split(self.delimiter)) if self.has_header else canonical(columns)
        if not names:
            raise SourceError(
                f"{path}: no header line; name the columns in their order:  --columns JobID,User,Account,State,..."
            )
        self.columns = self._checked(names, 1)
        self.header = header.encode()
        self.tables: list[Table] = []
        self.rows: list[tuple[int | None, dict[str, str]]] = []
        self.set_aside: list[SetAside] = []

    def _open(self) -> IO[bytes]:
        return gzip.open(self.path, "rb") if self.packed else self.path.open("rb")  # type: ignore[return-value]

    def _first_line(self, file: IO[bytes]) -> bytes:
        try:
            return file.readline(1 << 20)
        except (EOFError, OSError, zlib.error) as error:
            raise SourceError(f"{self.path}: not a readable gzip file ({error})") from error

    def _delimiter_of(self, header: str, columns: Sequence[str]) -> str:
        if columns:
            return max(_DELIMITERS, key=lambda mark: -abs(header.count(mark) + 1 - len(columns)))
        return max(_DELIMITERS, key=lambda mark: recognised(header.split(mark)))

    def _checked(self, names: list[str], line: int) -> tuple[str, ...]:
        missing = missing_necessary(names)
        if missing:
            raise SourceError(
                f"{self.path}, line {line}: no column {' and no column '.join(missing)}; "
                "ask sacct for it with -o (see docs/install.md, 'Saved job records'), or name the columns with --columns"
            )
        return tuple(names)

    def is_whole(self) -> bool:
        """Whether every line after the header has the same number of fields, is UTF-8 and no second header."""
        rest = b""
        with self._open() as file:
            if self.has_header:
                file.readline()
            while block := file.read(BLOCK):
                end = block.rfind(b"\n") + 1
                if not self._all_good(rest + block[:end]):
                    return False
                rest = block[end:]
        return self._all_good(rest)

    def _all_good(self, text: bytes) -> bool:
        """Whether whole lines need no look at the single one."""
        if b"\r" in text or b"\0" in text or b"JobID" in text:  # the last: a header in the middle
            return False
        lines = text.split(b"\n")
        if not lines[-1]:
            lines.pop()
        if not set(map(methodcaller("count", self.byte), lines)) <= {len(self.columns) - 1}:
            return False
        return _is_utf8(text)

    def as_it_is(self) -> Table:
        skip = int(self.has_header)
        return Table(self.path, self.columns, self.delimiter, skip, lambda row: row + 1 + skip)

    def sorted_out(self) -> RawRecords:
        """Good lines to a copy per header, odd ones one by one."""
        columns, odd = self.columns, list[tuple[int, bytes]]()
        copy = GoodLines(self.workdir, columns, self.delimiter)
        for number, line in self._lines():
            if not line.strip(b"\r"):
                continue
            if self.has_header and line.rstrip(b"\r") == self.header:
                continue
            if (changed := self._another_header(line, number)) is not None:
                self._put_together(odd, columns)
                odd, columns = [], changed
                self.tables.append(copy.done())
                copy = GoodLines(self.workdir, columns, self.delimiter)
                self.header = line.rstrip(b"\r")
                self.ending = line[len(self.header) :]
                continue
            line = line.removesuffix(self.ending)
            if line.count(self.byte) == len(columns) - 1 and b"\r" not in line and b"\0" not in line and _is_utf8(line):
                copy.add(number, line)
            else:
                if columns[-1] in FREE_TEXT and line.count(self.byte) < len(columns) - 1:
                    odd += copy.take_back(number - 1)  # this may be the rest of its last text
                odd.append((number, line))
        self._put_together(odd, columns)
        self.tables.append(copy.done())
        return RawRecords(str(self.path), tuple(self.tables), self.rows, tuple(self.set_aside))

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        number = 0
        with self._open() as file:
            while True:
                try:
                    line = file.readline()
                except (EOFError, OSError, zlib.error) as error:
                    self.set_aside.append(
                        SetAside(str(self.path), number + 1, f"the compressed stream ends early ({error})", "")
                    )
                    return
                if not line:
                    return
                number += 1
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                yield number, line.removesuffix(b"\n")

    def _another_header(self, line: bytes, number: int) -> tuple[str, ...] | None:
        """The columns, where this line is the header of another dump joined to this one."""
        if b"JobID" not in line:
            return None
        names = canonical(line.decode("utf-8", "replace").strip().split(self.delimiter))
        if recognised(names) < 4 or recognised(names) * 2 < len(names):
            return None
        return self._checked(names, number)

    def _put_together(self, odd: list[tuple[int, bytes]], columns: tuple[str, ...]) -> None:
        rows, others = put_together(odd, columns, self.delimiter)
        self.rows += rows
        self.set_aside += [SetAside(str(self.path), *other) for other in others]


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
