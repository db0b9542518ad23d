"""Certificate mode (公钥证书): an app's key and Alipay's are named by certificates that Alipay's root has issued.

Requests say which certificate of the app and which roots the merchant has, answers and notifications by which of
Alipay's they are signed. Sources: alipay-sdk-java-all (AntCertificationUtil, AbstractAlipayClient
checkResponseCertSign), alipay-sdk-nodejs-all (antcertutil); real ones with their
numbers: tests/vectors/alipay_certificates.json.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import md5

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from service.adapters.providers.rsa import BadKeyError, checked

RSA_SIGNED = "1.2.840.113549.1.1"
"""What begins the OIDs of certificates that were signed with RSA; only those count among the roots."""
CHAIN_MAX = 5
_PEM = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class Certificate(msgspec.Struct, frozen=True):
    """A certificate by the number that Alipay calls it by (`sn`: MD5 of issuer and serial number, hex)."""

    sn: str
    key: RSAPublicKey
    subject: x509.Name
    not_after: datetime


class Roots(msgspec.Struct, frozen=True):
    """Whom Alipay's certificates are believed for, and the number that these are called by together."""

    sn: str
    certificates: tuple[x509.Certificate, ...]


def read_certificate(text: str) -> Certificate:
    """The certificate of a file of Alipay's, its first one: what issued it may follow. Raises BadKeyError."""
    return _taken(_chain(text)[0])


def read_roots(text: str) -> Roots:
    """alipayRootCert.crt: several, not all of them RSA. Raises BadKeyError.

    Two of the real ones (elliptic curves, with parameters that do not belong there) are refused by the library that
    reads certificates; they issue nothing that we are to believe, and do not count.
    """
    certificates: list[x509.Certificate] = []
    for block in _PEM.findall(text):
        with suppress(BadKeyError):
            certificates.append(_one(block))
    numbers = [_sn(one) for one in certificates if one.signature_algorithm_oid.dotted_string.startswith(RSA_SIGNED)]
    if not numbers:
        raise BadKeyError("none of the certificates is of RSA")
    return Roots("_".join(numbers), tuple(certificates))


def believed(text: str, roots: Roots, known: Certificate, now: datetime) -> Certificate | None:
    """A certificate that Alipay has replaced `known` by, if the roots vouch for it and it is for the same subject: the
    certificates of all merchants' apps are of the same roots, and their owners could sign answers with them.

    The text has the certificate first, then what leads to a root.
    """
    try:
        chain = _chain(text)
        new = _taken(chain[0])
    except BadKeyError:
        return None
    if len(chain) > CHAIN_MAX or new.subject != known.subject or not _valid(chain[0], now):
        return None
    return new if _vouched(chain[0], chain[1:], roots, now) else None


def _vouched(leaf: x509.Certificate, between: Sequence[x509.Certificate], roots: Roots, now: datetime) -> bool:
    """Whether a root has issued the certificate, or what has issued it, and so on."""
    if any(_issued(leaf, root) and _valid(root, now) for root in roots.certificates):
        return True
    for place, issuer in enumerate(between):
        if _issued(leaf, issuer) and _valid(issuer, now) and _may_issue(issuer):
            return _vouched(issuer, [*between[:place], *between[place + 1 :]], roots, now)
    return False


def _issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):  # Another issuer, or a key like SM2.
        return False
    return True


def _may_issue(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _taken(certificate: x509.Certificate) -> Certificate:
    try:
        key = checked(certificate.public_key())
    except BadKeyError:
        raise
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKeyError(f"no certificate: {error}") from None
    return Certificate(_sn(certificate), key, certificate.subject, certificate.not_valid_after_utc)


def _sn(certificate: x509.Certificate) -> str:
    name = f"{certificate.issuer.rfc4514_string()}{certificate.serial_number}"
    return md5(name.encode(), usedforsecurity=False).hexdigest()


def _chain(text: str) -> list[x509.Certificate]:
    found = [_one(block) for block in _PEM.findall(text)]
    if not found:
        raise BadKeyError("no certificate: nothing between BEGIN CERTIFICATE and END CERTIFICATE")
    return found


def _one(block: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(block.encode())
    except ValueError as error:
        raise BadKeyError(f"no certificate: {error}") from None
