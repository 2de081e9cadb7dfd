"""Secrets are cut out of addresses, and nothing else is."""

import pytest

from core.addresses import without_secrets
from core.errors import SecretInAddress, UserError, checked_address

PW = "s3cr3t"


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        (f"http://u:{PW}@h/x", "http://***@h/x"),
        (f"http://u:{PW}/{PW}@h/x", "http://***@h/x"),
        (f"http://u:{PW}@{PW}@h/", "http://***@h/"),
        (f"https://{PW}@h/x", "https://***@h/x"),
        (f"http:/u:{PW}@h", "http:/***@h"),
        (f"s3://KEY:{PW}@bucket/p, and 's3://b'", "s3://***@bucket/p, and 's3://b'"),
        (f"hf://datasets/u:{PW}@x/y", "hf://datasets/***@x/y"),
        (f"postgresql://me:{PW}@h/db", "postgresql://***@h/db"),
        (f"postgresql://h/db?password={PW}", "postgresql://h/db?password=***"),
        (f"postgres:host=h password = '{PW}' dbname=x", "postgres:host=h password = '***' dbname=x"),
        (f"https://h/?a=1&X-Amz-Signature={PW}&sig={PW}", "https://h/?a=1&X-Amz-Signature=***&sig=***"),
        (f"http://h/#{PW}", "http://h/#***"),
        (f"Authorization: Bearer {PW}", "Authorization: Bearer ***"),
        (f"AWS_SECRET_ACCESS_KEY={PW} AWSAccessKeyId={PW}", "AWS_SECRET_ACCESS_KEY=*** AWSAccessKeyId=***"),
    ],
)
def test_cut(text: str, cut: str):
    assert without_secrets(text) == without_secrets(cut) == cut
    assert str(UserError(text)) == cut


@pytest.mark.parametrize(
    "text",
    [
        "hf://owner/name@0123abc", "https://h:8080/a@b", "https://[::1]:80/a@b", "postgresql://me@h:5432/db", "s3://b/p",
        "max_tokens=512, first_tokens=3", "a: b@c", "the key=value pairs", "https://h/?page=2",
    ],
)  # fmt: skip
def test_left(text: str):
    assert without_secrets(text) == text
    assert checked_address(text) == text


def test_an_address_with_a_secret_is_refused():
    for address in (f"http://h/#{PW}", f"s3://{PW}@b"):
        with pytest.raises(SecretInAddress) as raised:
            checked_address(address)
        assert PW not in str(raised.value)
    assert checked_address(f"SELECT 'http://u:{PW}@h'")
