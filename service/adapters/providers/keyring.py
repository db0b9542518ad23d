"""The keys of an account, read from where its settings name them, and again when they seem to have changed.

Anybody can send a notification with a wrong signature, which makes the keys be read again. What is read is therefore
compared first, and only texts that were not seen before are made into keys, which is what takes long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from threading import Lock
from typing import Generic, TypeVar

from service.adapters.providers.secrets import AccountSettingsError

Keys = TypeVar("Keys")
Texts = Mapping[str, str]


class KeyRing(Generic[Keys]):
    """Keys that can be replaced without a restart: `read` gives the secrets as they are written, `made` what they are.

    Both raise AccountSettingsError; the texts are not kept.
    """

    def __init__(self, read: Callable[[], Texts], made: Callable[[Texts], Keys]) -> None:
        """Raises AccountSettingsError naming the secret that can't be used."""
        self._read = read
        self._made = made
        self._reading = Lock()
        texts = read()
        self._seen = _digest(texts)
        self.present = made(texts)

    def read_again(self, used: Keys) -> bool:
        """Whether there are other keys than those that were used; they are read again to see.

        Many calls may be refused at once when a key has changed: one of them reads, the others wait for it.
        """
        with self._reading:
            if self.present is used:
                try:
                    texts = self._read()
                    if (digest := _digest(texts)) != self._seen:
                        self._seen = digest
                        self.present = self._made(texts)
                except AccountSettingsError:  # Half written, say: the next failure reads them again.
                    return False
            return self.present is not used


def _digest(texts: Texts) -> bytes:
    digest = blake2b(digest_size=32)
    for name, text in texts.items():
        digest.update(f"{name}:{len(text)}:{text};".encode())
    return digest.digest()
