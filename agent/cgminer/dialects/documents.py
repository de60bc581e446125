"""Parts of the documents that web interfaces answer with: lists of objects and objects inside a reply. Pure."""

from typing import Any

from agent.cgminer.sections import Row, Sections, at, rows_of


def part(sections: Sections, section: str, path: str) -> Row:
    """Return the object at ``path`` in the document that ``section`` was answered with; empty when there is none."""
    return at(section, path, _object)(sections) or {}


def listed(sections: Sections, section: str, path: str) -> list[Row]:
    """Return the objects in the list at ``path``; none when there is no list."""
    return at(section, path, rows_of)(sections) or []


def _object(value: Any) -> Row | None:
    return value if isinstance(value, dict) else None
