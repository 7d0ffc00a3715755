"""Whether another worker's process on this machine is dead: known at once, where its leases tell after seconds."""

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_SPACE = Path("/proc/self/ns/pid")


def machine_id() -> str:
    """Names the machine, since it was started, and the space in which its process ids mean something: containers may
    share all else. Empty where the system (not Linux) does not tell; then nobody is a neighbour."""
    try:
        return f"{_BOOT_ID.read_text(encoding='ascii').strip()}/{_PID_SPACE.readlink()}"
    except OSError:
        return ""


def is_dead(pid: int) -> bool:
    """Whether no process has this id, or one that waits to be reaped. An id that was taken anew counts as alive."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return state in {"Z", "X"}
