"""A child is ready when it says so itself."""

import sys

import pytest

from cloud.core.errors import Refused
from cloud.infra.supervisor import ProcessService

SAY_SO = "import os, sys; os.write(int(sys.argv[2]), b'1')"


def child(program: str, ready_within_s: float = 20) -> ProcessService:
    command = [sys.executable, "-S", "-c", program]
    return ProcessService("child", command, announces=True, ready_within_s=ready_within_s)


def test_it_has_started_once_it_said_so() -> None:
    service = child(f"{SAY_SO}; import time; time.sleep(600)")
    service.start()
    assert service.alive()
    service.stop()
    assert not service.alive()


def test_one_that_ends_first_is_told_with_its_own_code() -> None:
    with pytest.raises(Refused, match="child ended at its start with code 3") as caught:
        child("import sys; sys.exit(3)").start()
    assert caught.value.code == "child_ended"


def test_one_that_says_nothing_is_ended() -> None:
    service = child("import time; time.sleep(600)", ready_within_s=0.2)
    with pytest.raises(Refused, match=r"child is not ready after 0\.2 s"):
        service.start()
    assert not service.alive()
