"""Which endpoints registered hosts offer now: records come in, endpoints go out. Pure; `now` is in monotonic seconds.

    scan ─► sequence changed? ─no, 25 s─► HELD ─no, 115 s─► removed        a record that changes again: OPEN
              │ yes
              ▼
            serving ─► OPEN      draining, or not named any more ─► ENDING      gone ─► removed

A changing sequence is the only sign of life, on the coordinator's own clock: never the time of a file, which a file
server's cache makes old, and never the clock of another machine. The clock of the sequences stands still while the
folder cannot be read, so that a file server that hangs costs no endpoint.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from obcd.config.endpoints import Endpoint
from obcd.hosts.record import CardReading, HostRecord, HostState, RegisteredEndpoint, endpoint_of
from obcd.hosts.scan import OwnedRecord, RefusedRecord, Scan
from obcd.text import duration, plural

#: Seconds without a change after which an endpoint gets no requests, and after which it is removed. With the interval
#: and the limit of a scan both stay below 30 s and 120 s after the last writing.
SILENT_SECONDS, DEAD_SECONDS = 25.0, 110.0
#: Most seconds by which the clock of the sequences moves from one scan to the next: more means that the folder, or this
#: process, stood still.
MOST_STEP_SECONDS = 7.0
#: The reason of an endpoint that ends.
UNNAMED = "its host does not name it any more"
#: Seconds by which the end of an allocation is taken earlier, because the record is read later than it was written.
MARGIN_SECONDS = 10.0
#: Most endpoints of a host that are remembered because they may have requests in flight.
MOST_FORMER = 64
#: Two ends of an allocation that differ by less are the same one.
SAME_END_SECONDS = 5.0


class Standing(Enum):
    """What a registered endpoint gets."""

    OPEN = auto()  # requests
    HELD = auto()  # no new requests for now; what is in flight may finish
    ENDING = auto()  # no requests any more; it is removed when nothing is in flight


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedEndpoint:
    """An endpoint of a registered host.

    Attributes:
        host: The name of the record.
        reason: Why it is not OPEN, for people.
        only_for: The user id whose jobs it serves; None: those of all.
        ends_at: When its allocation ends, in monotonic seconds; what cannot finish before is not sent. None: never.
    """

    endpoint: Endpoint
    host: str
    standing: Standing = Standing.OPEN
    reason: str = ""
    only_for: int | None = None
    ends_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStanding:
    """A record as the coordinator sees it, for people.

    Attributes:
        uid: The owner of the record, -1 if it is not known.
        state: A `HostState`, `silent`, `dead`, or `refused`.
        age: Seconds since the sequence changed; None if it was never seen to change.
        endpoints: The names of the endpoints that are used.
        seconds_left: Until its allocation ends; None: it has no end.
        why: Why the host, or some of its endpoints, are not used; "" if all are.
        cards: What its cards report; none while it is silent.
    """

    name: str
    uid: int
    by: str = ""
    state: str
    age: float | None = None
    endpoints: tuple[str, ...] = ()
    seconds_left: float | None = None
    why: str = ""
    cards: tuple[CardReading, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The servers that the configuration names.

    Attributes:
        urls: E.g. `http://10.0.0.11:11432`.
        places: (address at which one was reached, port): the configuration may name it by another name.
        local_ports: Ports of those on loopback.
    """

    urls: frozenset[str] = frozenset()
    places: frozenset[tuple[str, int]] = frozenset()
    local_ports: frozenset[int] = frozenset()

    def has(self, endpoint: Endpoint, *, is_here: bool) -> bool:
        """Return whether an endpoint that a host names by its address is one of them.

        Args:
            is_here: Whether the host is the coordinator's machine.
        """
        is_same = endpoint.url in self.urls or (endpoint.host, endpoint.port) in self.places
        return is_same or (is_here and endpoint.port in self.local_ports)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the coordinator allows.

    Attributes:
        machine_id: Of the coordinator's machine; loopback addresses count only in records from there.
        owners: The user ids whose endpoints serve the jobs of all users; None: everybody's do.
        most: Most registered endpoints.
        slots: Of an endpoint whose record names none; None: found by measurement.
        taken: What the configuration names.
    """

    machine_id: str = ""
    owners: frozenset[int] | None = None
    most: int = 128
    slots: int | None = None
    taken: Taken = Taken()


@dataclass(slots=True)
class _Host:
    """A record that counts.

    Attributes:
        uid: Its owner.
        changed_at: When its sequence changed, on the clock of the sequences.
        started: The order in which processes registered.
        is_alive: Whether its sequence was seen to change. A record that was there before the coordinator may be dead,
            and another server may listen at its address by now.
        endpoints: {endpoint's name: it}.
        former: {name of an endpoint that it named before and does not name now: it}.
        refusal: Why its newest content does not count; "" if it does.
    """

    record: HostRecord
    uid: int
    changed_at: float
    started: int
    is_alive: bool
    ends_at: float | None = None
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    former: dict[str, Endpoint] = field(default_factory=dict)
    refusal: str = ""


class Roster:
    """The hosts that have registered. One thread at a time."""

    def __init__(self) -> None:
        self._rules = Rules()
        #: What decides about the endpoints, as of the last decision, and the decision.
        self._decided: tuple[Rules, list[object]] | None = None
        self._offered: list[HostedEndpoint] = []
        self._hosts: dict[str, _Host] = {}
        self._refused: Mapping[str, RefusedRecord] = {}
        self._clock = 0.0
        self._scanned_at = -math.inf
        self._place: tuple[int, int] | None = None
        self._was_cut = False
        self._starts = 0
        #: How many endpoints are not used because there are too many.
        self.excess = 0
        #: {URL: the host whose endpoint it is}
        self._claims: dict[str, str] = {}
        #: {host: {its endpoint that is not used: why}}
        self._unused: dict[str, dict[str, str]] = {}
        #: {endpoint's name: it}, those that the hosts name and that are used
        self._used: Mapping[str, HostedEndpoint] = {}

    def is_elsewhere(self, scan: Scan) -> bool:
        """Return whether a scan seems to be of another folder: the file system that has the records is not mounted."""
        if self._place in (None, scan.place):
            return False
        # hosts that have ended say nothing: their records may have been removed together with the folder
        ended = (
            name for name, host in self._hosts.items() if host.record.state == HostState.GONE or self._is_dead(host)
        )
        left = self._hosts.keys() - set(ended)
        return bool(left) and not (self._hosts.keys() & (scan.found.keys() | scan.refused.keys()))

    def observe(self, scan: Scan, now: float) -> None:
        """Take the result of a scan."""
        goes_on = self._place == scan.place and not math.isinf(self._scanned_at)
        if goes_on:
            self._clock += min(now - self._scanned_at, MOST_STEP_SECONDS)
        # where not all files are looked at, a record that was not seen before may be an old one
        is_new = goes_on and not (scan.is_cut or self._was_cut)
        self._scanned_at, self._place, self._was_cut = now, scan.place, scan.is_cut
        for name, found in scan.found.items():
            host = self._hosts.get(name)
            if host is None or host.uid != found.uid:
                self._hosts[name] = self._begin(found, now, is_alive=is_new)
            else:
                self._follow(host, found, now)
        for name in scan.refused.keys() & self._hosts.keys():
            self._hosts[name].refusal = scan.refused[name].why
        gone = self._hosts.keys() - scan.found.keys() - scan.refused.keys()
        for name in [name for name in gone if self._is_dead(self._hosts[name])]:
            del self._hosts[name]
        self._refused = {name: item for name, item in scan.refused.items() if name not in self._hosts}

    def keep_only(self, trusted: Collection[int]) -> None:
        """Forget the records of all users but these at once: the configuration does not list the others any more."""
        self._hosts = {name: host for name, host in self._hosts.items() if host.uid in trusted}

    def pause(self) -> None:
        """Let the clock of the sequences stand still until the next scan: the folder cannot be read."""
        self._scanned_at = math.inf

    def endpoints(self, rules: Rules) -> list[HostedEndpoint]:
        """Return the endpoints that the hosts offer now; one that is missing is to be removed at once."""
        facts: list[object] = [
            (name, host.started, host.is_alive, host.ends_at, host.record.state, host.endpoints, self._phase(host))
            for name, host in self._hosts.items()
        ]
        if self._decided != (rules, facts):  # else every record has at most a new sequence: the usual case
            self._rules, self._decided = rules, (rules, facts)
            self._offered = self._decide()
        return self._offered

    def _decide(self) -> list[HostedEndpoint]:
        living = {name: host for name, host in self._hosts.items() if host.is_alive and not self._is_dead(host)}
        self._unused = {name: {} for name in living}
        named = self._admitted(living)
        claims = self._settle(named, living)
        found: dict[str, HostedEndpoint] = {}
        self.excess = 0
        for key, endpoint, name in named:
            if claims[endpoint.url] != name:
                self._unused[name][key] = f"the host {claims[endpoint.url]} has registered it"
            elif len(found) >= self._rules.most:
                self.excess += 1
                self._unused[name][key] = (
                    f"max_endpoints of [cluster] allows {plural(self._rules.most, 'registered endpoint')}"
                )
            else:
                found[key] = self._offer(endpoint, name, living[name])
        self._claims, self._used = claims, found
        former = {key: (item, name) for name, host in living.items() for key, item in host.former.items()}
        ended = [
            replace(self._offer(item, name, living[name]), standing=Standing.ENDING, reason=UNNAMED)
            for key, (item, name) in former.items()
            if key not in found
        ]
        return [*found.values(), *ended]

    def standings(self, now: float) -> list[HostStanding]:
        """Return all records, as of the last call of `endpoints`, by name."""
        found = [self._standing(name, host, now) for name, host in self._hosts.items()]
        found += [
            HostStanding(name=name, uid=item.uid, state="refused", why=item.why) for name, item in self._refused.items()
        ]
        return sorted(found, key=lambda item: item.name)

    # --- inside --------------------------------------------------------------------------------------------------

    def _begin(self, found: OwnedRecord, now: float, *, is_alive: bool) -> _Host:
        self._starts += 1
        host = _Host(found.record, found.uid, self._clock, self._starts, is_alive)
        host.endpoints = _parse(found.record.endpoints, (), {})
        self._set_end(host, now)
        return host

    def _follow(self, host: _Host, found: OwnedRecord, now: float) -> None:
        """Take a newer content of a record; an older one comes from a cache, and does not count."""
        old, new = host.record, found.record
        host.refusal = ""
        if new.boot == old.boot and new.sequence <= old.sequence:
            return
        host.record, host.changed_at, host.is_alive = new, self._clock, True
        if new.boot != old.boot:
            self._starts += 1
            host.started, host.ends_at = self._starts, None
        self._set_end(host, now)
        if new.endpoints != old.endpoints:
            before, host.endpoints = host.endpoints, _parse(new.endpoints, old.endpoints, host.endpoints)
            kept = list({**host.former, **before}.items())[-MOST_FORMER:]
            host.former = {name: item for name, item in kept if name not in host.endpoints}

    def _set_end(self, host: _Host, now: float) -> None:
        left = host.record.seconds_left
        end = None if left is None else now + left - MARGIN_SECONDS
        if end is None or host.ends_at is None or abs(end - host.ends_at) > SAME_END_SECONDS:
            host.ends_at = end

    def _age(self, host: _Host) -> float:
        return self._clock - host.changed_at

    def _phase(self, host: _Host) -> int:
        return (self._age(host) >= SILENT_SECONDS) + self._is_dead(host)

    def _is_dead(self, host: _Host) -> bool:
        return self._age(host) >= DEAD_SECONDS

    def _judge(self, host: _Host) -> tuple[Standing, str]:
        """Return what the endpoints of a host get, and why not more."""
        if host.record.state == HostState.DRAINING:
            return Standing.ENDING, "its host is draining"
        if self._age(host) >= SILENT_SECONDS:
            return Standing.HELD, f"its record has not changed for {SILENT_SECONDS:.0f} s"
        return Standing.OPEN, ""

    def _settle(self, named: Iterable[tuple[str, Endpoint, str]], living: Mapping[str, _Host]) -> dict[str, str]:
        """Return `{URL: the host that has it}`.

        Of several users the one has it whose host had it before, or was the first; of one user's hosts, the last one.
        """
        candidates: dict[str, list[str]] = {}
        for _, endpoint, name in named:
            candidates.setdefault(endpoint.url, []).append(name)
        settled = {}
        for url, names in candidates.items():
            names.sort(key=lambda name: living[name].started)
            first = self._claims[url] if self._claims.get(url) in names else names[0]
            settled[url] = [name for name in names if living[name].uid == living[first].uid][-1]
        return settled

    def _admitted(self, living: Mapping[str, _Host]) -> list[tuple[str, Endpoint, str]]:
        """Return the endpoints that hosts may name, and their hosts, beginning with those that are used already."""
        admitted = []
        for name, host in living.items():
            if host.record.state == HostState.GONE:
                continue
            for key, endpoint in host.endpoints.items():
                if why := self._objection(endpoint, host):
                    self._unused[name][key] = why
                else:
                    admitted.append((key, endpoint, name))
        return sorted(admitted, key=lambda item: (item[0] not in self._used, living[item[2]].started))

    def _offer(self, endpoint: Endpoint, name: str, host: _Host) -> HostedEndpoint:
        standing, reason = self._judge(host)
        owners = self._rules.owners
        return HostedEndpoint(
            endpoint=endpoint if endpoint.slots is not None else replace(endpoint, slots=self._rules.slots),
            host=name,
            standing=standing,
            reason=reason,
            only_for=None if owners is None or host.uid in owners else host.uid,
            ends_at=host.ends_at,
        )

    def _objection(self, endpoint: Endpoint, host: _Host) -> str:
        """Return why a host may not name an endpoint, "" if it may."""
        rules = self._rules
        is_here = bool(rules.machine_id) and host.record.machine_id == rules.machine_id
        if endpoint.is_loopback and not is_here:
            return "a loopback address counts only on the coordinator's own machine: register with another --bind"
        if rules.taken.has(endpoint, is_here=is_here):
            return "the configuration names it"
        return ""

    def _standing(self, name: str, host: _Host, now: float) -> HostStanding:
        age, why = self._age(host), ""
        state: str = host.record.state
        if state == HostState.GONE:
            why = "its servers have ended"
        elif self._is_dead(host):
            state, why = "dead", f"its record has not changed for {duration(age)}: obcd hosts remove {name}"
        elif not host.is_alive:
            state, why = "silent", "its record has not changed since the coordinator started: it may be old"
        elif self._judge(host)[0] is Standing.HELD:
            state, why = "silent", f"its record has not changed for {duration(age)}"
        elif state == HostState.DRAINING:
            why = "it finishes its requests in flight"
        elif not host.endpoints:
            why = "it names no endpoint"
        unused = [f"{key}: {reason}" for key, reason in self._unused.get(name, {}).items()]
        return HostStanding(
            name=name,
            uid=host.uid,
            by=host.record.by,
            state=state,
            age=age if host.is_alive else None,
            endpoints=tuple(key for key in host.endpoints if key in self._used and self._used[key].host == name),
            seconds_left=None if host.ends_at is None else max(0.0, host.ends_at - now),
            why="; ".join(text for text in (host.refusal, why, *unused[:1], _more(unused)) if text),
            cards=host.record.cards if host.is_alive and not self._phase(host) else (),
        )


def _more(texts: Collection[str]) -> str:
    return f"and {len(texts) - 1} more" if len(texts) > 1 else ""


def _parse(
    new: tuple[RegisteredEndpoint, ...], old: tuple[RegisteredEndpoint, ...], parsed: Mapping[str, Endpoint]
) -> dict[str, Endpoint]:
    """Return `{endpoint's name: it}`; what has not changed is not parsed again."""
    before = dict(zip(old, parsed.values(), strict=True))
    found = [
        before.get(item) or replace(endpoint_of(item.url), gpu=item.gpu, slots=item.slots, yields=item.yields)
        for item in new
    ]
    return {item.name: item for item in found}
