"""The decisions of the watch about one server: pure, with time as an argument; no file or socket is opened here.

    Facts (observations) + Condition (memory) ─► Verdict (the new condition, and the actions)

| observation                                                  | action                                              |
| ------------------------------------------------------------ | --------------------------------------------------- |
| FATAL, EXITED, UNKNOWN                                       | start, without end; pauses grow from 5 s to 60 s    |
| STOPPED, STOPPING                                            | none: a person stopped it                           |
| /api/ps hangs three times in a row, of a server that had     | restart                                             |
|   answered, or that runs for longer than a start may take    |                                                     |
| connection refused for 60 s while it runs                    | restart                                             |
| it waits for a pull (the pull lock is held), never answered  | none                                                 |
| a model with size > 0 and size_vram = 0, on a card           | restart                                             |
| a model with 0 < size_vram < size                            | only a remark: it is too big for the card           |
| the card is gone                                             | restart; serve-gpu refuses until it is back         |

A restart is TERM, and KILL if the process still runs 4 s later: a wedged Ollama often ignores TERM. After a restart
the watch leaves the server alone for 60 s, then 120 s, up to an hour; ten healthy minutes reset this. Supervisor
starts the ended server.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from obcd.ollama.loaded import Loaded
from obcd.text import duration

#: Supervisor's states: with a process; given up by supervisor; stopped by a person.
ALIVE = ("STARTING", "RUNNING")
GIVEN_UP = ("FATAL", "EXITED", "UNKNOWN")
STOPPED = ("STOPPED", "STOPPING")
CARD_GONE, STOPPED_BY_PERSON = "its card is gone", "stopped by a person"
ENDING = "it is ending, because a person stopped it"
#: How many restarts of a server are kept.
KEPT_RESTARTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLimits:
    """Every limit of the watch; all are seconds, except the count `hangs`.

    Attributes:
        hangs: Number of hung probes in a row that mean a wedged server.
        start: How long a server that never answered may hang: it looks for its card, up to 30 s per library.
        refused: How long a running server may refuse connections.
        kill: Time between TERM and KILL.
        pause, longest_pause: Time between two restarts by the watch.
        healthy: Time without trouble after which the pauses start again from the shortest.
        stopped: Time in STOPPED after which a server counts as stopped, and not as being restarted by a person.
        start_pause, longest_start_pause: Time between two starts of a server on which supervisor gave up.
        probe: Time between two probes of a server that answers.
        reading: Time between two readings of the cards.
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
    """The outcome of a probe of /api/ps."""

    ANSWERED = "answers"
    HUNG = "hangs"  # no response in time, with or without a connection: a wedged scheduler
    REFUSED = "refuses connections"  # starting or dying
    STRANGE = "answers strangely"  # an error, or not Ollama's response
    UNKNOWN = "was not asked yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The known facts about one server now.

    Attributes:
        state, pid, age_seconds, fault: From supervisor (`remote.ProcessState`).
        probe: Number of the last finished probe; each is judged once.
        answer: The outcome of that probe.
        models: The models in its response.
        has_card: False for a server on the CPU.
        is_card_gone: Whether the driver says that its card is lost, or no longer lists it.
        is_pulling: Whether a pull makes starting servers wait.
        holder: Another process that listens on its port, e.g. `process 812 (ollama)`; "" if there is none.
        last_words: The last line of its log, if it does not run.
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
    """One observed restart.

    Attributes:
        at: In monotonic seconds.
        by: `watch`, `supervisor` (the server had ended by itself) or `person`.
    """

    at: float
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """The memory about one server; times are monotonic seconds.

    Attributes:
        pid: The process of the first group of fields; 0 if there was none so far.
        has_answered, hangs, refused_since, ending_since: Of that process; the last is when the watch began to end it.
        is_answering: Whether its last probe got a response.
        was_stopped: Whether a person stopped it after it last ran.
        stopped_since: When STOPPED was first observed; None in other states.
        pause: How long the watch leaves it alone after the next restart by the watch.
        next_restart_at: The earliest time of the next restart by the watch.
        healthy_since: When it became healthy; None while there is trouble.
        start_pause, next_start_at: Of the starts after supervisor gave up; None if it has not.
        reason: Why the watch is restarting it.
        restarts, restart_count: The last restarts, and the number of all.
        trouble: The trouble in words, "" if there is none.
        remark: A remark that is no trouble.
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
    """An action of the watch on a server."""

    TERM = "TERM"
    KILL = "KILL"
    START = "start"


@dataclass(frozen=True, slots=True)
class Action:
    """One action and its reason, which is a log line."""

    verb: WatchVerb
    reason: str


@dataclass(frozen=True, slots=True)
class WatchVerdict:
    """The result of a judgement: the new condition, and the actions."""

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
    """Return whether the host can be READY without waiting for this server: one dead card must not delay the others."""
    return condition.has_answered or facts.state not in ALIVE


def _noticed(facts: Facts, condition: Condition, now: float) -> Condition:
    """Return the condition after a new process is found, or a stop by a person."""
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
    if condition.next_start_at is None:  # EXITED usually ends before the pause: supervisor starts it itself
        return WatchVerdict(replace(condition, start_pause=pause, next_start_at=now + pause))
    if now < condition.next_start_at:
        return WatchVerdict(condition)
    longer = min(limits.longest_start_pause, 2 * pause)
    action = Action(WatchVerb.START, f"supervisor gave up on it ({facts.state})")
    return WatchVerdict(replace(condition, start_pause=longer, next_start_at=now + longer), (action,))


def _fault(facts: Facts, condition: Condition) -> str:
    """Return why it does not run; in the same words in BACKOFF, FATAL and between, so that STATUS does not flap."""
    if condition.reason and facts.state != "FATAL":  # the watch ended it, and no new process has been observed
        return _restarting(condition.reason)
    if facts.is_card_gone:
        return CARD_GONE
    if facts.last_words:
        return f"it {'ended' if facts.state == 'EXITED' else 'does not start'}: {facts.last_words}"
    if not facts.fault or "too quickly" in facts.fault:
        return "it ends right after its start: see its log"
    return f"it does not run ({facts.fault})"


def _end(condition: Condition, since: float, now: float, limits: WatchLimits) -> WatchVerdict:
    """Continue to end a process that got TERM."""
    if now - since < limits.kill:
        return WatchVerdict(condition)
    action = Action(WatchVerb.KILL, f"it still runs {duration(limits.kill)} after TERM ({condition.reason})")
    return WatchVerdict(replace(condition, ending_since=now), (action,))


def _probed(facts: Facts, condition: Condition, now: float) -> Condition:
    """Return the condition after a probe, which counts once."""
    if facts.probe == condition.probe or facts.answer is ProbeAnswer.UNKNOWN:
        return condition
    if facts.holder:  # the response is from another process
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
    """Return why the server must be restarted, "" if it need not be."""
    if facts.is_card_gone and condition.has_answered:
        return CARD_GONE  # a server that never answered is still serve-gpu, which checks the card itself
    if facts.is_pulling and not condition.has_answered:
        return ""  # it waits in serve-gpu, before it listens
    if condition.hangs >= limits.hangs and (condition.has_answered or facts.age_seconds > limits.start):
        return f"/api/ps hung {limits.hangs} times in a row"
    if condition.refused_since is not None and now - condition.refused_since > limits.refused:
        return f"it refuses connections for more than {duration(limits.refused)}"
    on_cpu = [item.name for item in facts.models if item.size_bytes > 0 and item.vram_bytes == 0]
    if facts.answer is ProbeAnswer.ANSWERED and condition.is_answering and facts.has_card and on_cpu:
        return f"it holds {', '.join(on_cpu)} off its card, on the CPU"
    return ""


def _restart(condition: Condition, reason: str, now: float, limits: WatchLimits) -> WatchVerdict:
    if now < condition.next_restart_at:  # without remaining seconds: they would make a new line of STATUS every second
        return WatchVerdict(
            _troubled(condition, f"{reason}; it was restarted recently, so the watch leaves it alone for now")
        )
    pause = condition.pause or limits.pause
    longer = min(limits.longest_pause, 2 * pause)
    condition = replace(condition, ending_since=now, reason=reason, pause=longer, next_restart_at=now + pause)
    return WatchVerdict(_troubled(condition, _restarting(reason)), (Action(WatchVerb.TERM, reason),))


def _restarting(reason: str) -> str:
    return f"{reason}; it is being restarted"


def _mild_trouble(facts: Facts, condition: Condition) -> str:
    """Return a trouble that does not need a restart yet; "" if there is none."""
    if facts.holder:
        return f"its port is held by {facts.holder}"
    if facts.answer is ProbeAnswer.STRANGE and not condition.is_answering:
        return "its responses are not Ollama's: another program may hold its port"
    if condition.is_answering or not condition.has_answered:
        return ""
    if condition.hangs:
        return "/api/ps hangs"
    return "it refuses connections" if condition.refused_since is not None else ""


def _start_remark(facts: Facts, condition: Condition) -> str:
    """Return what a server that has never answered is doing."""
    if facts.is_pulling:
        return "it waits for a pull to end"
    return "it starts: it does not answer yet" if condition.hangs else "it starts"


def _troubled(condition: Condition, trouble: str) -> Condition:
    return replace(condition, trouble=trouble, remark="", healthy_since=None)


def _healthy(facts: Facts, condition: Condition, now: float, limits: WatchLimits) -> Condition:
    if not condition.is_answering:  # a young process is neither in trouble nor healthy yet
        # the old trouble stays as long as it may come back; a process that survives its first seconds is past it
        is_past = facts.state == "RUNNING" or condition.trouble in (STOPPED_BY_PERSON, ENDING)
        trouble = "" if is_past else condition.trouble
        return replace(condition, trouble=trouble, remark=_start_remark(facts, condition))
    since = now if condition.healthy_since is None else condition.healthy_since
    is_forgiven = now - since >= limits.healthy
    partly = [
        f"{item.name} is only {100 * item.vram_bytes // item.size_bytes} % on its card: it is too big for the card"
        for item in facts.models
        if facts.has_card and 0 < item.vram_bytes < item.size_bytes
    ]
    return replace(
        condition, trouble="", remark="; ".join(partly), healthy_since=since, start_pause=None,
        pause=None if is_forgiven else condition.pause,
        next_restart_at=0.0 if is_forgiven else condition.next_restart_at,
    )  # fmt: skip
