"""Files that are either the old one or the new one, whenever the process or the machine stops."""

import contextlib
import os
import stat
from collections.abc import Callable
from typing import BinaryIO

__all__ = ["replace"]


def replace(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Make `path` a file with what ``write(file)`` writes; all of it or, if anything fails, not at all.

    The bytes go to a temporary file in the same folder and to the disk (fsync) before it takes the name; then the
    folder goes to the disk too. Where the system has unnamed files (Linux: O_TMPFILE), a process that is killed while
    it writes leaves nothing behind, elsewhere at most a file named ``.fastnn-*.tmp``. An existing file keeps its
    permission bits, and a symbolic link keeps pointing at the file that is replaced.
    """
    target = os.path.realpath(path)
    parent, name = os.path.split(target)
    folder = os.open(parent, os.O_RDONLY)
    try:
        temporary = f".fastnn-{os.urandom(8).hex()}.tmp"
        descriptor, named = _open_temporary(parent, temporary)
        try:
            with open(descriptor, "wb") as file:
                write(file)
                file.flush()
                with contextlib.suppress(FileNotFoundError):
                    os.fchmod(descriptor, stat.S_IMODE(os.stat(target).st_mode))
                os.fsync(descriptor)
                if not named:
                    # /proc's entry is a symbolic link to the unnamed file; a folder descriptor makes link() follow it.
                    os.link(f"/proc/self/fd/{descriptor}", temporary, dst_dir_fd=folder, follow_symlinks=True)
                    named = True
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            if named:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)
            raise
        os.fsync(folder)
    finally:
        os.close(folder)


def _open_temporary(folder: str, name: str) -> tuple[int, bool]:
    """A descriptor to write to, and whether it has `name` already."""
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        # Not every file system has unnamed files; any other reason to refuse returns below with its own message.
        with contextlib.suppress(OSError):
            return os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o666), False
    return os.open(os.path.join(folder, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666), True
