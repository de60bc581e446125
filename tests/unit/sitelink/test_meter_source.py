"""Where a meter is read, as an operator writes it; every refusal says what to write instead."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sitelink.meter_source import BadSource, FileSource, ModbusSource, PageSource, Selectors, parse_source

pytestmark = pytest.mark.agent


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("modbus://10.0.0.9/3", ModbusSource("10.0.0.9", 502, 3)),
        ("modbus://[fe80::1]:1502/0?register=65532", ModbusSource("fe80::1", 1502, 0, 65_532)),
        ("modbus://gw/255?map=eastron-sdm630", ModbusSource("gw", 502, 255, map_name="eastron-sdm630")),
        ("http://10.0.0.9", PageSource("10.0.0.9", 80, "/", Selectors())),
        (
            "http://pdu:8080/cm?cmnd=Status%208#power=StatusSNS.ENERGY.Power&energy=StatusSNS.ENERGY.Total",
            PageSource(
                "pdu",
                8080,
                "/cm?cmnd=Status%208",
                Selectors("StatusSNS.ENERGY.Power", "StatusSNS.ENERGY.Total", 1.0, 1e3),
            ),
        ),
        (
            "file:///run/meter.json#power=p&power_unit=MW&energy=e&energy_unit=Wh&max_age_s=5",
            FileSource("/run/meter.json", Selectors("p", "e", 1e6, 1.0), 5.0),
        ),
        ("file:///run/meter", FileSource("/run/meter", Selectors(), 30.0)),
    ],
)
def test_each_form_is_understood(url: str, source: object) -> None:
    assert parse_source(url) == source


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("", "no Modbus TCP address, page or file"),
        ("https://h/x", "no Modbus TCP address, page or file"),
        ("modbus://h", "'' does not fit"),
        ("modbus://h/1?map=", "is not the name of a map"),
        ("modbus://h/1?map=../../etc/passwd", "is not the name of a map"),
        ("modbus://h/1?map=a&register=3", "says more than"),
        ("modbus://h/1?register=3&x=1", "says more than"),
        ("http:///x", "names no host"),
        ("http://me:secret@h/x", "has a user in it"),
        ("http://h/x#watts=3", "watts is not known for a page"),
        ("http://h/x#power=a&power=b", "a selector stands twice"),
        ("http://h/x#power=", "a selector stands twice or is empty"),
        ("http://h/x#power=a..b", "names no place"),
        ("http://h/x#power=a&power_unit=kWh", "a unit is not known"),
        ("http://h/x#max_age_s=5", "max_age_s is not known for a page"),
        ("http://h/a b", "characters that no address has"),
        ("http://h/\r\nX: y", "characters that no address has"),
        ("file://host/x", "not the whole path"),
        ("file:x", "not the whole path"),
        ("file:///x#max_age_s=0", "'0' does not fit"),
        ("http://h:abc/x", "is not an address"),
    ],
)
def test_anything_else_is_refused_with_its_cause(url: str, cause: str) -> None:
    with pytest.raises(BadSource) as caught:
        parse_source(url)
    assert cause in str(caught.value)
    assert caught.value.fix.startswith("write ")


@given(
    st.text(max_size=80)
    | st.text(max_size=60).map(lambda text: f"modbus://{text}")
    | st.text().map("http://h/".__add__)
)
def test_no_text_raises_anything_else(url: str) -> None:
    with contextlib.suppress(BadSource):
        assert isinstance(parse_source(url), ModbusSource | PageSource | FileSource)
