"""`ballast-agent inventory`: every change is shown, whole, remembered and undone by a copy; none happens by itself."""

import json
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.cli import main
from agent.failsafe import fence
from agent.files import alone_with
from agent.inventory import load_inventory
from agent.inventory.changes import What
from agent.inventory.history import Event, History
from agent.inventory.learned import Learned
from tests.unit.agent.test_cli import INVENTORY, complaint, contents, site

pytestmark = pytest.mark.agent

ONE = "02:00:00:00:00:01,10.0.0.1,4028,luxos,S19,F1,R1,1,3000,100\n"
TWO = "02:00:00:00:00:02,10.0.0.2,4028,vnish,S19,F1,R1,2,3000,100\n"
NEW = "02:00:00:00:00:03,10.0.0.3,4028,auto,,F1,R1,3,,\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return site(tmp_path, inventory=ONE + TWO)


def told(capsys: pytest.CaptureFixture[str], config: Path, *arguments: str) -> list[str]:
    assert main(("inventory", *arguments, "--config", str(config))) == 0
    return capsys.readouterr().out.splitlines()


def refused(capsys: pytest.CaptureFixture[str], config: Path, *arguments: str) -> str:
    return complaint(capsys, "inventory", *arguments, "--config", str(config))


def rows(config: Path) -> list[str]:
    return (config.parent / "inventory.csv").read_text().splitlines()[1:]


def file(config: Path, text: str) -> str:
    path = config.parent / "new.csv"
    path.write_text(INVENTORY + text)
    return str(path)


def test_a_web_page_is_put_back_at_its_usual_port(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere, back = config.parent / "elsewhere.csv", config.parent / "back.csv"
    for path, port in ((elsewhere, 8080), (back, 80)):
        path.write_text(f"{INVENTORY.strip()},web_port\n{ONE.strip()},{port}\n{TWO.strip()},\n")
    assert told(capsys, config, "import", str(elsewhere))[0].endswith("web_port 80 -> 8080")
    assert told(capsys, config, "import", file(config, ONE)) == ["no change: all 2 miners stand there so"]
    assert told(capsys, config, "import", str(back))[0].endswith("web_port 8080 -> 80")
    assert rows(config) == (ONE + TWO).splitlines()


def test_a_list_without_a_row_does_not_empty_the_inventory(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "names no miner, so --remove would remove all 2; give" in refused(
        capsys, config, "import", file(config, ""), "--remove"
    )
    assert rows(config) == (ONE + TWO).splitlines()
    assert told(capsys, config, "import", file(config, "")) == ["no change: all 2 miners stand there so"]


def test_a_miner_comes_back_into_another_rack_on_a_feeder_of_that_rack_alone(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = TWO.replace("F1,R1,2", "F2,C9,2")
    told(capsys, config, "import", file(config, other))
    told(capsys, config, "rma", "02:00:00:00:00:01", "--out")
    back = ("rma", "02:00:00:00:00:01", "--back", "--rack", "c9")
    assert "F1 is that of rack R1, and of rack c9 its miners hang on F2; write" in refused(capsys, config, *back)
    told(capsys, config, "import", file(config, other.replace("F2", "F1")))
    told(capsys, config, *back)
    assert ",F1,c9,1," in rows(config)[-1]


def test_a_dry_run_shows_each_row_and_changes_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(config, ONE.replace("10.0.0.1", "10.0.0.9") + NEW)
    before = contents(config.parent)
    assert told(capsys, config, "import", path, "--dry-run", "--remove") == [
        "moved     02:00:00:00:00:01  host 10.0.0.1 -> 10.0.0.9",
        "removed   02:00:00:00:00:02  at 10.0.0.2:4028",
        "added     02:00:00:00:00:03  at 10.0.0.3:4028",
        "3 of 3 miners change",
        "nothing was changed: this was a dry run",
    ]
    assert {name: data for name, data in contents(config.parent).items() if ".lock" not in name} == before


def test_an_import_replaces_the_inventory_keeps_a_backup_and_is_remembered(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (config.parent / "inventory.csv").read_bytes()
    told(capsys, config, "import", file(config, NEW), "--reason", "new rack", "--by", "ana")
    assert rows(config) == (ONE + TWO + NEW).splitlines()
    assert (config.parent / "inventory.csv.bak").read_bytes() == before
    (event,) = History(config.parent / "state").events("02:00:00:00:00:03")
    assert (event.what, event.by, event.reason, event.rack, event.position) == (What.ADDED, "ana", "new rack", "R1", 3)
    assert told(capsys, config, "import", file(config, NEW)) == ["no change: all 3 miners stand there so"]
    assert len(History(config.parent / "state").events()) == 1


def test_what_is_exported_is_imported_without_a_change(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "\n".join(told(capsys, config, "export")) + "\n" == INVENTORY + ONE + TWO
    copy = str(tmp_path / "copy.csv")
    assert told(capsys, config, "export", copy) == [f"2 miners written to {copy}"]
    assert told(capsys, config, "import", copy, "--remove") == ["no change: all 2 miners stand there so"]
    assert "is there already" in refused(capsys, config, "export", copy)


def test_learned_addresses_are_exported_on_demand_and_so_become_the_inventorys(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from datetime import UTC, datetime

    first = load_inventory(tmp_path / "inventory.csv")[0]
    Learned().moved(first, "10.0.0.99", datetime(2026, 1, 1, tzinfo=UTC)).save(tmp_path / "state")
    assert "10.0.0.99" not in "".join(told(capsys, config, "export"))
    told(capsys, config, "export", str(tmp_path / "found.csv"), "--as-found")
    assert told(capsys, config, "import", str(tmp_path / "found.csv"))[0].endswith("host 10.0.0.1 -> 10.0.0.99")
    assert rows(config)[0] == ONE.strip().replace("10.0.0.1,", "10.0.0.99,")


def test_every_wrong_row_is_told_and_nothing_is_changed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(config, "a b,10.0.0.3,0,auto,,,,0,,\n" + "only,two\n" + NEW)
    before = contents(config.parent)
    assert main(("inventory", "import", path, "--config", str(config))) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("ballast-agent: ").split(": ")[0] for line in lines] == [
        "new.csv line 2",
        "new.csv line 2",
        "new.csv line 3",
    ]
    assert contents(config.parent) == before


def test_a_place_that_is_taken_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, config, "import", file(config, NEW + ONE.replace("R1,1", "R1,2")))
    assert "new.csv: 02:00:00:00:00:01: place: R1 2 is 02:00:00:00:00:02's" in line


def test_a_miner_that_no_order_may_touch_cannot_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = site(tmp_path, '[limits]\nnever_touch = ["02:00:00:00:00:01"]\n', ONE + TWO)
    path = file(config, TWO)
    assert "never_touch: '02:00:00:00:00:01' is not in" in refused(capsys, config, "import", path, "--remove")
    assert "never_touch" in refused(capsys, config, "rma", "02:00:00:00:00:01", "--out")
    assert "never_touch" in refused(capsys, config, "swap", "02:00:00:00:00:01", "NEW1", "--unseen", "--reason", "x")
    assert rows(config) == (ONE + TWO).splitlines()


def test_a_feeder_that_no_meter_measures_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = site(tmp_path, inventory=ONE, meters="m,feeder,F1,modbus://h/1\n")
    out = told(capsys, config, "import", file(config, NEW.replace("F1", "F9")), "--dry-run")
    assert "note: no meter of meters.csv measures feeder F9" in out


def test_importing_the_inventory_into_itself_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is the inventory itself" in refused(capsys, config, "import", str(config.parent / "inventory.csv"))


def test_a_first_import_makes_the_inventory(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "inventory.csv").unlink()
    told(capsys, config, "import", file(config, NEW))
    assert rows(config) == [NEW.strip()]
    assert (config.parent / "inventory.csv").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_disk_that_takes_nothing_leaves_the_inventory_as_it_was(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = (config.parent / "inventory.csv").read_bytes()
    path = file(config, NEW)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(*((os, "fsync", full) if step == "fsync" else (Path, "rename", full)))
        assert "No space left on device" in refused(capsys, config, "import", path)
    assert (config.parent / "inventory.csv").read_bytes() == before
    told(capsys, config, "import", path)
    events = [event.what for event in History(config.parent / "state").events("02:00:00:00:00:03")]
    # A disk that takes no byte at all may still have taken the line; one that said so is never the last word.
    assert events[-1] is What.ADDED
    assert step == "fsync" or events == [What.ADDED, What.UNDONE, What.ADDED]


def test_a_swap_says_why_the_new_one_could_not_be_asked(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, config, "swap", "02:00:00:00:00:01", "NEW1", "--reason", "fan dead", "--host", "nosuch.invalid")
    assert out[0].startswith("note: nosuch.invalid: not asked: the host name")
    assert "so it was not seen there" in out[0]


def test_a_swap_by_mistake_swapped_back_loses_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    miner, reason = "02:00:00:00:00:01", ("--unseen", "--reason", "wrong rack")
    told(capsys, config, "swap", miner, "SPARE1", *reason)
    assert "nameplate" not in "".join(told(capsys, config, "swap", "SPARE1", miner, *reason))
    assert rows(config) == (ONE + TWO).splitlines()


def test_a_file_that_a_spreadsheet_separated_by_semicolons_is_read(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file(config, NEW)
    Path(path).write_text(Path(path).read_text().replace(",", ";"))
    told(capsys, config, "import", path)
    assert rows(config) == (ONE + TWO + NEW).splitlines()


def test_a_second_change_waits_for_the_first(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as first:
        first.enter_context(alone_with(config.parent / "inventory.csv"))
        monkeypatch.setattr(fence, "pause", lambda _: first.close())
        assert main(("inventory", "import", file(config, NEW), "--config", str(config))) == 0
    assert "waiting for it to end" in capsys.readouterr().err
    assert rows(config) == (ONE + TWO + NEW).splitlines()


def test_two_changes_at_once_do_not_meet(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "pause", lambda _: None)
    with alone_with(config.parent / "inventory.csv"):
        assert main(("inventory", "import", file(config, NEW), "--config", str(config))) == 1
    assert "another command changes it" in capsys.readouterr().err
    assert rows(config) == (ONE + TWO).splitlines()


def test_a_swap_keeps_the_place_and_asks_the_nameplate_anew(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--reason: it is missing" in refused(capsys, config, "swap", "02:00:00:00:00:01", "NEW1")
    out = told(
        capsys, config, "swap", "02:00:00:00:00:01", "NEW1", "--unseen", "--reason", "fan dead", "--host", "10.0.0.8"
    )
    assert out[0] == "NEW1 stands where 02:00:00:00:00:01 stood: rack R1, position 1"
    assert "its nameplate is not known" in out[1]
    assert rows(config)[0] == "NEW1,10.0.0.8,4028,auto,,F1,R1,1,,"


def test_a_new_control_board_is_the_same_miner_under_another_name(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(
        capsys,
        config,
        "swap",
        "02:00:00:00:00:01",
        "02:00:00:00:00:0F",
        "--board",
        "--unseen",
        "--reason",
        "board burnt",
    )
    assert rows(config)[0] == ONE.strip().replace("00:01,", "00:0f,")


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("swap", "NOBODY", "NEW1", "--unseen", "--reason", "x"), "NOBODY: is not in the inventory"),
        (
            ("swap", "02:00:00:00:00:01", "02:00:00:00:00:02", "--unseen", "--reason", "x"),
            "is in the inventory already",
        ),
        (("swap", "02:00:00:00:00:01", "a b12", "--unseen", "--reason", "x"), "miner_id: 'a b12' has characters"),
        (
            ("swap", "02:00:00:00:00:01", "NEW1", "--unseen", "--reason", "x", "--host", "10.0.0.2"),
            "10.0.0.2:4028 is 02:00",
        ),
        (("swap", "02:00:00:00:00:01", "zz", "--unseen", "--reason", "x"), "NEW_ID: 'zz' is no MAC address, and no"),
        (("import", "/dev/zero"), "cannot be read: it is a pipe or a device; save what it gives as a file, and give"),
        (("import", "FIFO"), "cannot be read: it is a pipe or a device; save what it gives as a file, and give that"),
        (("import", "/tmp"), "cannot be read: Is a directory; it is a folder: give a file in it"),
        (("rma", "NOBODY", "--out"), "is not in the inventory"),
        (("rma", "NOBODY", "--back"), "the history has no row of it"),
        (("rma", "02:00:00:00:00:01", "--back"), "is in the inventory already"),
        (("rma", "02:00:00:00:00:01"), "one of the arguments --out --back is required"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], cause: str
) -> None:
    pipe = config.parent / "pipe.csv"
    os.mkfifo(pipe)
    arguments = tuple(str(pipe) if each == "FIFO" else each for each in arguments)
    assert cause in refused(capsys, config, *arguments)
    assert rows(config) == (ONE + TWO).splitlines()
    assert not (config.parent / "state/history.jsonl").exists()


def test_a_miner_sent_away_comes_back_as_it_was(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    miner = "02:00:00:00:00:01"
    told(capsys, config, "rma", miner, "--out", "--reason", "hash board")
    assert rows(config) == [TWO.strip()]
    told(capsys, config, "rma", miner, "--back", "--host", "10.0.0.31")
    assert rows(config) == [TWO.strip(), ONE.strip().replace("10.0.0.1,", "10.0.0.31,")]


def test_a_miner_whose_place_was_given_away_comes_back_elsewhere(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    miner = "02:00:00:00:00:01"
    told(capsys, config, "swap", miner, "SPARE1", "--unseen", "--reason", "hash board")
    assert "noted as sent away" in told(capsys, config, "rma", miner, "--out")[0]
    assert "is SPARE1's" in refused(capsys, config, "rma", miner, "--back")
    back = ("rma", miner, "--back", "--host", "10.0.0.31", "--rack", "R7", "--position", "4")
    assert "--feeder-id: it is missing: F1 is that of rack R1" in refused(capsys, config, *back)
    told(capsys, config, *back, "--feeder-id", "F1")
    assert rows(config)[-1] == "02:00:00:00:00:01,10.0.0.31,4028,luxos,S19,F1,R7,4,3000,100"
    assert "swapped for 02:00:00:00:00:01  R1 1   hash board; " in told(capsys, config, "history", miner)[1]
    whats = [event.what for event in History(config.parent / "state").events(miner)]
    assert whats == [What.SWAPPED, What.RMA_OUT, What.RMA_BACK]
    assert [event.miner_id for event in History(config.parent / "state").events("r7")] == [miner]


def test_a_history_cut_off_in_the_middle_of_a_line_is_read_and_added_to(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(capsys, config, "rma", "02:00:00:00:00:01", "--out")
    history = History(config.parent / "state")
    history.path.write_bytes(history.path.read_bytes() + b'{"at": "2026')
    told(capsys, config, "rma", "02:00:00:00:00:01", "--back")
    assert [event.what for event in history.events()] == [What.RMA_OUT, What.RMA_BACK]
    lines = told(capsys, config, "history", "--json")
    assert [json.loads(line)["what"] for line in lines] == ["rma out", "rma back"]


def test_an_empty_history_says_so(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, config, "history") == ["nothing has happened yet"]
    assert told(capsys, config, "history", "R9") == ["nothing is known of R9"]


def test_a_line_of_the_history_is_read_back_as_it_was_written() -> None:
    event = Event(
        "2026-01-01T00:00:00+00:00", "ana", What.SWAPPED, "NEW", "OLD", "R1", 0, "F1", "why", "what", {"a": "b"}
    )
    assert Event.of(event.line()) == event
