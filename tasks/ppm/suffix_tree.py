"""A suffix tree of many sequences that grows symbol by symbol and counts what followed every context.

Ukkonen's (1995) on-line construction for a set of sequences, each closed by an end mark, with the counts that Bunton
(1996) keeps in it: a node stands for a context, and the count of an edge says how often its first symbol followed the
context above. A context that lies within an edge has only ever been followed by one symbol: it is called deterministic.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

ROOT = 0
NO_NODE = -1
END_MARK = -1
"""Closes every sequence in the tree; symbols of sequences are never negative."""
OPEN = 1 << 62
"""Where a leaf's edge ends: it grows with its sequence."""


class Place(NamedTuple):
    """A context in the tree: a node, or `matched` symbols down the edge from `node` to `child`."""

    node: int
    child: int = NO_NODE
    matched: int = 0

    @property
    def deterministic(self) -> bool:
        """Within an edge: one symbol alone has followed."""
        return self.child != NO_NODE


START = Place(ROOT)
"""The empty context."""

Counts = tuple[int, int]
"""How often a symbol followed: in all, and as news to every longer context (update exclusion)."""


class SuffixTree:
    """The contexts of all symbols learnt so far.

    Counts along an edge belong to its first symbol. While the sequence that is being learnt passes along an edge, the
    count that held before it came by is kept aside (Bunton's virtual nodes): that is what the contexts within the edge
    have seen. All contexts in use are suffixes of that sequence, so what is kept aside is found by their lengths.
    """

    def __init__(self) -> None:
        self._text: list[int] = []
        self._first = [0]
        self._end = [0]
        self._link = [NO_NODE]
        self._depth = [0]
        self._children: list[dict[int, int]] = [{}]
        self._count = [0]
        self._news = [0]
        self._passing: dict[int, tuple[int, Counts]] = {}

    def copy(self) -> SuffixTree:
        """A tree that knows the same and learns on its own."""
        twin = SuffixTree()
        for name, known in vars(self).items():
            setattr(twin, name, known.copy())
        twin._children = [children.copy() for children in self._children]
        return twin

    def learn(self, sequence: Iterable[int]) -> None:
        """Add a whole sequence of symbols."""
        place = START
        for symbol in sequence:
            place = self.grow(place, symbol)
        self.close(place)

    def grow(self, place: Place, symbol: int) -> Place:
        """Learn that `symbol` follows the sequence that has led to `place`, and move there.

        Returns
        -------
        Place
            The longest context ending in `symbol` that the tree holds as one.
        """
        self._text.append(symbol)
        reached = self._insert(place, symbol)
        self._count_up(reached)
        return reached

    def close(self, place: Place) -> None:
        """End the sequence that has led to `place`: what comes next begins without a context."""
        self._text.append(END_MARK)
        self._insert(place, END_MARK)
        self._passing = {}

    def follow(self, place: Place, symbol: int) -> Place:
        """Move from `place` by `symbol`, to the longest context that the tree knows, without learning anything."""
        while not self._occurs(place, symbol):
            if place == START:
                return START
            place = self.shorter(place)
        return self._down(place, symbol)

    def shorter(self, place: Place) -> Place:
        """The same context without its first symbol; not for the empty one."""
        if place.child == NO_NODE:
            return Place(self._link[place.node])
        return self._suffix(place.node, self._first[place.child], place.matched)

    def order(self, place: Place) -> int:
        """Length of the context in symbols."""
        return self._depth[place.node] + place.matched

    def followers(self, place: Place, news: bool = False) -> dict[int, int]:
        """How often each symbol followed the context: in all, or as news to every longer context."""
        if place.child == NO_NODE:
            counts = self._news if news else self._count
            return {symbol: counts[child] for symbol, child in self._children[place.node].items() if symbol >= 0}
        symbol = self._text[self._first[place.child] + place.matched]
        return {} if symbol == END_MARK else {symbol: self._passed(place)[news]}

    def _passed(self, place: Place) -> Counts:
        """Counts of the edge that `place` lies within, without the sequence that is passing along it now."""
        kept = self._passing.get(self.order(place))
        return kept[1] if kept else (self._count[place.child], self._news[place.child])

    def _occurs(self, place: Place, symbol: int) -> bool:
        if place.child == NO_NODE:
            return symbol in self._children[place.node]
        return self._text[self._first[place.child] + place.matched] == symbol

    def _down(self, place: Place, symbol: int) -> Place:
        """One symbol deeper, which is known to be there."""
        child = self._children[place.node][symbol] if place.child == NO_NODE else place.child
        matched = place.matched + 1
        return Place(child) if self._first[child] + matched == self._end[child] else Place(place.node, child, matched)

    def _suffix(self, node: int, first: int, length: int) -> Place:
        """The suffix of the context `length` symbols, text[first:], below `node`."""
        if node == ROOT:
            first, length = first + 1, length - 1
        else:
            node = self._link[node]
        while length > 0:
            child = self._children[node][self._text[first]]
            edge = self._end[child] - self._first[child]
            if length < edge:
                return Place(node, child, length)
            node, first, length = child, first + edge, length - edge
        return Place(node)

    def _insert(self, place: Place, symbol: int) -> Place:
        """Put the last symbol of the text after every suffix of the context that lacks it."""
        unlinked = NO_NODE
        while not self._occurs(place, symbol):
            first, node = self._first[place.child], place.node
            parent = self._split(place) if place.deterministic else node
            self._add_leaf(parent, symbol)
            if unlinked != NO_NODE:
                self._link[unlinked] = parent
            if place == START:
                return START
            unlinked = parent if place.deterministic else NO_NODE
            place = self._suffix(node, first, place.matched) if place.deterministic else Place(self._link[node])
        if unlinked != NO_NODE:
            self._link[unlinked] = place.node
        return self._down(place, symbol)

    def _add(self, first: int, end: int, depth: int, counts: Counts) -> int:
        self._first.append(first)
        self._end.append(end)
        self._depth.append(depth)
        self._link.append(NO_NODE)
        self._children.append({})
        self._count.append(counts[0])
        self._news.append(counts[1])
        return len(self._first) - 1

    def _add_leaf(self, parent: int, symbol: int) -> None:
        self._children[parent][symbol] = self._add(len(self._text) - 1, OPEN, OPEN, (1, 1))

    def _split(self, place: Place) -> int:
        """Make a node of a place within an edge; what lies below keeps the counts from before this pass."""
        node, child, matched = place
        first, passed = self._first[child], self._passed(place)
        middle = self._add(first, first + matched, self._depth[node] + matched, (self._count[child], self._news[child]))
        self._children[node][self._text[first]] = middle
        self._children[middle][self._text[first + matched]] = child
        self._first[child] = first + matched
        self._count[child], self._news[child] = passed
        return middle

    def _count_up(self, place: Place) -> None:
        """Count the last symbol, which led to `place`: after the context it came from, and after all shorter ones."""
        passing: dict[int, tuple[int, Counts]] = {}
        here = place
        while here != START:
            if here.deterministic:
                length = self.order(here)
                kept = self._passing.get(length - 1)
                counts = (self._count[here.child], self._news[here.child])
                passing[length] = kept if kept and kept[0] == here.child else (here.child, counts)
            self._add_one(here, self._count)
            here = self.shorter(here)
        self._add_one(START, self._count)
        self._add_one(place, self._news)
        self._passing = passing

    def _add_one(self, place: Place, counts: list[int]) -> None:
        """A pass along an edge counts once, at the edge's first symbol."""
        if place.deterministic:
            counts[place.child] += place.matched == 1
        else:
            counts[place.node] += self.order(place) - 1 not in self._passing
