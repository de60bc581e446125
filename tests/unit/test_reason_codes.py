"""The guide names every reason code that an order can end with, and none that no code gives."""

import ast
import re
from collections.abc import Iterator

from sitelink.types import Reason
from tests.architecture.source import REPOSITORY, modules

GUIDE = REPOSITORY / "docs/orders-to-miners.md"
SOURCES = ("agent/cgminer", "agent/local_curtail", "agent/vault", "agent/site_files.py", "proto/sitelink/verbs.py")
GIVEN_BY = {
    *("Verdict", "ReadBack", "Result", "Refused", "BadCommand"),
    *("shows", "shows_commanded_stop", "_less", "_refused"),
}
KEPT_IN = re.compile(r"reason|_why_|NOT_HASHING|_SETTINGS")
CODE = re.compile(r"[a-z]+(?:_[a-z]+)*")


def texts(node: ast.expr | None) -> Iterator[str]:
    """The code that an expression stands for, whichever way it is decided."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from (*texts(node.body), *texts(node.orelse))
    elif isinstance(node, ast.Tuple):
        for item in node.elts:
            yield from texts(item)
    elif isinstance(node, ast.Dict):
        for item in node.values:
            yield from texts(item)


def given() -> set[str]:
    """Every code that the sources give."""
    found: set[str] = set()
    for module in modules(*SOURCES):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                for value in [*node.args, *(word.value for word in node.keywords)] if name in GIVEN_BY else ():
                    found.update(texts(value))
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(KEPT_IN.search(ast.unparse(target)) for target in targets):
                    found.update(texts(node.value))
            elif isinstance(node, ast.FunctionDef) and KEPT_IN.search(node.name):
                for inner in ast.walk(node):
                    found.update(texts(inner.value) if isinstance(inner, ast.Return) else ())
    return found


def documented() -> set[str]:
    """Every code of the guide's chapter on them."""
    chapter = GUIDE.read_text("utf-8").partition("## Reason codes")[2]
    return set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", chapter))


def test_the_search_finds_codes_of_every_form():
    assert {
        "feeder_did_not_drop",
        "feeder_too_noisy",
        "still_paused",
        "outlet_off",
        "no_reply",
        "older_epoch",
    } <= given()


def test_every_reason_code_is_documented():
    assert given() - documented() == set()


def test_no_reason_code_is_documented_that_nothing_gives():
    assert documented() - given() - {reason.value for reason in Reason} == set()


def test_what_a_reading_can_carry_is_documented():
    assert {reason.value for reason in Reason} - documented() == set()
