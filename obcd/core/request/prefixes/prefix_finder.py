"""Find requests whose prompts begin alike, while they are read: one look at each text, and no second reading. Pure.

The beginnings form a tree for each signature. A node is a beginning that at least two requests share, cut to a multiple
of `STEP` characters; its children differ in the next `STEP` characters. Texts are not kept: a hash table holds, for
each node and each hash of its next characters, the child, or the only request that goes on in this way.

    root ──"Contract 1 …"──► node, 2048 characters ──"What is the …"──► request 0
                                                   ──"Who signs …"────► request 1
         ──"Contract 2 …"──► request 2

Memory is bounded: the table forgets requests that are more than `ENTRIES` apart, and only the latest texts are kept, to
find how long two of them are equal. Time is linear in the length of the texts.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from obcd.core.request.prefixes.prompt_text import prompt_text
from obcd.core.request.records import Request

#: Characters beyond the beginning of all requests that a group shares at least. The beginning of all requests is cut to
#: multiples of this.
FIRST = 512
#: Lengths of shared beginnings are multiples of this, in characters; a divisor of `FIRST`.
STEP = 128
#: Longest beginning that is compared, in characters.
MOST_CHARACTERS = 2**20
#: Entries of each of the two tables.
ENTRIES = 2**17
#: Characters of the latest texts that are kept, twice.
KEPT_CHARACTERS = 2**20
#: Most nodes on the way of one text: a text with a node at every step would take as much time as it takes to parse.
MOST_NODES = 64


class _Node:
    """A beginning that several requests share.

    Attributes:
        number: Its place in `PrefixTree`.
        key: Distinguishes its children from those of other nodes.
        length: Of the beginning, in characters.
        edge: Hash of the part of it that the key of its entry does not cover.
        last: The latest request with this beginning: its text is the likeliest to be kept.
        step: The number of characters beyond it by which its children differ; larger for a present or former root.
    """

    __slots__ = ("edge", "key", "last", "length", "number", "step")

    def __init__(self, number: int, length: int, edge: int, last: int, step: int = STEP) -> None:
        self.number = self.key = number
        self.length = length
        self.step = step
        self.edge = edge
        self.last = last


class _Root:
    """All requests of one signature.

    Attributes:
        common: The beginning of all their texts.
        node: That beginning, cut to a multiple of `FIRST`.
        end: The last of the characters by which its children differ.
    """

    __slots__ = ("common", "end", "node")

    def __init__(self, common: str, node: _Node) -> None:
        self.common = common
        self.node = node
        self.end = 0


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """The shared beginnings that were found. A parent may have a larger number than its child.

    Attributes:
        parents: By node, the node above it; a root is its own parent. Node 0 stands for no node.
        sizes: By node, the length of its beginning in bytes of UTF-8, larger than that of its parent. That of a root is
            the beginning of all requests of one signature.
        places: By ordinal, the lowest node of the request, 0 for a request that was not looked at. May be shorter than
            the job.
    """

    parents: array[int]
    sizes: array[int]
    places: array[int]


class PrefixFinder:
    """Builds the tree of one job.

    Args:
        system: The job's system message.
    """

    def __init__(self, system: str | None = None) -> None:
        self._system = system
        self._roots: dict[int, _Root] = {}
        #: The lists of `PrefixTree`.
        self._parents, self._sizes, self._places = array("I", [0]), array("I", [0]), array("I")
        #: {hash of a node and its next characters: the child, or the only request}, newer and older entries
        self._new: dict[int, _Node | int] = {}
        self._old: dict[int, _Node | int] = {}
        #: {request: its text}, newer and older ones
        self._texts: dict[int, str] = {}
        self._old_texts: dict[int, str] = {}
        self._room = KEPT_CHARACTERS
        self._unused = -2  # a number that is neither a request nor a node; -1 has the hash of -2

    def take(self, request: Request, signature: int, ordinal: int, answers: int = 1) -> None:
        """Add the next request that is not for vectors.

        Args:
            signature: The number of its signature.
            ordinal: The ordinal of its first answer.
            answers: How many answers it gets: as many requests with the same prompt.
        """
        text, root, places = prompt_text(request, self._system), self._roots.get(signature), self._places
        if root is None or len(text) > MOST_CHARACTERS or not text.startswith(root.common):
            text = text[:MOST_CHARACTERS]
            root = self._find_root(signature, text)
        if len(places) < ordinal:
            places.frombytes(bytes(places.itemsize * (ordinal - len(places))))
        node, end = root.node, root.end
        if len(text) >= end:
            key = hash((node.key, text[node.length : end]))
            if answers == 1 and key not in self._new and key not in self._old:  # shares nothing: the shortest way
                self._new[key] = ordinal
            else:
                node = self._descend(node, key, text, ordinal, answers)
            self._texts[ordinal] = text
            self._room -= len(text)
            if self._room < 0:
                self._make_room()
        places.append(node.number)
        if answers > 1:
            places.extend([node.number] * (answers - 1))

    def finish(self) -> PrefixTree:
        """Return the tree of all requests."""
        for root in self._roots.values():
            self._sizes[root.node.number] = _size(root.common, len(root.common))
        return PrefixTree(self._parents, self._sizes, self._places)

    def _descend(self, node: _Node, key: int, text: str, ordinal: int, answers: int) -> _Node:
        """Follow a text to the lowest node that it shares, and add what is new there.

        Args:
            node: The root.
            key: Of the first characters below it.
        """
        end = node.length + node.step
        for _ in range(MOST_NODES):
            found = self._get(key)
            if found is None:
                if answers == 1:
                    self._new[key] = ordinal
                    return node
                return self._add_node(node, key, end, text, len(text) // STEP * STEP, ordinal)  # its answers share it
            if isinstance(found, int):
                node = self._meet(node, key, end, text, ordinal, found)
            elif len(text) >= found.length and hash(text[end : found.length]) == found.edge:
                node, node.last = found, ordinal
            else:
                node = self._divide(node, key, end, text, ordinal, found)
            end = node.length + node.step
            if len(text) < end:
                break
            key = hash((node.key, text[node.length : end]))
        return node

    def _meet(self, above: _Node, key: int, end: int, text: str, ordinal: int, other: int) -> _Node:
        """Return a new node for a text and the only request that began in the same way."""
        known = self._text_of(other)
        length = end if known is None else _shared(text, known, end)
        node = self._add_node(above, key, end, text, length, ordinal)
        self._places[other] = node.number
        if known is not None and len(known) >= length + STEP:
            self._new[hash((node.key, known[length : length + STEP]))] = other
        return node

    def _divide(self, above: _Node, key: int, end: int, text: str, ordinal: int, below: _Node) -> _Node:
        """Return the node at which a text leaves the way to `below`."""
        known = self._text_of(below.last)
        if known is None:  # unknown how much they share beyond the key: nothing more counts from now on
            below.key, below.length, below.edge, below.last = self._unused, end, hash(""), ordinal
            self._unused -= 1
            self._sizes[below.number] = _size(text, end)
            return below
        node = self._add_node(above, key, end, text, _shared(text, known, end), ordinal)
        self._insert(below, node, known)
        return node

    def _find_root(self, signature: int, text: str) -> _Root:
        """Return the root for a text; what it does not share with all others no longer counts as common."""
        root = self._roots.get(signature)
        if root is None:
            self._roots[signature] = root = _Root(text, self._add_root(len(text)))
        elif not text.startswith(root.common):
            self._shorten_common(root, text)
        root.end = root.node.length + root.node.step
        return root

    def _shorten_common(self, root: _Root, text: str) -> None:
        """Shorten what all texts of a signature share; what all but this one share becomes a node."""
        common, below = root.common, root.node
        root.common = common[: _shared(text, common, 0, 1)]
        if len(root.common) >= below.length:
            return
        root.node = self._add_root(len(root.common))
        self._sizes[below.number] = _size(common, below.length)
        below.last = self._unused
        self._texts[below.last] = common
        self._unused -= 1
        self._insert(below, root.node, common)

    def _insert(self, below: _Node, above: _Node, text: str) -> None:
        """Make a node the child of another one.

        Args:
            text: One that has the beginning of `below`.
        """
        end = above.length + above.step
        self._parents[below.number] = above.number
        below.edge = hash(text[end : below.length])
        self._new[hash((above.key, text[above.length : end]))] = below

    def _add_root(self, length: int) -> _Node:
        number = self._add_number(len(self._parents), 0)
        return _Node(number, length // FIRST * FIRST, 0, -1, FIRST)

    def _add_node(self, above: _Node, key: int, end: int, text: str, length: int, ordinal: int) -> _Node:
        node = _Node(self._add_number(above.number, _size(text, length)), length, hash(text[end:length]), ordinal)
        self._new[key] = node
        return node

    def _add_number(self, above: int, size: int) -> int:
        self._parents.append(above)
        self._sizes.append(size)
        return len(self._parents) - 1

    def _get(self, key: int) -> _Node | int | None:
        found = self._new.get(key)
        if found is None:
            found = self._old.get(key)
            if found is not None:
                self._new[key] = found
        return found

    def _text_of(self, ordinal: int) -> str | None:
        return self._texts.get(ordinal) or self._old_texts.get(ordinal)

    def _make_room(self) -> None:
        """Forget the older texts, and the older entries if there are too many: a text adds at most a few of them."""
        self._old_texts, self._texts, self._room = self._texts, {}, KEPT_CHARACTERS
        if len(self._new) >= ENTRIES:
            self._old, self._new = self._new, {}


def _shared(text: str, other: str, start: int, step: int = STEP) -> int:
    """Return the length of the beginning that two texts share, as a multiple of `step`.

    Args:
        start: A multiple of `step`, up to which they are known to be equal.
    """
    low, high = start // step, min(len(text), len(other)) // step
    while low < high:
        middle = (low + high + 1) // 2
        if text[low * step : middle * step] == other[low * step : middle * step]:
            low = middle
        else:
            high = middle - 1
    return low * step


def _size(text: str, length: int) -> int:
    """Return the bytes of the first characters of a text."""
    return length if text.isascii() else len(text[:length].encode("utf-8", "surrogatepass"))
