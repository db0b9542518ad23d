"""Keys that are replaced while the service runs, and what a stranger's forged notifications cost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from alipay_double import account_of, private_pem, public_pem, settings_of

from service.adapters.providers.alipay.keys import open_keys
from service.adapters.providers.keyring import KeyRing
from service.adapters.providers.secrets import AccountSettingsError, account_error


class Files:
    """Secrets as they are written, and how often something was made of them."""

    def __init__(self) -> None:
        self.texts = {"key": "one"}
        self.made = 0
        self.ring = KeyRing(lambda: dict(self.texts), self._made)

    def _made(self, texts: Mapping[str, str]) -> list[str]:
        self.made += 1
        if texts["key"] == "half":
            raise account_error("city", "key: no private key")
        return [texts["key"]]


def test_keys_are_not_made_again_of_what_has_not_changed() -> None:
    """Each forged notification makes the keys be read again; reading a private key takes 70 ms of everybody's time."""
    files = Files()
    for _ in range(100):
        assert not files.ring.read_again(files.ring.present)
    assert files.made == 1


def test_half_a_key_is_tried_once_and_the_whole_one_is_taken() -> None:
    files = Files()
    used = files.ring.present
    files.texts["key"] = "half"
    for _ in range(100):
        assert not files.ring.read_again(used)
    assert (files.made, files.ring.present) == (2, ["one"])
    files.texts["key"] = "two"
    assert files.ring.read_again(used)
    assert files.ring.present == ["two"]


def test_two_texts_can_not_be_mistaken_for_two_others() -> None:
    files = Files()
    files.texts = {"key": "a", "other": "b"}
    assert files.ring.read_again(used := files.ring.present)
    files.texts = {"key": "a;other:1:b"}
    assert files.ring.read_again(files.ring.present)
    assert files.ring.present is not used


async def test_all_calls_that_were_refused_at_once_find_the_key_that_has_changed() -> None:
    """A call that is told "not changed" while another is still reading would be refused for good."""
    files = Files()
    used = files.ring.present
    files.texts["key"] = "two"
    found = await asyncio.gather(*(asyncio.to_thread(files.ring.read_again, used) for _ in range(32)))
    assert (found, files.made) == ([True] * 32, 2)


def test_an_accounts_keys_are_those_of_its_files(tmp_path: Path) -> None:
    ring = open_keys(account_of("http://127.0.0.1:9", settings_of("zhima", tmp_path)))
    used = ring.present
    assert not ring.read_again(used)
    (tmp_path / "alipay.pem").write_text(public_pem("next"))
    assert ring.read_again(used)
    (tmp_path / "app.pem").write_text(private_pem("app")[:400])
    assert not ring.read_again(ring.present)
    with pytest.raises(AccountSettingsError, match="app_private_key"):
        open_keys(account_of("http://127.0.0.1:9", settings_of("zhima", tmp_path, app_private_key_env="NOWHERE")))
