"""What a parser process may not do: outlive its parent, eat the machine's memory, write files, leave a core dump."""

import contextlib
import ctypes
import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

MEMORY_EXIT_CODE = 77
"""The exit code of a process that its own memory watch has ended."""
_FILE_SIZE_LIMIT = 1 << 20  # the parent's file for our stderr is the only one there should be
_LARGEST_FILE = 1 << 30
_SYSTEM = os.uname().sysname
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


def forbid_dumps_and_files() -> None:
    """No core dump (it would hold the document), no debugger, no file beyond a megabyte."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_SIZE_LIMIT, _LARGEST_FILE))
    _prctl(_PR_SET_DUMPABLE, 0)


@contextlib.contextmanager
def allow_file(size_bytes: int) -> Iterator[None]:
    """Meanwhile a file of that size may be written: one in memory, for a library that takes no other."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(size_bytes + _FILE_SIZE_LIMIT, _LARGEST_FILE), _LARGEST_FILE))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_SIZE_LIMIT, _LARGEST_FILE))


def die_with_parent(parent_pid: int) -> None:
    """On Linux the kernel kills us when the parent dies; elsewhere end of file and the alarm do it a little later."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)


def limit_memory(extra_bytes: int) -> None:
    """Allows `extra_bytes` beyond what the process holds now."""
    if _SYSTEM == "Linux":
        limit = _address_space_bytes() + extra_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    else:  # macOS knows RLIMIT_AS but does not hold it
        watch_memory(rss_bytes() + extra_bytes)


def watch_memory(limit_bytes: int, interval_s: float = 0.05) -> None:
    """Ends the process when its peak of resident memory passes the limit, for systems whose limits do not hold."""

    def watch() -> None:
        pause = threading.Event()
        while not pause.wait(interval_s):
            if _peak_rss_bytes() > limit_bytes:
                os._exit(MEMORY_EXIT_CODE)

    threading.Thread(target=watch, name="memory-watch", daemon=True).start()


def rss_bytes() -> int:
    """Resident memory now; where the system does not tell, its peak."""
    if _SYSTEM == "Linux":
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()
    return _peak_rss_bytes()


def _address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_bytes().split()[0]) * resource.getpagesize()


def _peak_rss_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if _SYSTEM == "Darwin" else peak * 1024


def _prctl(option: int, value: int) -> None:
    if _SYSTEM == "Linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
