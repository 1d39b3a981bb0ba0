"""What the parent looks at while a worker works: cheap reads of /proc, twice a second."""

from pathlib import Path

PAGE_BYTES = 4096


def tree_rss_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants; shared pages count in each. 0 when it is gone."""
    import psutil

    try:
        root = psutil.Process(pid)
        members = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(_rss_bytes(member.pid) for member in members)


def _rss_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that waits for its parent."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in ("Z", "X")


def oom_kills() -> int:
    """How often the kernel's out-of-memory killer struck since boot; 0 where the kernel does not count."""
    try:
        text = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)
