"""YAML to a located document, straight from PyYAML's events.

Events are flat, so nesting is bounded here and not by anybody's recursion. Aliases share one immutable node
and are counted as often as they stand: a "billion laughs" file is small in memory and refused by its count.
Only plain data is read: a tag that would make an object is an error. Scalars follow PyYAML's YAML 1.1 rules,
with one exception: dates are text, because nothing in a job is a date.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import yaml

from meshpeer.adapters.specfile.broken import BrokenDocument
from meshpeer.core.jobs.located import (
    DOCUMENT_DEPTH_MAX,
    DOCUMENT_NODES_MAX,
    Entry,
    Located,
    Mapping,
    Place,
    Scalar,
    Sequence,
)


class _Mark(Protocol):
    """A position; PyYAML's two parsers have a class each."""

    line: int
    column: int


class _Loader(Protocol):
    """What is used of PyYAML's safe loaders, with the types that its stubs leave out."""

    def check_event(self) -> bool: ...

    def get_event(self) -> yaml.Event: ...

    def resolve(self, kind: type[yaml.Node], value: str, implicit: tuple[bool, bool]) -> str: ...

    def dispose(self) -> None: ...


_CORE = "tag:yaml.org,2002:"
_MERGE = "<<"
_TRUE = frozenset(("yes", "true", "on"))


def read_yaml(text: str) -> Located:
    """Returns the one document of a YAML text; raises ``BrokenDocument``."""
    forbidden = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if forbidden is not None:
        place = _place_of_offset(text, forbidden.start())
        raise BrokenDocument(f"the character {forbidden[0]!r} is not allowed", place)
    loader: _Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        return _Builder(loader).document()
    except yaml.MarkedYAMLError as error:
        what = " ".join(filter(None, (error.context, error.problem)))
        raise BrokenDocument(what, _place(error.problem_mark or error.context_mark)) from error
    finally:
        loader.dispose()


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    mapping: bool
    place: Place | None
    anchor: str | None
    children: list[Located] = field(default_factory=list)
    """Items; in a mapping, keys and values in turn."""
    size: int = 1


class _Builder:
    """Consumes the events of one document."""

    def __init__(self, loader: _Loader) -> None:
        self._loader = loader
        self._anchors: dict[str, Located] = {}
        self._open: list[_Open] = []

    def document(self) -> Located:
        root: Located | None = None
        documents = 0
        while self._loader.check_event():
            event = self._loader.get_event()
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    place = _place(event.start_mark)
                    raise BrokenDocument("a second document starts here", place, "keep one job a file")
            finished = self._take(event)
            if finished is not None and self._open:
                self._attach(finished, event)
            elif finished is not None:
                root = finished
        if root is None:
            raise BrokenDocument("the file is empty", Place(1, 1), "start with name: and tasks:")
        return root

    def _take(self, event: yaml.Event) -> Located | None:
        """Opens or closes a collection; returns a node that is complete with this event."""
        place = _place(event.start_mark)
        match event:
            case yaml.ScalarEvent():
                return self._remember(event.anchor, self._scalar(event))
            case yaml.AliasEvent():
                return self._alias(event)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                if len(self._open) == DOCUMENT_DEPTH_MAX:
                    raise BrokenDocument(f"it nests deeper than {DOCUMENT_DEPTH_MAX}", place)
                mapping = isinstance(event, yaml.MappingStartEvent)
                _refuse_tag(event.tag, "map" if mapping else "seq", place)
                self._open.append(_Open(mapping=mapping, place=place, anchor=event.anchor))
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                done = self._open.pop()
                return self._remember(done.anchor, _closed(done))
        return None

    def _attach(self, node: Located, event: yaml.Event) -> None:
        """Adds a complete node to the collection around it."""
        around = self._open[-1]
        around.size += node.size
        if around.size > DOCUMENT_NODES_MAX:
            what = f"it has more than {DOCUMENT_NODES_MAX:,} values, aliases counted as often as they stand"
            raise BrokenDocument(what, _place(event.start_mark))
        around.children.append(node)

    def _alias(self, event: yaml.AliasEvent) -> Located:
        node = self._anchors.get(event.anchor or "")
        if node is None:
            inside = any(around.anchor == event.anchor for around in self._open)
            what = f"*{event.anchor} contains itself" if inside else f"nothing is anchored as &{event.anchor}"
            raise BrokenDocument(what, _place(event.start_mark))
        return node

    def _remember(self, anchor: str | None, node: Located) -> Located:
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        place = _place(event.start_mark)
        tag = event.tag
        if tag is None or tag == "!":
            tag = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        value: str | int | float | bool | None
        try:
            match tag.removeprefix(_CORE):
                case "str" | "timestamp" | "merge" | "value":
                    value = event.value
                case "null":
                    value = None
                case "bool":
                    value = event.value.lower() in _TRUE
                case "int":
                    value = _constructor.construct_yaml_int(yaml.ScalarNode(tag, event.value))
                case "float":
                    value = _constructor.construct_yaml_float(yaml.ScalarNode(tag, event.value))
                case _:
                    raise BrokenDocument(f"the tag {tag} is not supported", place, "write plain values")
        except (ValueError, IndexError, OverflowError) as error:
            what = f"{event.value[:40]!r} can't be read as {tag.removeprefix(_CORE)}"
            raise BrokenDocument(what, place, "quote it") from error
        return Scalar(value=value, written=event.value, place=place)


_constructor = yaml.constructor.SafeConstructor()


def _closed(done: _Open) -> Located:
    if not done.mapping:
        return Sequence(items=tuple(done.children), place=done.place, size=done.size)
    entries: list[Entry] = []
    merged: list[Mapping] = []
    for key, value in zip(done.children[::2], done.children[1::2], strict=True):
        if not isinstance(key, Scalar):
            raise BrokenDocument("a key is a list or a mapping", key.place, "quote it if it is text")
        if key.value == _MERGE:
            merged += _merged_mappings(value)
        else:
            entries.append(Entry(key=key, value=value))
    taken = {entry.key.value for entry in entries}
    for mapping in merged:
        for entry in mapping.entries:
            if entry.key.value not in taken:
                taken.add(entry.key.value)
                entries.append(entry)
    return Mapping(entries=tuple(entries), place=done.place, size=done.size)


def _merged_mappings(node: Located) -> list[Mapping]:
    """Returns what ``<<`` pulls in, the strongest first; the mapping's own values are stronger than any."""
    items = node.items if isinstance(node, Sequence) else (node,)
    mappings = [item for item in items if isinstance(item, Mapping)]
    if not mappings or len(mappings) != len(items):
        raise BrokenDocument("'<<' merges mappings only", node.place, "name an anchored mapping: <<: *base")
    return mappings


def _refuse_tag(tag: str | None, kind: str, place: Place | None) -> None:
    if tag not in (None, "!", _CORE + kind):
        raise BrokenDocument(f"the tag {tag} is not supported", place, "write plain values")


def _place(mark: _Mark | None) -> Place | None:
    return Place(mark.line + 1, mark.column + 1) if mark is not None else None


def _place_of_offset(text: str, offset: int) -> Place:
    before = text[:offset]
    return Place(before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1)
