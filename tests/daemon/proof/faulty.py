"""The example's server where it is not as it should be: what is wrong, and with which block, is in live.json.

`answer_s`: {block: seconds} instead of what the storage says. `errors`: {block: share of requests that fail}.
`most_per_s`: {block: requests}: beyond them it takes three times as long, as when memory is short.
`sum`: {block: number}: what /metrics says instead of the sum of all times.
`start_s`: until it answers. There is a gauge besides: how long the last answer took.
"""

import itertools
import json
import time
from collections import deque
from pathlib import Path

import server

LIVE = Path(__file__).resolve().with_name("live.json")
BLOCK = str(server.BLOCK_KIB)
BEGUN_S, ASKED = deque(maxlen=1000), itertools.count(1)


class Counts(server.Counts):
    last_s = 0.0

    def add(self, code, seconds):
        super().add(code, seconds)
        self.last_s = seconds

    def lines(self):
        said = json.loads(LIVE.read_text()).get("sum", {}).get(BLOCK)
        for line in super().lines():
            yield f"request_seconds_sum {said}" if said and line.startswith("request_seconds_sum") else line
        yield "# TYPE last_answer_seconds gauge"
        yield f"last_answer_seconds {self.last_s}"


class Handler(server.Handler):
    counts = Counts()

    def reply(self):
        live, now_s = json.loads(LIVE.read_text()), time.monotonic()
        BEGUN_S.append(now_s)
        asked, share = next(ASKED), live.get("errors", {}).get(BLOCK, 0)
        if int(asked * share) > int((asked - 1) * share):
            return 500, json.dumps({"error": "out of memory"})
        needed_s = live.get("answer_s", {}).get(BLOCK) or server.work_s(live)
        rate_per_s = sum(now_s - at < 1 for at in list(BEGUN_S))
        crowded = rate_per_s > live.get("most_per_s", {}).get(BLOCK, rate_per_s)
        time.sleep(needed_s * (3 if crowded else 1))
        return 200, json.dumps({"answer": "x" * 16})


if __name__ == "__main__":
    time.sleep(json.loads(LIVE.read_text()).get("start_s", 0.0))
    server.main(Handler)
