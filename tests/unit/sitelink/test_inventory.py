"""A list is taken whole or not at all; each broken row names file, line, field, cause and what to write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sitelink.inventory import (
    DIALECTS,
    MeterEntry,
    MinerEntry,
    read_meters,
    read_miners,
    sound_miners,
    usable_miners,
    write_miners,
)
from sitelink.meter_source import ModbusSource
from sitelink.miner_ids import canonical, is_mac
from sitelink.rows import BadList
from sitelink.units import TeraHashPerSecond, Watts

pytestmark = pytest.mark.agent

HEADER = "miner_id,host,port,dialect,model,feeder_id,rack,position,nameplate_w,nameplate_ths"
ROW = "aa:bb:cc:dd:ee:01,10.0.0.1,4028,luxos,Antminer S19,F1,C1-R2,3,3250,110"
METERS = "meter_id,kind,feeder_id,url"


def miners(*lines: str):
    return read_miners("inventory.csv", "\n".join((*lines, "")).encode())


def meters(*lines: str):
    return read_meters("meters.csv", "\n".join((*lines, "")).encode())


def test_a_good_list_is_read() -> None:
    first, second = miners(HEADER, ROW, "", "SERIAL9,miner-2,4029,AUTO,,,,0,,")
    assert (first.miner_id, first.host, first.port, first.dialect) == ("aa:bb:cc:dd:ee:01", "10.0.0.1", 4028, "luxos")
    assert (first.nameplate_w, first.nameplate_ths, first.rack, first.position) == (3250, 110, "C1-R2", 3)
    assert (second.miner_id, second.dialect, second.nameplate_w, second.feeder_id) == ("SERIAL9", "auto", None, "")


@pytest.mark.parametrize("written", ["AA-BB-CC-DD-EE-01", "AA:BB:CC:DD:EE:01", "aabb.ccdd.ee01", "aa:bb:cc:dd:ee:01"])
def test_a_mac_has_one_form_however_it_is_written(written: str) -> None:
    (miner,) = miners(HEADER, ROW.replace("aa:bb:cc:dd:ee:01", written))
    assert is_mac(written)
    assert miner.miner_id == canonical(written) == "aa:bb:cc:dd:ee:01"
    with pytest.raises(BadList, match="stands twice"):
        miners(HEADER, ROW, ROW.replace("aa:bb:cc:dd:ee:01", written).replace("10.0.0.1", "10.0.0.2"))


@pytest.mark.parametrize("serial", ["202108251234", "AABBCCDDEE01", "SMTTYRHBCJAAI01B2", "AA-BB:CC-DD:EE-01", "aa:bb"])
def test_a_serial_stays_as_it_is_even_one_of_twelve_digits(serial: str) -> None:
    (miner,) = miners(HEADER, ROW.replace("aa:bb:cc:dd:ee:01", serial))
    assert not is_mac(serial)
    assert miner.miner_id == canonical(serial) == serial


def test_columns_may_stand_in_another_order_and_a_byte_order_mark_is_no_letter() -> None:
    names, values = HEADER.split(","), ROW.split(",")
    text = ",".join(reversed(names)) + "\n" + ",".join(reversed(values)) + "\n"
    assert read_miners("inventory.csv", text.encode("utf-8-sig"))[0].host == "10.0.0.1"


@pytest.mark.parametrize(
    ("change", "field", "cause", "fix"),
    [
        ({2: "abc"}, "port", "'abc' is not a number", "write the TCP port, usually 4028"),
        ({2: "70000"}, "port", "70000 is not between 1 and 65535", "usually 4028"),
        ({0: ""}, "miner_id", "it is empty", "write the miner's MAC address or serial number"),
        ({0: "a b"}, "miner_id", "'a b' has characters that do not belong there", "MAC address"),
        ({1: ""}, "host", "it is empty", "IP address"),
        ({1: "a..b"}, "host", "characters that do not belong", "IP address"),
        ({1: "10.0.0.1/x"}, "host", "characters that do not belong", "IP address"),
        ({3: "bitcoin"}, "dialect", "'bitcoin' is not known", "write one of luxos, whatsminer"),
        ({4: "S21\0"}, "model", "cannot be printed", "write letters that can be read"),
        ({5: "F\u202e1"}, "feeder_id", "cannot be printed", "write letters that can be read"),
        ({6: "C1\x1b[2J"}, "rack", "cannot be printed", "write letters that can be read"),
        ({7: "3000000000"}, "position", "3000000000 is not between 0 and 100000", "the place in the rack"),
        ({7: "x"}, "position", "'x' is not a number", "the place in the rack"),
        ({8: "3k"}, "nameplate_w", "'3k' is not a number", "nameplate figure in W"),
        ({9: "-1"}, "nameplate_ths", "-1 is out of range", "TH/s, or leave it empty"),
        ({9: "nan"}, "nameplate_ths", "nan is out of range", "leave it empty"),
    ],
)
def test_a_broken_row_names_its_place_cause_and_remedy(
    change: dict[int, str], field: str, cause: str, fix: str
) -> None:
    values = ROW.split(",")
    for place, value in change.items():
        values[place] = value
    other = ROW.replace(":01", ":02").replace("10.0.0.1", "10.0.0.2")
    with pytest.raises(BadList) as caught:
        miners(HEADER, other, "", ",".join(values))
    message = str(caught.value)
    assert message.startswith(f"inventory.csv line 4: {field}: ")
    assert cause in message
    assert fix in message.split("; ", 1)[1]
    assert "\n" not in message


@pytest.mark.parametrize(
    ("lines", "place", "cause"),
    [
        ((), "line 1: miner_id", "the column is missing"),
        ((HEADER + ",colour",), "line 1: colour", "unknown"),
        ((HEADER + ",rack",), "line 1: rack", "doubled"),
        ((HEADER, "a,b"), "line 2: port", "the row has 2 fields instead of 10"),
        ((HEADER, ROW + ",1,2"), "line 2", "the row has 12 fields"),
        ((HEADER, ROW, ROW), "line 3: miner_id", "stands twice"),
        ((HEADER, ROW, ROW.replace("aa:", "AA:").replace("10.0.0.1", "10.0.0.2")), "line 3: miner_id", "stands twice"),
        ((HEADER, ROW, ROW.replace("aa:", "ab:")), "line 3: host", "stands twice"),
        ((HEADER, '"unclosed,1'), "line 2: row", "unexpected end of data"),
    ],
)
def test_a_broken_list_names_its_place(lines: tuple[str, ...], place: str, cause: str) -> None:
    with pytest.raises(BadList) as caught:
        miners(*lines)
    assert f"inventory.csv {place}" in str(caught.value)
    assert cause in str(caught.value)


def test_all_that_is_wrong_is_told_at_once_row_by_row_and_field_by_field() -> None:
    other = ROW.replace(":01", ":02").replace("10.0.0.1", "10.0.0.2")
    with pytest.raises(BadList) as caught:
        miners(HEADER, ROW.replace("4028,luxos", "0,lux"), "a,b", ROW, other.replace(",3,3250", ",4,x"), ROW, other)
    told = [complaint.split(": ")[:2] for complaint in caught.value.complaints]
    assert told == [
        ["inventory.csv line 2", "port"],
        ["inventory.csv line 2", "dialect"],
        ["inventory.csv line 3", "port"],
        ["inventory.csv line 5", "nameplate_w"],
        ["inventory.csv line 6", "miner_id"],
        ["inventory.csv line 7", "position"],
    ]
    assert str(caught.value).endswith("(and 5 more such complaints)")


def test_two_miners_cannot_stand_at_one_place_of_a_rack_but_may_both_stand_nowhere() -> None:
    other = ROW.replace(":01", ":02").replace("10.0.0.1", "10.0.0.2")
    with pytest.raises(BadList, match="line 3: position: 'C1-R2 3' stands twice; two miners cannot stand at one place"):
        miners(HEADER, ROW, other)
    assert len(miners(HEADER, ROW.replace("C1-R2", ""), other.replace("C1-R2", ""))) == 2


def test_a_written_list_is_read_back_and_says_no_more_than_it_must() -> None:
    plain = miners(HEADER, ROW)
    assert write_miners(plain).decode() == f"{HEADER}\n{ROW}\n"
    whole = MinerEntry(
        "A",
        "h",
        1,
        "vnish",
        'x "19", y',
        "F",
        "R",
        2,
        Watts(3250.5),
        None,
        8080,
        "hall-b",
        "http://10.0.0.9/3?pdu=netio",
    )
    assert read_miners("i.csv", write_miners([*plain, whole])) == (*plain, whole)


OUTLETS = f"{HEADER},outlet"
OTHER = ROW.replace(":01", ":02").replace("10.0.0.1", "10.0.0.2").replace(",3,3250", ",4,3250")
COIL = "modbus://10.9.0.1/1?coil=7"


@pytest.mark.parametrize(
    ("outlet", "cause"),
    [
        ("modbus://10.9.0.1/1?coil=70000", "'70000' is not between 0 and 65535"),
        ("modbus://10.9.0.1/1", "does not say which coil it is"),
        ("http://10.9.0.1/3", "does not say which PDU it is"),
        ("10.9.0.1:502", "names no switch"),
    ],
)
def test_a_mistyped_outlet_is_refused_by_line_and_may_be_left_out_by_who_runs(outlet: str, cause: str) -> None:
    lines = (OUTLETS, f"{OTHER},{COIL}", f"{ROW},{outlet}")
    with pytest.raises(BadList) as caught:
        miners(*lines)
    message = str(caught.value)
    assert message.startswith("inventory.csv line 3: outlet: ")
    assert cause in message
    assert message.endswith("write modbus://HOST:PORT/UNIT?coil=N or http://HOST:PORT/OUTLET?pdu=NAME")
    data = "\n".join((*lines, "")).encode()
    for read in (usable_miners, sound_miners):
        entries, complaints = read("inventory.csv", data)
        assert ([entry.outlet for entry in entries], complaints) == ([COIL, ""], (message,))


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [
        (COIL, "modbus://10.9.0.1:502/1?coil=7&off=1", "coil 7 of unit 1 at 10.9.0.1:502"),
        ("http://pdu-1/3?pdu=netio", "http://PDU-1:80/3?pdu=tasmota", "outlet 3 of the PDU at pdu-1:80"),
    ],
)
def test_one_switch_feeds_one_miner_and_written_twice_is_used_for_neither(one: str, other: str, name: str) -> None:
    lines = (OUTLETS, f"{ROW},{one}", f"{OTHER},{other}")
    with pytest.raises(BadList, match=f"line 3: outlet: {name} is that of line 2 too; a switch feeds one miner"):
        miners(*lines)
    entries, _ = usable_miners("inventory.csv", "\n".join((*lines, "")).encode())
    assert [entry.outlet for entry in entries] == ["", ""]
    assert len(miners(OUTLETS, f"{ROW},{COIL}", f"{OTHER},{COIL}1")) == 2


def test_who_runs_leaves_out_nothing_but_outlets() -> None:
    data = "\n".join((OUTLETS, f"{ROW},x", f"{OTHER.replace('4028', '0')},{COIL}")).encode()
    with pytest.raises(BadList, match="line 2: outlet"):
        usable_miners("inventory.csv", data)


TEXT = st.text("aZ09 ,;\"'=-\n\u00e9", max_size=12).map(str.strip)


@given(
    st.lists(
        st.builds(
            MinerEntry,
            miner_id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,47}", fullmatch=True),
            host=st.ip_addresses(v=4).map(str),
            port=st.integers(1, 65535),
            dialect=st.sampled_from(DIALECTS),
            model=TEXT,
            feeder_id=TEXT,
            rack=TEXT,
            position=st.integers(0, 100_000),
            nameplate_w=st.none() | st.floats(1e-6, 1e8).map(Watts),
            nameplate_ths=st.none() | st.floats(1e-6, 1e8).map(TeraHashPerSecond),
            web_port=st.integers(1, 65535),
            credentials=TEXT,
            outlet=st.integers(0, 9).map("modbus://10.9.0.1/1?coil={}&wiring=checked".format),
        ),
        max_size=4,
        unique_by=(
            lambda each: each.miner_id.lower(),
            lambda each: each.host,
            lambda each: each.position,
            lambda each: each.outlet,
        ),
    )
)
def test_whatever_is_written_is_read_back_equal(entries: list[MinerEntry]) -> None:
    assert read_miners("inventory.csv", write_miners(entries)) == tuple(entries)


def test_what_is_not_text_is_named() -> None:
    with pytest.raises(BadList, match=r"x\.csv: it is not UTF-8 text; save it as CSV"):
        read_miners("x.csv", b"\xff\xfe\x00")


def test_a_name_longer_than_the_cloud_keeps_is_refused() -> None:
    assert miners(HEADER, ROW.replace("aa:bb:cc:dd:ee:01", "x" * 48))[0].miner_id == "x" * 48
    with pytest.raises(BadList, match="line 2: miner_id"):
        miners(HEADER, ROW.replace("aa:bb:cc:dd:ee:01", "x" * 49))


def test_a_quoted_field_may_hold_a_line_break() -> None:
    first, second = miners(HEADER, ROW.replace("Antminer S19", '"Antminer\nS19"'), "B,10.0.0.2,4028,auto,,,,0,,")
    assert (first.model, second.miner_id) == ("Antminer\nS19", "B")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_in_one_line(body: str) -> None:
    message = ""
    try:
        read_miners("inventory.csv", f"{HEADER}\n{body}".encode(errors="replace"))
    except BadList as error:
        message = str(error)
    assert message.isprintable()


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "rig-1", "rig_1.site.", "a" * 63 + ".b", "fe80::1", "::1", "7.rig", "10.0.0.8.site"]
)
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    assert miners(HEADER, ROW.replace("10.0.0.1", host))[0].host == host
    url_host = f"[{host}]" if ":" in host else host
    assert meters(METERS, f"m,site,,modbus://{url_host}/1")[0].source.host == host


@pytest.mark.parametrize(
    "host", ["10.0.0.010", "10.8", "10.0.0.300", "0x0a.0.0.8", "167772168", "10.0.0.8.", "1::2::3", ":", "12345::"]
)
def test_what_is_written_like_an_address_and_is_none_is_refused(host: str) -> None:
    with pytest.raises(BadList, match=r"line 2: host: .* is no address; write the miner's IP address or host name"):
        miners(HEADER, ROW.replace("10.0.0.1", host))


@pytest.mark.parametrize(
    ("one", "other"), [("::1", "0:0::1"), ("FE80::0A", "fe80::a"), ("10.0.0.8", "::ffff:10.0.0.8"), ("Rig", "rig")]
)
def test_one_address_is_one_however_it_is_written(one: str, other: str) -> None:
    second = ROW.replace(":01", ":02").replace("C1-R2", "C1-R3")
    with pytest.raises(BadList, match=r"line 3: host: .* stands twice"):
        miners(HEADER, ROW.replace("10.0.0.1", one), second.replace("10.0.0.1", other))


@pytest.mark.parametrize("between", [",", ";", "\t"])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("empty_columns", [0, 3])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_spreadsheets_write_is_read(between: str, told: bool, empty_columns: int, end: str) -> None:
    lines = [line.replace(",", between) + between * empty_columns for line in (HEADER, ROW)]
    text = end.join(([f"sep={between}"] if told else []) + [*lines, between * 9, ""])
    (miner,) = read_miners("inventory.csv", text.encode("utf-8-sig"))
    assert (miner.host, miner.rack, miner.nameplate_ths) == ("10.0.0.1", "C1-R2", 110)
    with pytest.raises(BadList, match=f"inventory.csv line {4 + told}: host: it is empty"):
        read_miners("inventory.csv", (text + lines[1].replace("10.0.0.1", "")).encode())


def test_a_column_without_a_name_is_told_unless_it_stands_at_the_end() -> None:
    with pytest.raises(BadList, match="line 1: a column without a name: the column is unknown"):
        miners(HEADER.replace(",model", ",,model"), ROW)
    with pytest.raises(BadList, match="line 2: nameplate_ths: the row has 11 fields instead of 10"):
        miners(HEADER + ",", ROW + ",what is this")


def test_a_decimal_comma_is_read_where_commas_do_not_separate_fields() -> None:
    row = ROW.replace(",", ";")
    header = HEADER.replace(",", ";")
    (miner,) = miners(header, row.replace("110", "104,5").replace("3250", "0,125"))
    assert (miner.nameplate_w, miner.nameplate_ths) == (0.125, 104.5)
    with pytest.raises(BadList, match="line 2: nameplate_w: '3,250' can be read in two ways; write 3250"):
        miners(header, row.replace("3250", "3,250"))
    with pytest.raises(BadList, match="line 2: nameplate_ths: '104,5' is not a number"):
        miners(HEADER, ROW.replace("110", '"104,5"'))


def test_meters_are_read() -> None:
    lines = (METERS, "m1,site,,modbus://127.0.0.1:5020/1?register=0", "m2,feeder,F1,modbus://meter-2/7?register=40")
    assert meters(*lines) == (
        MeterEntry("m1", "site", "", ModbusSource("127.0.0.1", 5020, 1)),
        MeterEntry("m2", "feeder", "F1", ModbusSource("meter-2", 502, 7, 40)),
    )


@pytest.mark.parametrize(
    ("row", "field", "cause"),
    [
        ("m,house,,modbus://h/1", "kind", "'house' is not known"),
        ("m,feeder,,modbus://h/1", "feeder_id", "it is empty"),
        ("m,site,,ftp://h/1", "url", "is no Modbus TCP address, page or file"),
        ("m,site,,modbus:///1", "url", "names no host"),
        ("m,site,,modbus://h/x", "url", "'x' does not fit"),
        ("m,site,,modbus://h/300", "url", "'300' does not fit"),
        ("m,site,,modbus://h:99999/1", "url", "is not an address"),
        ("m,site,,modbus://h/1?register=70000", "url", "'70000' does not fit"),
        ("m,site,,modbus://a..b:5020/2?register=0", "url", "names a host or port that cannot be"),
        (f"m,site,,modbus://{'a' * 64}/2", "url", "names a host or port that cannot be"),
        ("m,site,,modbus://h:0/1", "url", "names a host or port that cannot be"),
        ("m,site,,modbus://h/1?reg=40", "url", "says more than host, port, unit and register"),
        ("m,site,,modbus://h/1?register=", "url", "'' does not fit"),
        ("m,site,,modbus://h/1?register=40&register=41", "url", "says more than"),
        ("m,site,,modbus://h/1#register=40", "url", "says more than"),
        ("m,site,,modbus://me@h/1", "url", "has a user in it"),
        (",site,,modbus://h/1", "meter_id", "it is empty"),
    ],
)
def test_a_broken_meter_row_names_its_place_and_cause(row: str, field: str, cause: str) -> None:
    with pytest.raises(BadList) as caught:
        meters(METERS, row)
    assert str(caught.value).startswith(f"meters.csv line 2: {field}: ")
    assert cause in str(caught.value)


def test_two_meters_cannot_measure_one_feeder() -> None:
    rows = ("m1,feeder,F1,modbus://h/1", "m2,feeder,F1,modbus://h/2")
    with pytest.raises(BadList, match="line 3: feeder_id: 'F1' stands twice"):
        meters(METERS, *rows)
