"""A plugin of supervisord that starts its programs at once.

supervisord waits one second for its first event before it starts a program (supervisor 4.3, supervisord.py: runforever
polls first, and then lets its groups make their transitions). It gives itself and its events to plugins, which its
configuration names as RPC interfaces: at the event that supervisord runs, this plugin makes the transitions.
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
    """The used part of supervisord (supervisor.supervisord: Supervisor)."""

    process_groups: dict[str, _Group]


class _Interface:
    """An RPC interface without methods; only its creation matters."""


def make_interface(supervisord: _Supervisord) -> _Interface:
    """Start the programs as soon as supervisord runs; supervisord calls this in its only thread."""

    from supervisor import events  # noqa: PLC0415 - not needed to write the configuration

    def start_all(event: object) -> None:
        for group in sorted(supervisord.process_groups.values()):
            group.transition()

    events.subscribe(events.SupervisorRunningEvent, start_all)
    return _Interface()
