"""What the watch decides about one server: pure, time is an argument, nothing is opened here.

    Facts (what was seen) + Condition (what is remembered) ─► Verdict (the new condition, and what to do)

| seen                                                         | done                                                |
| ------------------------------------------------------------ | --------------------------------------------------- |
| FATAL, EXITED, UNKNOWN                                       | start, for ever; pauses of 5 s growing to 60 s      |
| STOPPED, STOPPING                                            | nothing: a person wants it so                       |
| /api/ps hangs three times in a row, of a server that had     | restart                                             |
|   answered, or that runs for longer than a start may take    |                                                     |
| connection refused for 60 s while it runs                    | restart                                             |
| it waits for a pull (the pull lock is held), never answered  | nothing                                             |
| a model with size > 0 and size_vram = 0, on a card           | restart                                             |
| a model with 0 < size_vram < size                            | said only: it is too big for the card               |
| the card is gone                                             | restart; serve-gpu refuses until it is back         |

A restart is TERM, and KILL when the process still runs 4 s later: a wedged Ollama often ignores TERM. After one the
server is left alone for 60 s, then 120 s, up to an hour; ten healthy minutes take that back. Supervisor starts what
ended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from obcd.ollama.loaded import Loaded
from obcd.text import duration

#: Supervisor's states in which a process is there, may come by itself, was given up, was stopped by a person.
ALIVE = ("STARTING", "RUNNING")
GIVEN_UP = ("FATAL", "EXITED", "UNKNOWN")
STOPPED = ("STOPPED", "STOPPING")
CARD_GONE, STOPPED_BY_PERSON = "its card is gone", "stopped by a person"
ENDING = "it ends, as a person asked"
#: How many restarts are remembered of a server.
KEPT_RESTARTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLimits:
    """Every number of the watch; all but the count are seconds.

    Attributes:
        hangs: Hung probes in a row that mean a wedged server.
        start: A server that never answered may hang so long: it looks for its card, up to 30 s a library.
        refused: How long a running server may refuse connections.
        kill: After TERM.
        pause, longest_pause: Between two restarts by the watch.
        healthy: After so long without trouble the pauses begin anew.
        stopped: After so long in STOPPED it counts as stopped for good, and not as being restarted by a person.
        start_pause, longest_start_pause: Between two starts of what supervisor gave up on.
        probe: Between two probes of a server that answers.
        reading: Between two readings of the cards.
    """

    hangs: int = 3
    start: float = 180.0
    refused: float = 60.0
    kill: float = 4.0
    pause: float = 60.0
    longest_pause: float = 3600.0
    healthy: float = 600.0
    start_pause: float = 5.0
    stopped: float = 2.0
    longest_start_pause: float = 60.0
    probe: float = 4.0
    reading: float = 5.0


class ProbeAnswer(Enum):
    """What became of a probe of /api/ps."""

    ANSWERED = "answers"
    HUNG = "hangs"  # connected, or not even that, and nothing came in time: a wedged scheduler
    REFUSED = "refuses connections"  # starting or dying
    STRANGE = "answers strangely"  # an error, or not Ollama's words
    UNKNOWN = "was not asked yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one server now.

    Attributes:
        state, pid, age_seconds, fault: Supervisor's (`remote.ProcessState`).
        probe: Counts up with every probe that ended; each is judged once.
        answer: Of that probe.
        models: In that answer.
        has_card: False for a server on the CPU.
        is_card_gone: Whether the driver says that its card is lost, or no longer lists it.
        is_pulling: Whether a pull holds back servers that start.
        holder: Who listens on its port in its place, e.g. `process 812 (ollama)`; "" for nobody.
        last_words: The last line of its log, of one that does not run.
    """

    state: str
    pid: int = 0
    age_seconds: float = 0.0
    fault: str = ""
    probe: int = 0
    answer: ProbeAnswer = ProbeAnswer.UNKNOWN
    models: tuple[Loaded, ...] = ()
    has_card: bool = True
    is_card_gone: bool = False
    is_pulling: bool = False
    holder: str = ""
    last_words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """One restart that was seen.

    Attributes:
        at: Monotonic seconds.
        by: `watch`, `supervisor` (it had ended by itself) or `person`.
    """

    at: float
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What is remembered of one server; times are monotonic seconds.

    Attributes:
        pid: The process that the first group is about; 0 for none so far.
        has_answered, hangs, refused_since, ending_since: Of that process; the last since when the watch ends it.
        is_answering: Whether its last probe was answered.
        was_stopped: Whether a person stopped it since it last ran.
        stopped_since: When it was first seen STOPPED; None while it is not.
        pause: How long the next restart by the watch leaves it alone.
        next_restart_at: Until then it is left alone.
        healthy_since: None while there is trouble.
        start_pause, next_start_at: Of the starts of what supervisor gave up; None while it has not.
        reason: Of the restart that the watch has under way.
        restarts, restart_count: The last ones, and all.
        trouble: In words, "" for none.
        remark: What is worth saying and no trouble.
    """

    pid: int = 0
    probe: int = 0
    has_answered: bool = False
    is_answering: bool = False
    hangs: int = 0
    refused_since: float | None = None
    ending_since: float | None = None
    was_stopped: bool = False
    stopped_since: float | None = None
    pause: float | None = None
    next_restart_at: float = 0.0
    healthy_since: float | None = None
    start_pause: float | None = None
    next_start_at: float | None = None
    reason: str = ""
    restarts: tuple[Restart, ...] = ()
    restart_count: int = 0
    trouble: str = ""
    remark: str = ""


class WatchVerb(Enum):
    """What the watch can do to a server."""

    TERM = "TERM"
    KILL = "KILL"
    START = "start"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do, and why; the reason is a log line."""

    verb: WatchVerb
    reason: str


@dataclass(frozen=True, slots=True)
class WatchVerdict:
    """What comes of facts: what is remembered from now on, and what to do."""

    condition: Condition
    actions: tuple[Action, ...] = ()


def judge(facts: Facts, before: Condition, now: float, limits: WatchLimits) -> WatchVerdict:
    """Decide about one server."""
    condition = _noticed(facts, before, now)
    if facts.state in GIVEN_UP:
        return _start_again(facts, condition, now, limits)
    condition = replace(condition, next_start_at=None)
    if facts.state in STOPPED:
        return WatchVerdict(_stopped(facts, condition, now, limits))
    if facts.state not in ALIVE or not facts.pid:
        return WatchVerdict(_troubled(replace(condition, is_answering=False), _fault(facts, condition)))
    if condition.ending_since is not None:
        return _end(condition, condition.ending_since, now, limits)
    return _judge_running(facts, _probed(facts, condition, now), now, limits)


def _stopped(facts: Facts, condition: Condition, now: float, limits: WatchLimits) -> Condition:
    if facts.state != "STOPPED":
        return _troubled(condition, ENDING if condition.was_stopped else condition.trouble)
    since = now if condition.stopped_since is None else condition.stopped_since
    is_for_good = now - since >= limits.stopped
    return _troubled(replace(condition, stopped_since=since), STOPPED_BY_PERSON if is_for_good else ENDING)


def _judge_running(facts: Facts, condition: Condition, now: float, limits: WatchLimits) -> WatchVerdict:
    reason = _restart_reason(facts, condition, now, limits)
    if reason:
        return _restart(condition, reason, now, limits)
    trouble = _mild_trouble(facts, condition)
    if trouble:
        return WatchVerdict(_troubled(condition, trouble))
    return WatchVerdict(_healthy(facts, condition, now, limits))


def has_had_its_chance(facts: Facts, condition: Condition) -> bool:
    """Return whether the host need not wait for this server to be READY: one dead card must not hold up the others."""
    return condition.has_answered or facts.state not in ALIVE


def _noticed(facts: Facts, condition: Condition, now: float) -> Condition:
    """Take in that the process is another one, or that a person stopped it."""
    if facts.state in STOPPED and condition.ending_since is None:
        return replace(condition, was_stopped=True, is_answering=False)
    if not facts.pid or facts.pid == condition.pid:
        return condition
    restarts, count = condition.restarts, condition.restart_count
    if condition.pid:
        restarts = (*restarts, _seen_restart(condition, now))[-KEPT_RESTARTS:]
        count += 1
    return replace(
        condition, pid=facts.pid, has_answered=False, is_answering=False, hangs=0, refused_since=None,
        ending_since=None, was_stopped=False, stopped_since=None, reason="", healthy_since=None,
        restarts=restarts, restart_count=count, probe=facts.probe,
    )  # fmt: skip


def _seen_restart(condition: Condition, now: float) -> Restart:
    if condition.reason:
        return Restart(at=now, by="watch", reason=condition.reason)
    if condition.was_stopped:
        return Restart(at=now, by="person", reason="restarted by a person")
    return Restart(at=now, by="supervisor", reason="it had ended")


def _start_again(facts: Facts, condition: Condition, now: float, limits: WatchLimits) -> WatchVerdict:
    condition = _troubled(replace(condition, is_answering=False, ending_since=None), _fault(facts, condition))
    pause = condition.start_pause or limits.start_pause
    if condition.next_start_at is None:  # EXITED is most often over before the pause is: supervisor starts it itself
        return WatchVerdict(replace(condition, start_pause=pause, next_start_at=now + pause))
    if now < condition.next_start_at:
        return WatchVerdict(condition)
    longer = min(limits.longest_start_pause, 2 * pause)
    action = Action(WatchVerb.START, f"supervisor gave up on it ({facts.state})")
    return WatchVerdict(replace(condition, start_pause=longer, next_start_at=now + longer), (action,))


def _fault(facts: Facts, condition: Condition) -> str:
    """Return why it does not run; the same words in BACKOFF, FATAL and between: else STATUS would flap with them."""
    if condition.reason and facts.state != "FATAL":  # the watch itself ended it, and no other was seen since
        return _restarting(condition.reason)
    if facts.is_card_gone:
        return CARD_GONE
    if facts.last_words:
        return f"it {'ended' if facts.state == 'EXITED' else 'does not start'}: {facts.last_words}"
    if not facts.fault or "too quickly" in facts.fault:
        return "it ends as soon as it starts: its log says why"
    return f"it does not run ({facts.fault})"


def _end(condition: Condition, since: float, now: float, limits: WatchLimits) -> WatchVerdict:
    """Go on ending a process that was asked to end."""
    if now - since < limits.kill:
        return WatchVerdict(condition)
    action = Action(WatchVerb.KILL, f"it still runs {duration(limits.kill)} after TERM ({condition.reason})")
    return WatchVerdict(replace(condition, ending_since=now), (action,))


def _probed(facts: Facts, condition: Condition, now: float) -> Condition:
    """Take in a probe, once."""
    if facts.probe == condition.probe or facts.answer is ProbeAnswer.UNKNOWN:
        return condition
    if facts.holder:  # whatever it says, it is not ours that says it
        return replace(condition, probe=facts.probe, is_answering=False, hangs=0, refused_since=None)
    condition = replace(condition, probe=facts.probe, is_answering=facts.answer is ProbeAnswer.ANSWERED)
    if facts.answer is ProbeAnswer.HUNG:
        return replace(condition, hangs=condition.hangs + 1, refused_since=None)
    if facts.answer is ProbeAnswer.REFUSED:
        since = now if condition.refused_since is None else condition.refused_since
        return replace(condition, hangs=0, refused_since=since)
    has_answered = condition.has_answered or facts.answer is ProbeAnswer.ANSWERED
    return replace(condition, hangs=0, refused_since=None, has_answered=has_answered)


def _restart_reason(facts: Facts, condition: Condition, now: float, limits: WatchLimits) -> str:
    """Return why the server must be restarted, "" for no reason."""
    if facts.is_card_gone and condition.has_answered:
        return CARD_GONE  # one that never answered is serve-gpu, which sees that itself
    if facts.is_pulling and not condition.has_answered:
        return ""  # it waits in serve-gpu, where nothing listens
    if condition.hangs >= limits.hangs and (condition.has_answered or facts.age_seconds > limits.start):
        return f"/api/ps hung {limits.hangs} times in a row"
    if condition.refused_since is not None and now - condition.refused_since > limits.refused:
        return f"it refuses connections for more than {duration(limits.refused)}"
    on_cpu = [item.name for item in facts.models if item.size_bytes > 0 and item.vram_bytes == 0]
    if facts.answer is ProbeAnswer.ANSWERED and condition.is_answering and facts.has_card and on_cpu:
        return f"it holds {', '.join(on_cpu)} off its card, on the CPU"
    return ""


def _restart(condition: Condition, reason: str, now: float, limits: WatchLimits) -> WatchVerdict:
    if now < condition.next_restart_at:  # no figure that runs down: it would be a new line of STATUS every second
        return WatchVerdict(_troubled(condition, f"{reason}; restarted not long ago, left alone for now"))
    pause = condition.pause or limits.pause
    longer = min(limits.longest_pause, 2 * pause)
    condition = replace(condition, ending_since=now, reason=reason, pause=longer, next_restart_at=now + pause)
    return WatchVerdict(_troubled(condition, _restarting(reason)), (Action(WatchVerb.TERM, reason),))


def _restarting(reason: str) -> str:
    return f"{reason}; it is being restarted"


def _mild_trouble(facts: Facts, condition: Condition) -> str:
    """Return what is wrong and not worth a restart, yet; "" for nothing."""
    if facts.holder:
        return f"its port is held by {facts.holder}"
    if facts.answer is ProbeAnswer.STRANGE and not condition.is_answering:
        return "it answers strangely: does another program hold its port?"
    if condition.is_answering or not condition.has_answered:
        return ""
    if condition.hangs:
        return "/api/ps hangs"
    return "it refuses connections" if condition.refused_since is not None else ""


def _start_remark(facts: Facts, condition: Condition) -> str:
    """Return what a server that never answered is at."""
    if facts.is_pulling:
        return "it waits for a pull to end"
    return "it starts: it does not answer yet" if condition.hangs else "it starts"


def _troubled(condition: Condition, trouble: str) -> Condition:
    return replace(condition, trouble=trouble, remark="", healthy_since=None)


def _healthy(facts: Facts, condition: Condition, now: float, limits: WatchLimits) -> Condition:
    if not condition.is_answering:  # nothing is known of a young process yet: neither trouble nor health
        # the old one as long as it may come again at once; what survives its first seconds is past it
        is_past = facts.state == "RUNNING" or condition.trouble in (STOPPED_BY_PERSON, ENDING)
        trouble = "" if is_past else condition.trouble
        return replace(condition, trouble=trouble, remark=_start_remark(facts, condition))
    since = now if condition.healthy_since is None else condition.healthy_since
    is_forgiven = now - since >= limits.healthy
    partly = [
        f"{item.name} lies to {100 * item.vram_bytes // item.size_bytes} % on its card: it is too big for it"
        for item in facts.models
        if facts.has_card and 0 < item.vram_bytes < item.size_bytes
    ]
    return replace(
        condition, trouble="", remark="; ".join(partly), healthy_since=since, start_pause=None,
        pause=None if is_forgiven else condition.pause,
        next_restart_at=0.0 if is_forgiven else condition.next_restart_at,
    )  # fmt: skip
