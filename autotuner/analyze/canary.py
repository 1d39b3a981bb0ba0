"""The judge of a canary: it passes when it is proven better at its aim, and no worse at anything that is guarded.

"No significant difference" proves nothing: Kayenta's rule lets through three of four canaries that are 10 % worse. Here
the whole interval of a guarded metric must lie above the loss that is allowed (non-inferiority), and that of the aim
above none (superiority). The interval is the confidence sequence of `statistics.estimate_log_ratio`, so that one may
look after every window; windows that depend on their neighbours are worth fewer.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise

from autotuner.statistics import binomial_tail, estimate_log_ratio
from autotuner.types import CanaryRules, CanaryVerdict, Estimate, Guard, Ruling, Window

_SURPRISE = 1e-4  # chance of so many failures by luck at which a canary is taken back, at each look
_DIFFERENCE = 1e-3  # the same beside the other arm's failures
_SUSPICION = 0.05  # the same beside those of the same time alone, in which it may have been asked little
_LEAST_RATE = 1e-9  # of failures, where none is allowed
_MOST_LOG = 50.0  # of a ratio in one window: what is beyond is no time and no rate, and must still be a number
_CAUTION = 0.5  # standard errors that are added to the autocorrelation that was seen: it is underestimated


def judge_canary(
    windows: Sequence[Window], aim: Guard, guards: Sequence[Guard], rules: CanaryRules,
    warm_up: Sequence[Window] = (), known: tuple[int, int] = (0, 0),
) -> CanaryVerdict:  # fmt: skip
    """Look at what was seen so far; may be asked after every window.

    Args:
        windows: In order of time, warm-up left out.
        aim: What should get better; no worse is not enough.
        guards: What must not get worse.
        rules: How strictly.
        warm_up: Windows before, whose times count for nothing: a request that failed there has failed all the same.
        known: Requests and failures of the baseline before, which tell how many it fails where it is asked little now.
    """
    failing = _failing([window for window in (*warm_up, *windows) if _is_counted(window)], rules, known)
    metrics = {guard.metric: guard for guard in (aim, *guards)}
    usable = [window for window in windows if _is_usable(window, metrics)]
    unusable = len(windows) - len(usable)
    conclude = partial(CanaryVerdict, windows=len(usable), unusable=unusable)
    if failing:
        return conclude(Ruling.FAIL, failing, settled=True)
    if unusable > rules.unusable_ratio * max(len(windows), rules.least_windows):
        last = next((window.gap for window in reversed(windows) if window.gap), "")
        text = f"{unusable} of {len(windows)} windows have no usable numbers of {', '.join(metrics)}"
        text += f"; the last time: {last}" if last else ""
        return conclude(Ruling.ERROR, text, settled=True)
    over = len(windows) >= rules.most_windows
    if len(usable) < rules.least_windows:
        text = f"{len(usable)} windows, and at least {rules.least_windows} are needed"
        ruling = Ruling.ERROR if not usable else Ruling.INCONCLUSIVE
        return conclude(ruling, text, settled=over)
    gains = {name: _gain(usable, guard, rules.confidence) for name, guard in metrics.items()}
    ruling, text = _rule(gains, aim, guards)
    settled = over or ruling is not Ruling.INCONCLUSIVE
    return conclude(ruling, text, settled=settled, gains=gains)


def _failing(windows: Sequence[Window], rules: CanaryRules, known: tuple[int, int]) -> str:
    """In a sentence, if the candidate fails more requests than are allowed, and more than the baseline does.

    The first is a binomial test, the second the exact conditional one: if both arms failed alike, each of their
    failures would be the candidate's with the probability of its share of the requests. A share of failures that was
    seen in few requests is so not taken for exact.
    """
    asked = sum(window.candidate_requests for window in windows)
    failed = sum(window.candidate_failures for window in windows)
    others = sum(window.baseline_requests for window in windows)
    theirs = sum(window.baseline_failures for window in windows)
    if not failed or _chance(failed, asked, min(0.99, max(_LEAST_RATE, rules.failure_ratio))) > _SURPRISE:
        return ""
    if others and rules.failure_ratio + theirs + known[1] > 0:  # where none is allowed and none was seen, one is enough
        if _chance(failed, failed + theirs, asked / (asked + others)) > _SUSPICION:
            return ""
        others, theirs = others + known[0], theirs + known[1]
        if _chance(failed, failed + theirs, asked / (asked + others)) > _DIFFERENCE:
            return ""
    beside = f", the other one {theirs:,} of {others:,}" if theirs else ""
    return f"it failed {failed:,} of {asked:,} requests{beside}, and {rules.failure_ratio:.2%} are allowed"


def _chance(least: int, of: int, share: float) -> float:
    """P(X >= least) where X is binomial."""
    return 1 - binomial_tail(least - 1, of, share)


def _is_usable(window: Window, metrics: Iterable[str]) -> bool:
    """Whether both arms have a positive number of every metric: a gap is no zero, and no reason to pass."""
    return _is_counted(window) and all(
        0 < arm.get(name, math.nan) < math.inf for name in metrics for arm in (window.baseline, window.candidate)
    )


def _is_counted(window: Window) -> bool:
    """Whether its counts can be true."""
    return (
        0 <= window.baseline_failures <= window.baseline_requests
        and 0 <= window.candidate_failures <= window.candidate_requests
    )


def _gain(windows: Sequence[Window], guard: Guard, confidence: float) -> Estimate:
    """Factor in the direction of improvement; the interval's each end holds with this confidence at every look."""
    sign = 1 if guard.maximize else -1
    arms = [(window.candidate[guard.metric], window.baseline[guard.metric]) for window in windows]
    logs = [sign * max(-_MOST_LOG, min(_MOST_LOG, math.log(own) - math.log(other))) for own, other in arms]
    found = estimate_log_ratio(logs, range(len(logs)), alpha=2 * (1 - confidence))
    wider = _inflation(logs)
    reach = min(500.0, wider * (found.high - found.mean))
    return Estimate(math.exp(found.mean), math.exp(found.mean - reach), math.exp(found.mean + reach))


def _inflation(values: Sequence[float]) -> float:
    """How much wider an interval is because neighbours are alike: sqrt((1 + r) / (1 - r)) for an AR(1) process.

    r is their first autocorrelation, corrected for its bias of about -1/n (Kendall 1954), and a little more.
    """
    count, mean = len(values), math.fsum(values) / len(values)
    spread = math.fsum((value - mean) ** 2 for value in values)
    if spread <= 0:
        return 1.0
    together = math.fsum((a - mean) * (b - mean) for a, b in pairwise(values))
    alike = min(0.95, max(0.0, together / spread + 1 / count + _CAUTION / math.sqrt(count)))
    return math.sqrt((1 + alike) / (1 - alike))


def _rule(gains: Mapping[str, Estimate], aim: Guard, guards: Sequence[Guard]) -> tuple[Ruling, str]:
    for guard in (aim, *guards):
        gain = gains[guard.metric]
        if gain.high < 1 - guard.margin_ratio:
            allowed = f"a loss of {guard.margin_ratio:.1%} is allowed"
            return Ruling.FAIL, f"{guard.metric} is worse: {_told(gain)}, and {allowed}"
    for guard in guards:
        gain = gains[guard.metric]
        if gain.low <= 1 - guard.margin_ratio:
            return Ruling.INCONCLUSIVE, f"{guard.metric} may be worse: {_told(gain)}"
    best = gains[aim.metric]
    if best.low <= 1:
        return Ruling.INCONCLUSIVE, f"{aim.metric} is not proven better: {_told(best)}"
    return Ruling.PASS, f"{aim.metric} is better: {_told(best)}"


def _told(gain: Estimate) -> str:
    return f"{gain.value:.3f}x [{gain.low:.3f}, {gain.high:.3f}]"
