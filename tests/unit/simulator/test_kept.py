import hashlib

import pytest

from simulator.kept import HIGHEST_LEVEL, LOWEST_LEVEL, factory, version_in
from sitelink.units import Watts

NAMEPLATE = Watts(3000.0)


@pytest.mark.parametrize(
    ("mode", "limit_w", "level"),
    [
        ("normal", None, 1.0),
        ("low", None, 0.72),
        ("high", None, 1.08),
        ("normal", 2400, 0.8),
        ("low", 2400, 0.72),
        ("low", 1500, 0.5),
        ("high", 2400, 0.8),
        ("normal", 100, LOWEST_LEVEL),
        ("normal", 9000, HIGHEST_LEVEL),
    ],
)
def test_the_lower_of_mode_and_limit_holds_within_what_electronics_can(mode, limit_w, level):
    kept = factory("whatsminer", 3)
    kept.mode = mode
    kept.limit_w = None if limit_w is None else Watts(limit_w)
    assert kept.level(NAMEPLATE) == pytest.approx(level)


def test_a_device_leaves_the_factory_with_its_account_and_comes_to_the_site_with_pools():
    kept = factory("vnish", 12)
    assert (kept.user, kept.password, len(kept.pools)) == ("admin", "admin", 2)
    assert all(pool.user == "site.12" for pool in kept.pools)
    assert factory("whatsminer", 0, "s3cret").password == "s3cret"


@pytest.mark.parametrize(
    ("image", "version"),
    [(b"\x00\x01version=2026.1.0-rc1\x00rest", "2026.1.0-rc1"), (b"no name in it", "sim-"), (b"version= x", "sim-")],
)
def test_an_image_names_its_version_or_is_named_by_its_digest(image, version):
    digest = hashlib.sha256(image).hexdigest()
    found = version_in(image, digest)
    assert found == version if not version.startswith("sim-") else found == f"sim-{digest[:12]}"
