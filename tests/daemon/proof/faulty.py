"""The example's server where it is not as it should be: what is wrong, and with which block, is in live.json.

`answer_s`: {block: seconds} instead of what the storage says. `errors`: {block: share of requests that fail}.
`most_per_s`: {block: requests}: beyond them it takes three times as long, as when memory is short.
"""

import json
import time
from collections import deque
from pathlib import Path

import server

LIVE = Path(__file__).resolve().with_name("live.json")
BLOCK = str(server.BLOCK_KIB)


class Handler(server.Handler):
    begun_s = deque(maxlen=1000)
    asked = 0

    def reply(self):
        live, now_s = json.loads(LIVE.read_text()), time.monotonic()
        Handler.begun_s.append(now_s)
        Handler.asked += 1
        if Handler.asked * (share := live.get("errors", {}).get(BLOCK, 0)) % 1 + share > 1:
            return 500, json.dumps({"error": "out of memory"})
        needed_s = live.get("answer_s", {}).get(BLOCK) or server.work_s(live)
        rate_per_s = sum(now_s - at < 1 for at in list(Handler.begun_s))
        crowded = rate_per_s > live.get("most_per_s", {}).get(BLOCK, rate_per_s)
        time.sleep(needed_s * (3 if crowded else 1))
        return 200, json.dumps({"answer": "x" * 16})


if __name__ == "__main__":
    server.main(Handler)
