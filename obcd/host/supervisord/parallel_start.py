"""A plugin of supervisord's that starts its programs at once.

supervisord waits a whole second for its first event before it starts anything (supervisor 4.3, supervisord.py:
runforever polls first, and only then lets its groups make their transitions). It offers its plugins, named in its
configuration as RPC interfaces, itself and its events: at the event that it runs, this one has the transitions made.
"""

from __future__ import annotations

from typing import Protocol

#: For supervisord's configuration.
FACTORY = f"{__name__}:make_interface"


class _Group(Protocol):
    """The programs of a group (supervisor.process: ProcessGroupBase)."""

    def __lt__(self, other: _Group, /) -> bool: ...

    def transition(self) -> None: ...


class _Supervisord(Protocol):
    """What is used of supervisord (supervisor.supervisord: Supervisor)."""

    process_groups: dict[str, _Group]


class _Interface:
    """An RPC interface without methods: being made is all that it is for."""


def make_interface(supervisord: _Supervisord) -> _Interface:
    """Start the programs as soon as supervisord runs; called by it, in its only thread."""

    from supervisor import events  # noqa: PLC0415 - whoever only writes the configuration does not need it

    def start_all(event: object) -> None:
        for group in sorted(supervisord.process_groups.values()):
            group.transition()

    events.subscribe(events.SupervisorRunningEvent, start_all)
    return _Interface()
