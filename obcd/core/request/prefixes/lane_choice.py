"""Choose lanes from the shared beginnings of a job's prompts: by what a server evaluates with them and without. Pure.

If a share `q` of all requests of a signature has a part of the prompt, a slot's cache holds it with the probability
`q`, whatever it served before; except for the first requests, which all slots evaluate at the same time. So
`1 - q` of the part is evaluated again each time a slot turns to other requests. From the leaves of the tree to its
roots, one lane for all requests below a node is compared with the lanes that were chosen below it:

    one lane       the node's part once, and each part below as often as requests without it may come between
    several lanes  the node's part once, and `1 - q` of it for each further lane; the parts below as they were chosen
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from obcd.core.request.prefixes.prefix_finder import PrefixTree

#: Bytes of a prompt that a lane saves on average for each of its requests, at least: less is not worth the order.
LEAST_SAVED = 384
#: Requests with the same beginning that find it in no cache, because they are sent at the same time to different slots.
TOGETHER = 8


class FoundLanes(NamedTuple):
    """The lanes of a job.

    Attributes:
        numbers: By ordinal, the number of the lane, from 1 in the order of their first requests; 0: none.
        shared: By lane, from the first one: the bytes that its requests share beyond what all requests of the signature
            share.
    """

    numbers: array[int]
    shared: array[int]


def choose_lanes(tree: PrefixTree, requests: int, column: Sequence[int] = b"") -> FoundLanes | None:
    """Return the lanes of a job, None if there are none.

    Args:
        requests: How many requests the job has.
        column: By ordinal, the number of its signature, if requests of one root can have different ones: a lane has
            requests of one signature.
    """
    if len(tree.parents) <= 2 or all(node == parent for node, parent in enumerate(tree.parents)):
        return None
    return _numbered(tree, _Choice(tree).lanes(), requests, column)


class _Choice:
    """The choice for one tree; all lists are by node."""

    def __init__(self, tree: PrefixTree) -> None:
        self._tree = tree
        nodes = len(tree.parents)
        here = Counter(tree.places)
        #: Requests whose lowest node this is and that are in no lane yet, and all requests at it and below.
        self._loose = [here[node] for node in range(nodes)]
        self._members = list(self._loose)
        #: The nodes, each before its children.
        self._order = sorted(range(1, nodes), key=tree.sizes.__getitem__)
        #: Bytes that an average request without a lane evaluates of the beginning.
        self._evaluated = [0.0] * nodes
        self._lanes = [0] * nodes
        self._cost_of_one, self._cost_of_lanes = [0.0] * nodes, [0.0] * nodes
        #: Whether all requests below are one lane, or those that are loose.
        self._is_one, self._is_rest = bytearray(nodes), bytearray(nodes)

    def lanes(self) -> list[int]:
        """Return by node the node that stands for the lane of the requests whose lowest node this is; 0: no lane."""
        parents = self._tree.parents
        for node in reversed(self._order):
            if (parent := parents[node]) != node:
                self._members[parent] += self._members[node]
        again = self._weigh()
        for node in reversed(self._order):
            if parents[node] != node and self._evaluated[node] >= LEAST_SAVED:
                self._choose(node, again[node])
        lanes, covers = [0] * len(parents), [0] * len(parents)
        for node in self._order:
            parent = parents[node]
            covers[node] = covers[parent] or (node if self._is_one[node] else 0)
            lanes[node] = covers[node] or (node if self._is_rest[node] else lanes[parent])
        return lanes

    def _weigh(self) -> list[float]:
        """Find what requests without a lane evaluate; return by node the probability that its part is not cached."""
        parents, sizes = self._tree.parents, self._tree.sizes
        again, total = [0.0] * len(parents), [0] * len(parents)
        for node in self._order:
            parent = parents[node]
            if parent == node:
                total[node] = self._members[node]
                continue
            total[node] = total[parent]
            again[node] = 1 - max(0, self._members[node] - TOGETHER) / total[node] if total[node] else 0.0
            self._evaluated[node] = self._evaluated[parent] + (sizes[node] - sizes[parent]) * again[node]
        return again

    def _choose(self, node: int, again: float) -> None:
        parent, members = self._tree.parents[node], self._members[node]
        part = self._tree.sizes[node] - self._tree.sizes[parent]
        units = self._lanes[node] + (1 if self._loose[node] else 0)
        one = part + self._cost_of_one[node]
        several = part * (1 + (units - 1) * again) + self._cost_of_lanes[node]
        if members > 1 and one <= several:
            self._is_one[node], self._lanes[node], self._loose[node] = 1, 1, 0
            several = one
        elif self._loose[node] > 1:
            self._is_rest[node], self._lanes[node], self._loose[node] = 1, units, 0
        self._lanes[parent] += self._lanes[node]
        self._loose[parent] += self._loose[node]
        self._cost_of_lanes[parent] += several
        between = self._members[parent] - members
        self._cost_of_one[parent] += part * min(members, 1 + between) + self._cost_of_one[node]


def _numbered(tree: PrefixTree, lanes: Sequence[int], requests: int, column: Sequence[int]) -> FoundLanes | None:
    """Give the lanes their numbers."""
    chosen: list[Any] = [lanes[place] for place in tree.places]
    node_of: Callable[[Any], int] = int
    if column:
        chosen, node_of = list(zip(chosen, column, strict=False)), itemgetter(0)
    counts = Counter(chosen)  # in the order of the first requests
    kept = [key for key, count in counts.items() if count > 1 and node_of(key)]
    if not kept:
        return None
    number_of = dict.fromkeys(counts, 0) | {key: number for number, key in enumerate(kept, 1)}
    numbers = array("I", map(number_of.__getitem__, chosen))
    numbers.frombytes(bytes(numbers.itemsize * (requests - len(numbers))))
    return FoundLanes(numbers, array("I", [_shared_size(tree, node_of(key)) for key in kept]))


def _shared_size(tree: PrefixTree, node: int) -> int:
    root = node
    while tree.parents[root] != root:
        root = tree.parents[root]
    return tree.sizes[node] - tree.sizes[root]
