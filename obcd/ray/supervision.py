"""`obcd ray up` itself: it runs the session of the keeper, and starts it again when Ray is lost.

It does not import Ray, so that it outlives what Ray does to a process whose head is gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from obcd.clock import monotonic
from obcd.errors import NoEndpointError
from obcd.notify import notify
from obcd.ray.link import RaySession, Said
from obcd.ray.place import KeeperPlace
from obcd.ray.session import Order

logger = logging.getLogger(__name__)

#: Seconds between two tries to reach Ray again, from, to; a session that lived longer begins with the first again.
PAUSES = (2.0, 30.0)


def supervise(order: Order, place: KeeperPlace, sleep: Callable[[float], None] = time.sleep) -> None:
    """Keep the servers until `obcd ray down` has ended them.

    Raises:
        NoEndpointError: If Ray cannot be reached at the first try; later it is tried without end.
        ObcdError: What no other try would change.
    """
    pause, was_connected = PAUSES[0], False
    while True:
        began, sentence = monotonic(), "the session with Ray was ended by another process"
        with RaySession(order.to_json()) as session:
            try:
                if _keep(session, place):
                    return
            except NoEndpointError as error:
                if not (was_connected or session.is_connected):
                    raise
                sentence = str(error)
            was_connected = was_connected or session.is_connected
        if monotonic() - began > PAUSES[1]:
            pause = PAUSES[0]
        logger.warning("%s; trying again in %.0f s", sentence, pause, extra={"action": "ray_lost"})
        place.show({**place.read(), "trouble": sentence})
        notify(STATUS=sentence)
        sleep(pause)
        pause = min(2 * pause, PAUSES[1])


def _keep(session: RaySession, place: KeeperPlace) -> bool:
    """Follow one session; return whether the servers have been ended for good."""
    for line in session.lines():
        if line.kind is Said.CONNECTED:
            logger.info("connected to Ray", extra={"action": "ray_connected"})
            notify(READY=1, STATUS="connected to Ray")
        elif line.kind is Said.BEAT:
            place.show(line.document)
            notify(WATCHDOG=1, STATUS=f"{line.document['servers']} servers, {line.document['target']} wanted")
        elif line.kind is Said.RESULT:
            return bool(line.document["ended"])
    return False
