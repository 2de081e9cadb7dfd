"""Secrets are cut out of addresses, and nothing else is."""

import pytest

from core.errors import SecretInAddress, checked_address

PW = "s3cr3t"


def test_an_address_with_a_secret_is_refused():
    for address in (f"http://h/#{PW}", f"s3://{PW}@b"):
        with pytest.raises(SecretInAddress) as raised:
            checked_address(address)
        assert PW not in str(raised.value)
    assert checked_address(f"SELECT 'http://u:{PW}@h'")
