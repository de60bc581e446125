"""The daemon's loop is the fast one where it is installed, and asyncio's own where it is not."""

import asyncio
import importlib.util
from importlib.machinery import ModuleSpec

import pytest

from agent import loops

pytestmark = pytest.mark.agent


def test_without_the_extra_the_loop_is_asyncios_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    async def which() -> str:
        return type(asyncio.get_running_loop()).__module__.partition(".")[0]

    assert loops.run(which()) == "asyncio"


def test_with_the_extra_it_is_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    uvloop = pytest.importorskip("uvloop", reason="the agent's own install comes without the extra")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None))

    async def which() -> type:
        return type(asyncio.get_running_loop())

    assert issubclass(loops.run(which()), uvloop.Loop)
