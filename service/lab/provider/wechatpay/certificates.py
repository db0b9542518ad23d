"""The platform's certificates: GET /v3/certificates, encrypted with the APIv3 key."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from service.lab.provider.refusals import RefusedError
from service.lab.provider.signatures import VALID_FROM, VALID_UNTIL
from service.lab.provider.wechatpay.signing import (
    certificate,
    certificate_serial,
    encrypted,
)
from service.lab.provider.wechatpay.visits import Answer, Visit
from service.lab.provider.wechatpay.wire import rfc3339

VALID_MAX = 2
"""While keys change, the one that signs and the one before are both valid."""


class Ask(msgspec.Struct, frozen=True):
    """GET /v3/certificates."""


def certificates(visit: Visit, asked: Ask) -> Answer:
    """The certificates in use, the one that signs first; a merchant in public-key mode has none."""
    if visit.merchant.public_key_mode:
        raise RefusedError(404, "NO_CERTIFICATE", "answers are signed under a public key's id")
    return {"data": [_one(visit, key) for key in visit.account.keys[:VALID_MAX]]}


def _one(visit: Visit, key: str) -> Answer:
    nonce = blake2b(key.encode(), digest_size=6).hexdigest()
    sealed = encrypted(visit.merchant.apiv3_key, nonce, "certificate", certificate(key).encode())
    return {
        "serial_no": certificate_serial(key),
        "effective_time": rfc3339(VALID_FROM),
        "expire_time": rfc3339(VALID_UNTIL),
        "encrypt_certificate": {
            "algorithm": "AEAD_AES_256_GCM",
            "nonce": nonce,
            "associated_data": "certificate",
            "ciphertext": sealed,
        },
    }
