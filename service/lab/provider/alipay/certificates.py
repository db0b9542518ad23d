"""Certificate mode (公钥证书) of the Alipay face: roots, what they have issued, and the numbers of it.

What a merchant downloads at the open platform comes from here: the certificate of his app, Alipay's own with what has
issued it, and the roots, one of which is not RSA, as in the real file. Sources: alipay-sdk-java-all
(AntCertificationUtil), alipay-sdk-nodejs-all (antcertutil.ts).
"""

from __future__ import annotations

from base64 import b64encode
from functools import lru_cache
from hashlib import blake2b, md5

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from service.lab.provider.alipay.codes import GatewayRefusedError
from service.lab.provider.alipay.visits import Answer, Visit
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Account
from service.lab.provider.signatures import VALID_FROM, VALID_UNTIL, private_key, public_half, public_key

DOWNLOAD = "alipay.open.app.alipaycert.download"
ROOT, ISSUER_OF_APPS, ISSUER_OF_ALIPAYS = (
    f"Ant Financial Certification Authority {name} (simulated)" for name in ("R1", "Class 1 R1", "Class 2 R1")
)
ELLIPTIC_ROOT = "Ant Financial Certification Authority E1 (simulated)"


class Ask(msgspec.Struct, frozen=True):
    """alipay.open.app.alipaycert.download."""

    alipay_cert_sn: str = ""


def download(visit: Visit, asked: Ask) -> Answer:
    """One of Alipay's certificates of this app, with what has issued it. Nobody signs this answer."""
    account = visit.account
    if account.authority:
        for key in account.keys:
            pem = alipay_certificate(account, key)
            if certificate_sn(pem) == asked.alipay_cert_sn:
                return {"alipay_cert_content": b64encode(pem.encode()).decode()}
    raise RefusedError(404, "NO_CERTIFICATE", "no such certificate")


def check_numbers(account: Account, params: dict[str, str]) -> None:
    """A request in certificate mode names the app's certificate and the roots; raises GatewayRefusedError.

    Codes: opendocs.alipay.com/common/02kdnf; that they come with 40002: merchants' public logs.
    """
    wanted = {
        "app_cert_sn": (certificate_sn(app_certificate(account)), "isv.app-cert-not-exist"),
        "alipay_root_cert_sn": (roots_sn(account), "isv.invalid-alipay-root-cert-sn"),
    }
    for name, (number, code) in wanted.items():
        if not params.get(name):
            raise GatewayRefusedError("40002", f"isv.missing-{name.replace('_', '-')}", f"缺少{name}参数")
        if params[name] != number:
            raise GatewayRefusedError("40002", code, f"{name} is another one")


def signer_sn(account: Account, key: str) -> str:
    """The number under which Alipay signs with a key, "" where the app is not in certificate mode."""
    return certificate_sn(alipay_certificate(account, key)) if account.authority else ""


def app_certificate(account: Account) -> str:
    """appCertPublicKey_<app id>.crt, PEM."""
    assert account.alipay is not None
    subject = f"{account.alipay.seller_id}-{account.alipay.app_id}"
    return _issued(account.authority, account.alipay.public_key, subject, ISSUER_OF_APPS)


def alipay_certificate(account: Account, key: str) -> str:
    """alipayCertPublicKey_RSA2.crt for one of Alipay's keys, PEM: the certificate, then what has issued it."""
    assert account.alipay is not None
    subject = f"支付宝(中国)网络技术有限公司-{account.alipay.seller_id}"
    own = _issued(account.authority, public_half(key), subject, ISSUER_OF_ALIPAYS)
    return own + authority_certificate(account, ISSUER_OF_ALIPAYS)


def authority_certificate(account: Account, name: str) -> str:
    """The certificate of who has issued a certificate, PEM."""
    return _authority(account.authority, name, ROOT)


def root_certificates(account: Account) -> str:
    """alipayRootCert.crt, PEM: an elliptic one, which does not count, and the one that does."""
    return f"{_elliptic(account.authority)}\n{_authority(account.authority, ROOT, ROOT)}"


def roots_sn(account: Account) -> str:
    """alipay_root_cert_sn: the numbers of the roots that are of RSA, which is one here."""
    return certificate_sn(_authority(account.authority, ROOT, ROOT))


@lru_cache(maxsize=256)
def certificate_sn(pem: str) -> str:
    """The number that Alipay calls a certificate by: MD5 of its issuer and its serial number."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    issuer = {part.oid: part.value for part in certificate.issuer}
    names = ("CN", NameOID.COMMON_NAME), ("OU", NameOID.ORGANIZATIONAL_UNIT_NAME), ("O", NameOID.ORGANIZATION_NAME)
    told = ",".join(f"{short}={issuer[oid]!s}" for short, oid in (*names, ("C", NameOID.COUNTRY_NAME)))
    return md5(f"{told}{certificate.serial_number}".encode(), usedforsecurity=False).hexdigest()


@lru_cache(maxsize=256)
def _issued(authority: str, key: str, subject: str, issuer: str) -> str:
    """The certificate of a key by one of the authority's names, PEM; always the same."""
    return _signed(authority, public_key(key), _name(subject, "Alipay", "a merchant"), issuer, None)


@lru_cache(maxsize=64)
def _authority(authority: str, subject: str, issuer: str) -> str:
    """The certificate of one of the names under which the authority issues: they share its key."""
    can_issue = x509.BasicConstraints(ca=True, path_length=None)
    return _signed(authority, private_key(authority).public_key(), _ours(subject), issuer, can_issue)


@lru_cache(maxsize=64)
def _elliptic(authority: str) -> str:
    key = ec.derive_private_key(_digest(authority), ec.SECP384R1())
    name = _ours(ELLIPTIC_ROOT)
    builder = x509.CertificateBuilder(name, name, key.public_key(), _digest(authority), VALID_FROM, VALID_UNTIL)
    return builder.sign(key, SHA384()).public_bytes(Encoding.PEM).decode()


def _signed(
    authority: str, key: RSAPublicKey, subject: x509.Name, issuer: str, constraints: x509.BasicConstraints | None
) -> str:
    number = _digest(f"{issuer}/{subject.rfc4514_string()}/{key.public_numbers().n}")
    builder = x509.CertificateBuilder(_ours(issuer), subject, key, number, VALID_FROM, VALID_UNTIL)
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(private_key(authority), SHA256()).public_bytes(Encoding.PEM).decode()


def _ours(name: str) -> x509.Name:
    return _name(name, "Certification Authority", "Ant Financial")


def _name(common: str, unit: str, organization: str) -> x509.Name:
    parts = [
        (NameOID.COUNTRY_NAME, "CN"),
        (NameOID.ORGANIZATION_NAME, organization),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
        (NameOID.COMMON_NAME, common),
    ]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def _digest(text: str) -> int:
    """A number of 127 bits that is above 0."""
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest()) >> 1 | 1
