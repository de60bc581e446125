"""No request, however wrong, makes a device fall silent or raise: it answers, asks for more, or hangs up."""

import base64
import hashlib
import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.access import check_digest, give_token
from simulator.dialects import build_firmwares
from simulator.dialects.antminer_web import REALM
from simulator.dialects.luxos import _Session
from simulator.dialects.whatsminer_v3 import salt_of, sign
from simulator.miner import Miner, SiteTime
from simulator.orders import OrderLog
from simulator.roster import ALL_DIALECTS, RosterOptions, build_roster
from simulator.web import WebRequest
from sitelink.clock import ManualClock

FIRMWARES = build_firmwares()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9999) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=6,
)
POOL = {"url": "stratum+tcp://a:1", "user": "u", "pass": "p", "password": "p"}
BODIES = {
    "POST /cgi-bin/set_miner_conf.cgi": {"pools": [POOL], "miner-mode": 0, "bitmain-work-mode": "0", "freq-level": "1"},
    "POST /cgi-bin/blink.cgi": {"blink": True},
    "POST /cgi-bin/passwd.cgi": {"curPwd": "root", "newPwd": "root", "confirmPwd": "root"},
    "POST /api/v1/auth/login": {"username": "root", "password": "root"},
    "PUT /api/v1/auth/password": {"password": "root"},
    "PUT /api/v1/actions/locate": True,
    "PUT /api/v1/performance/power-target": {"watt": 2500},
    "PATCH /api/v1/performance/power-target/increment": {"watt": 1},
    "PATCH /api/v1/performance/power-target/decrement": {"watt": 1},
    "PUT /api/v1/performance/mode": {"tunermode": {"target": {"powertarget": {"power_target": {"watt": 2500}}}}},
    "PUT /api/v1/pools/batch": [{"name": "x", "pools": [POOL]}],
    "POST /api/v1/settings": {
        "miner": {"pools": [POOL], "overclock": {"preset": "2800"}, "misc": {"remain_stopped_on_reboot": True}},
        "password": {"current": "admin", "pw": "admin"},
    },
    "POST /api/v1/unlock": {"pw": "admin"},
    "POST /api/v1/find-miner": {"on": True},
    "POST /api/v1/mining/stop": None,
    "POST /api/auth": {"username": "admin", "password": "admin"},
    "POST /token": {"command": "token", "user": "admin", "password": "admin"},
    "POST /psu": None,
    "POST /miner": {"param": "Stop", "password": "x"},
    "POST /%ff": None,
    "POST /?a=b&a": None,
}
GROUPS = [{"name": "x", "quota": 1, "pools": [POOL]}]
PARAMETERS = {
    "get.device.info": "miner",
    "get.miner.status": "summary+pools",
    "set.miner.service": "stop",
    "set.miner.pools": [{"pool": "a", "worker": "b", "passwd": "c"}],
    "set.miner.power_limit": 3000,
    "set.miner.power_percent": {"percent": 80, "mode": "fast"},
    "set.miner.power_mode": "low",
    "set.system.led": [{"color": "red", "period": 60, "duration": 20, "start": 0}],
    "set.user.change_passwd": {"account": "super", "old": "super", "new": "super"},
    "set.nothing": None,
}


@st.composite
def bent(draw, sound: object) -> object:
    """Return ``sound`` with one value in it replaced by any other, or taken out."""
    if not isinstance(sound, dict | list) or not sound or draw(st.integers(0, 3)) == 0:
        return draw(JSON)
    keys = list(sound) if isinstance(sound, dict) else list(range(len(sound)))
    key = draw(st.sampled_from(keys))
    inner = draw(bent(sound[key]))
    if isinstance(sound, dict):
        return {name: inner if name == key else value for name, value in sound.items()}
    return [inner if place == key else value for place, value in enumerate(sound)]


QUERIES = (
    "mutation{bosminer{config{updateGroups(groups:$x){__typename}}}}",
    "mutation{bosminer{config{updateAutotuning(input:$x){__typename}}}}",
    "mutation{bosminer{config{updateAutotuning(input:{powerTarget:$x}){__typename}}}}",
    "mutation{bosminer{config{group(id:$x){__typename}}}}",
    "mutation{bosminer{config{group(id:0){addPool(url:$x,user:$x){__typename} removePool(id:$x){__typename}}}}}",
    "mutation{auth{login(username:$x,password:$x){__typename}}}",
    "mutation{bos{setPassword(newPassword:$x){__typename} setFaultLight(enable:$x){__typename}}}",
    "{bosminer{info{fans}}}",
)
COMMANDS = (
    *("stats", "summary+pools", "ascset", "setpool", "profileset", "atmset", "curtail", "logon", "addpool", "pools"),
    *(
        "removepool",
        "switchpool",
        "poolpriority",
        "ledset",
        "get_token",
        "power_off",
        "pause",
        "version",
        "",
        "+",
        "a+b",
    ),
)


def miner_of(dialect: str) -> Miner:
    place = build_roster(RosterOptions("test-1", 1, 7, dialects=(dialect,)))[0]
    return Miner(place, 7, SiteTime(ManualClock(datetime(2026, 5, 8, tzinfo=UTC))), OrderLog(1.0))


MINERS = {dialect: miner_of(dialect) for dialect in ALL_DIALECTS}


def speak(dialect: str, data: bytes, kind: str) -> None:
    """Feed ``data`` to each speech of that kind, as a connection does."""
    miner = MINERS[dialect]
    for speech, _port in FIRMWARES[dialect].speeches(miner):
        if type(speech).__name__ != kind:
            continue
        found = speech.cut(bytearray(data), at_end=True)
        if found is not None:
            request, rest = found
            assert len(request) + len(rest) == len(data)
            assert isinstance(speech.answer(request, "127.0.0.1").data, bytes)


@pytest.mark.parametrize("kind", ["RpcSpeech", "WebSpeech", "FramedSpeech"])
@given(data=st.binary(max_size=200))
@settings(max_examples=40, deadline=None)
def test_any_bytes(kind, data):
    for dialect in ALL_DIALECTS:
        speak(dialect, data, kind)


@given(command=st.sampled_from(COMMANDS), parameter=JSON | st.text(max_size=30), as_text=st.booleans())
@settings(max_examples=120, deadline=None)
def test_any_parameter_of_the_rpc(command, parameter, as_text):
    for dialect in ALL_DIALECTS:
        session = _Session("s3ss10n", 0.0)
        if dialect == "luxos":
            MINERS[dialect].memory["session"] = session
        given = f"{session.name},{parameter}" if dialect == "luxos" else parameter
        data = f"{command}|{given}" if as_text else json.dumps({"command": command, "parameter": given})
        speak(dialect, data.encode("utf-8", "replace"), "RpcSpeech")


@pytest.mark.parametrize("page", BODIES)
@given(data_of=st.data())
@settings(max_examples=60, deadline=None)
def test_any_body_of_any_page(page, data_of):
    method, path = page.split(" ")
    body = data_of.draw(bent(BODIES[page]))
    data = json.dumps(body).encode()
    for dialect in (name for name in ALL_DIALECTS if FIRMWARES[name].web is not None):
        miner = MINERS[dialect]
        token, session = (give_token(miner, kind) for kind in ("token", "session"))
        shown = digest(miner, method, path) if dialect in {"antminer", "hiveon"} else f"Bearer {token}"
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {shown}\r\nToken: {token}\r\n"
            f"Cookie: session_id={session}\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        speak(dialect, head.encode() + data, "WebSpeech")


@given(query=st.sampled_from(QUERIES) | st.text(alphabet='{}()[]:$!.,"a1 \n', max_size=30), value=JSON | bent(GROUPS))
@settings(max_examples=150, deadline=None)
def test_any_query(query, value):
    session = give_token(MINERS["braiins"], "session")
    data = json.dumps({"query": query, "variables": {"x": value}}).encode()
    head = f"POST /graphql HTTP/1.1\r\nCookie: session_id={session}\r\nContent-Length: {len(data)}\r\n\r\n"
    speak("braiins", head.encode() + data, "WebSpeech")


def digest(miner: Miner, method: str, path: str) -> str:
    """What proves the password to a page behind digest."""
    asked = check_digest(miner, WebRequest(method, path, {}), REALM)
    assert asked is not None
    nonce = asked.headers[0][1].partition('nonce="')[2].partition('"')[0]
    kept = miner.kept
    secret, what = (md5(text) for text in (f"{kept.user}:{REALM}:{kept.password}", f"{method}:{path}"))
    response = md5(f"{secret}:{nonce}:{what}")
    return f'Digest username="{kept.user}", realm="{REALM}", nonce="{nonce}", uri="{path}", response="{response}"'


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("command", PARAMETERS)
@given(data_of=st.data(), encrypted=st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_parameter_of_a_framed_command(command, data_of, encrypted):
    parameter = data_of.draw(bent(PARAMETERS[command]))
    miner = MINERS["whatsminer-v3"]
    ts = miner.device_time()
    key = sign(command, miner.kept.password, salt_of(miner), ts)
    if encrypted:
        plain = json.dumps(parameter).encode()
        encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        parameter = base64.b64encode(encryptor.update(plain + bytes(-len(plain) % 16))).decode()
    signed = {"ts": ts, "token": base64.b64encode(key).decode()[:8], "account": "super"}
    body = json.dumps({"cmd": command, "param": parameter, **signed}).encode()
    speak("whatsminer-v3", len(body).to_bytes(4, "little") + body, "FramedSpeech")


DEEP = "[" * 50_000


@pytest.mark.parametrize("dialect", ALL_DIALECTS)
def test_nothing_nested_too_deep(dialect):
    query = json.dumps({"query": "{bosminer{info{fans(x:" + DEEP + ")}}}"})
    bodies = ("{" + f'"a":{DEEP}', DEEP, '{"query":' + DEEP, query)
    for body in bodies:
        speak(dialect, body.encode(), "RpcSpeech")
        speak(dialect, len(body).to_bytes(4, "little") + body.encode(), "FramedSpeech")
        for target in ("/graphql", "/api/v1/settings", "/miner"):
            head = f"POST {target} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
            speak(dialect, (head + body).encode(), "WebSpeech")
