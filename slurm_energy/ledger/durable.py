"""Files that are whole or not there: written aside, safely on disk, then renamed; folders with the ledger's mode."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER_MODE, FILE_MODE = 0o750, 0o640
HALF_WRITTEN = ".new-*"
"""What a killed writer leaves."""


def replace(path: Path, content: bytes) -> bool:
    """Puts content at path by rename, after it is safely on disk; False where it was there already."""
    try:
        if path.stat().st_size == len(content) and path.read_bytes() == content:
            return False
    except FileNotFoundError:
        pass
    make_folder(path.parent)
    new = path.with_name(f".new-{path.name}.part")  # a reader's *.parquet would match a name that ends so, too
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    return True


def make_folder(path: Path) -> None:
    """Makes a folder and its parents with the ledger's mode."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(mode=FOLDER_MODE, exist_ok=True)


def sync_folder(path: Path) -> None:
    """Makes renames in a folder safe against a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
