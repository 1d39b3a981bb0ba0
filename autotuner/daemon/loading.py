"""Our own requests to the arms: the very same for both, in turn, so that what drifts slowly meets both alike."""

import itertools
import logging
import math
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from autotuner.daemon.signals import CANDIDATE, RATES, STABLE, Arms, LoadSection
from autotuner.daemon.sources import Gap, Read, Reading
from autotuner.errors import AutotuneError, MachineError
from autotuner.load import results
from autotuner.load.dialect import Dialect
from autotuner.load.plan import Episode, Plan
from autotuner.load.process import LoadClient
from autotuner.load.session import Target, understand
from autotuner.metrics import value_of

_ATTEMPTS = 3  # at a pair of which one cannot be believed: a neighbour may have held the client up
_ATTEMPTS_S = 10.0  # for which short ones are tried more often: a busy machine spoils many of them
_THERE, _BACK = (STABLE, CANDIDATE), (CANDIDATE, STABLE)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pool:
    """Episodes of one arm, taken together.

    Attributes:
        episodes: At least one.
    """

    episodes: Sequence[Episode]

    @property
    def requests(self) -> int:
        """That were sent."""
        return sum(len(episode.replies) for episode in self.episodes)

    @property
    def failures(self) -> Counter[str]:
        """How often what went wrong."""
        return sum((results.failures(episode.replies) for episode in self.episodes), Counter())

    def number(self, metric: str) -> float:
        """A metric by its name, in its unit; NaN where these answers do not tell it, inf where failures hide it."""
        if metric in RATES:
            return self._work(metric) / math.fsum(map(results.duration_s, self.episodes))
        samples: dict[str, list[float]] = {}
        for episode in self.episodes:
            for name, values in results.samples_of(episode).items():
                samples.setdefault(name, []).extend(values)
        return value_of(metric, samples)

    def _work(self, metric: str) -> float:
        if metric == "throughput_requests_per_s":
            return float(self.requests - self.failures.total())
        counts = [results.tokens(episode) for episode in self.episodes]
        return math.nan if None in counts else float(sum(count for count in counts if count))


class Load:
    """Puts the arms under load, and keeps what came of it last.

    Args:
        section: What is sent, and where.
        arms: What {arm} becomes.
        stack: Ends the client's process.
        moved: Is called whenever an episode has ended.
    """

    def __init__(self, section: LoadSection, arms: Arms, stack: ExitStack, moved: Callable[[], None]) -> None:
        self._section, self._arms, self._moved = section, arms, moved
        self._clients = stack.enter_context(ExitStack())  # the one that lives
        self._client: LoadClient | None = None
        self._numbers = itertools.count()
        self._salt = f"-{uuid.uuid4().hex[:8]}"  # another daemon's prompts may still be in a cache
        self._found: Mapping[str, Pool | Gap] = {}

    def look(self) -> None:
        """One episode against what serves stably."""
        self._found = self._measured([(STABLE,)], 0.0, (STABLE,))

    def compare(self, least_s: float, askable: Sequence[str] = (STABLE,)) -> Mapping[str, Pool] | Gap:
        """Stable, candidate, candidate, stable, until the time is over; or why these numbers cannot be used.

        The first two get the same requests at the same times, and so do the last two.

        Args:
            least_s: A round that was begun is brought to its end, and what cannot be used lasts as long.
            askable: Arms of which one has to answer a plain request, the first that does; else nothing is known.
        """
        ends_s = time.monotonic() + least_s
        self._found = self._measured([_THERE, _BACK], least_s, askable)
        pools = {arm: pool for arm, pool in self._found.items() if isinstance(pool, Pool)}
        reasons = [found.reason for found in self._found.values() if isinstance(found, Gap)]
        if reasons:
            logger.warning("a window under load cannot be used: %s", reasons[0])
            time.sleep(max(0.0, ends_s - time.monotonic()))  # or a server that is restarted costs many windows
            return Gap(reasons[0])
        return pools

    def read(self, arm: str, metric: str, now_s: float) -> Read:
        """A number of what was measured last."""
        pool = self._found.get(arm, Gap("nothing was measured yet"))
        if isinstance(pool, Gap):
            return pool
        value = pool.number(metric)
        if math.isfinite(value):
            return Reading(value, now_s)
        worst = next(iter(pool.failures.most_common(1)), None)
        return Gap(
            f"{worst[1]} of {pool.requests} requests failed: {worst[0]}" if worst else f"no answer tells {metric}"
        )

    def _measured(
        self, turns: Sequence[Sequence[str]], least_s: float, askable: Sequence[str]
    ) -> Mapping[str, Pool | Gap]:
        """Turns in order, again and again until the time is over; of one that cannot be believed nothing is kept."""
        arms = set(itertools.chain(*turns))
        kept: dict[str, list[Episode]] = {arm: [] for arm in arms}
        ends_s = time.monotonic() + least_s
        try:
            dialects = self._dialects(askable)
            while not any(kept.values()) or time.monotonic() < ends_s:
                for turn in turns:
                    found = self._believed(turn, dialects)
                    if isinstance(found, Gap):
                        return dict.fromkeys(arms, found)
                    for arm, episode in found.items():
                        kept[arm].append(episode)
        except AutotuneError as error:  # nobody answers the simplest request, or the client died
            if isinstance(error, MachineError):
                self._clients.close()
                self._client = None
            return dict.fromkeys(arms, Gap(error.message))
        return {arm: Pool(episodes) for arm, episodes in kept.items()}

    def _opened(self) -> LoadClient:
        if self._client is None:
            self._client = self._clients.enter_context(LoadClient())
        return self._client

    def _dialects(self, askable: Sequence[str]) -> Mapping[str, Dialect]:
        """How one arm wants to be asked; the other one is asked the same, or it would have less to do."""
        targets = {arm: self._section.target(self._arms, arm) for arm in _THERE}
        known = self._understood([targets[arm] for arm in askable])
        own = {arm: target.dialect() for arm, target in targets.items()}
        return {arm: replace(known, url=one.url, model=one.model, headers=one.headers) for arm, one in own.items()}

    def _understood(self, targets: Sequence[Target]) -> Dialect:
        """The first that answers; where none does, what is wrong with the first."""
        errors = list[AutotuneError]()
        for target in targets:
            try:
                return understand(self._opened(), target, self._section.traffic)
            except AutotuneError as error:
                errors.append(error)
        raise errors[0]

    def _believed(self, turn: Sequence[str], dialects: Mapping[str, Dialect]) -> Mapping[str, Episode] | Gap:
        """An episode of each arm, with the same requests; asked anew where the client itself was in the way."""
        begun_s = time.monotonic()
        for attempt in itertools.count(1):
            number = next(self._numbers)
            found, doubts = {}, ""
            for arm in turn:
                plan = self._section.traffic.plan(dialects[arm], number, salt=self._salt)
                found[arm] = self._opened().run(plan)
                self._moved()
                doubts = doubts or _doubts(found[arm], plan)
            if not doubts or (attempt >= _ATTEMPTS and time.monotonic() - begun_s > _ATTEMPTS_S):
                break
        late = [
            arm for arm, one in found.items() if plan.paced and not _failed(one) and results.is_saturated(one.replies)
        ]
        if late and not doubts:
            doubts = f"requests piled up at {late[0]}: latencies say only how long that lasted"
        return Gap(doubts) if doubts else found


def _failed(episode: Episode) -> bool:
    """Whether no request of it was answered."""
    return results.failures(episode.replies).total() == len(episode.replies)


def _doubts(episode: Episode, plan: Plan) -> str:
    """Why its times cannot be believed; a server that refuses all has none, and keeps the client busy besides."""
    return "" if _failed(episode) else results.doubts(episode, plan.paced, plan.places)
