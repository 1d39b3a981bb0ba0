"""What does a daemon cost that has nothing to do?

A real daemon process on a service that is as it should be. Its Prometheus is a stand-in of ten lines, which costs the
daemon as much as a real one; the interval is 10 s, six times as often as the default. It is measured after a first
whole cycle, so that nothing is left out which a cycle leaves behind.

Run `python benchmarks/daemon_idle.py [--seconds 300] [--json OUT]`.
"""

import argparse
import importlib.util
import signal
import sys
import tempfile
import time
from pathlib import Path

import psutil
import results

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests" / "daemon" / "test_service.py"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(results.describe_machine())
    sys.path.insert(0, str(TESTS.parent))
    found = importlib.util.spec_from_file_location("service", TESTS)
    assert found is not None
    assert found.loader is not None
    service = importlib.util.module_from_spec(found)
    found.loader.exec_module(service)
    with tempfile.TemporaryDirectory() as folder, service.prometheus(Path(folder)) as url:
        world = service.World(Path(folder), url)
        first = world.start()
        world.until(service.promoted, first, limit_s=600)
        after_cycle = psutil.Process(first.pid).memory_info().rss
        first.send_signal(signal.SIGTERM)
        first.communicate()
        file = world.folder / "daemon.yaml"
        file.write_text(file.read_text().replace("interval: 50 ms", "interval: 10 s"))
        second = world.start()
        try:
            time.sleep(20)  # beyond its start
            seen = watched(psutil.Process(second.pid), given.seconds)
        finally:
            second.send_signal(signal.SIGTERM)
            second.communicate()
    seen["after_cycle_bytes"] = after_cycle
    share, memory = seen["cpu_ratio"], max(seen["largest_bytes"], after_cycle)
    results.publish(given.json, seen, {
        f"an idle daemon uses {share:.2%} of a core, under 1 %": share < 0.01,
        f"and {memory / 1e6:.0f} MB, also right after a cycle, under 150": memory < 150e6,
    })  # fmt: skip


def watched(process: psutil.Process, seconds: float) -> dict[str, float]:
    """Its share of a core, its children's too, and its memory."""
    before, begun_s, largest = process.cpu_times(), time.monotonic(), 0
    while time.monotonic() - begun_s < seconds:
        time.sleep(5)
        largest = max(largest, process.memory_info().rss)
    now, passed_s = process.cpu_times(), time.monotonic() - begun_s
    used_s = sum(now[:4]) - sum(before[:4])  # user, system, and both of children
    return {"seconds": passed_s, "cpu_s": used_s, "cpu_ratio": used_s / passed_s, "largest_bytes": largest}


if __name__ == "__main__":
    main()
