"""What a ride is decided against: its operator, the rider's agreement, the tariff version frozen at its start."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache

import msgspec

from service.billing.tariffs import Tariff, load, lost_end_rule

READY_MAX = 1000
"""So many versions of tariffs are kept ready to rate with."""


class Operator(msgspec.Struct, frozen=True, gc=False):
    """A rental operator as the rules see it. `live` is False in shadow mode: rides are charged and owe nothing."""

    operator_no: int
    operator_id: str
    time_zone: str
    currency: str
    live: bool = True
    bill_from: datetime | None = None
    ride_hours_max: int = 720


class AgreementRef(msgspec.Struct, frozen=True, gc=False):
    """What of an agreement never changes; that is all that pairing and pricing need."""

    agreement_no: int
    rider_no: int
    currency: str


class TariffVersion(msgspec.Struct, frozen=True, gc=False):
    """A version of a tariff, in force from `valid_from` until the next one is."""

    tariff_no: int
    version: int
    valid_from: datetime
    tariff: Tariff

    @property
    def key(self) -> tuple[int, int]:
        """(tariff number, version)."""
        return self.tariff_no, self.version


class UnreadVersion(msgspec.Struct, frozen=True, gc=False):
    """A version that this release can't read: a newer one published it, with rules that this one does not know. Its
    rides wait for a process that can; no other version stands in for it."""

    version: int
    valid_from: datetime


class _Packed(msgspec.Struct, frozen=True, gc=False):
    """A version until it is asked for: versions are never forgotten, and most of them are of the past."""

    tariff_no: int
    version: int
    valid_from: datetime
    document: bytes  # Deflated (RFC 1950).


class Catalog:
    """The agreements and tariffs known to this process, by operator number and id.

    Of the tariffs it keeps what was asked for lately ready to rate with, and the others as their documents, deflated:
    a kilobyte each, a tenth or less of what they are when they are read.
    """

    def __init__(self) -> None:
        self.agreements: dict[tuple[int, str], AgreementRef] = {}
        self.lost_after: timedelta | None = None
        """The least time after which any of the tariffs takes the end of a ride to be lost; None without a tariff."""
        self._versions: dict[tuple[int, str], tuple[_Packed | UnreadVersion, ...]] = {}

    def add_tariffs(self, versions: Mapping[tuple[int, str], Sequence[TariffVersion | UnreadVersion]]) -> None:
        """Takes in more versions; order does not matter."""
        for key, more in versions.items():
            for version in more:
                if isinstance(version, TariffVersion):
                    after = lost_end_rule(version.tariff).after
                    self.lost_after = after if self.lost_after is None else min(after, self.lost_after)
            merged = {version.version: version for version in (*self._versions.get(key, ()), *map(_packed, more))}
            self._versions[key] = tuple(
                sorted(merged.values(), key=lambda version: (version.valid_from, version.version))
            )

    def knows_tariff(self, operator_no: int, tariff_id: str) -> bool:
        """Whether any version of the tariff is known."""
        return (operator_no, tariff_id) in self._versions

    def tariff_at(self, operator_no: int, tariff_id: str, at: datetime) -> TariffVersion | None:
        """The version in force at an instant, or None."""
        versions = self._versions.get((operator_no, tariff_id), ())
        if len(versions) == 1 and versions[0].valid_from <= at:
            return _read(versions[0])
        index = bisect_right(versions, at, key=lambda version: version.valid_from)
        return _read(versions[index - 1]) if index else None

    def tariff_version(self, operator_no: int, tariff_id: str, version: int) -> TariffVersion | None:
        """A version by its number, or None."""
        found = next((v for v in self._versions.get((operator_no, tariff_id), ()) if v.version == version), None)
        return _read(found)


def _packed(version: TariffVersion | UnreadVersion) -> _Packed | UnreadVersion:
    if isinstance(version, UnreadVersion):
        return version
    document = zlib.compress(version.tariff.document)
    return _Packed(version.tariff_no, version.version, version.valid_from, document)


def _read(version: _Packed | UnreadVersion | None) -> TariffVersion | None:
    return _unpacked(version) if isinstance(version, _Packed) else None


@lru_cache(maxsize=READY_MAX)
def _unpacked(packed: _Packed) -> TariffVersion:
    tariff = load(zlib.decompress(packed.document), packed.version)
    return TariffVersion(packed.tariff_no, packed.version, packed.valid_from, tariff)


BalanceKey = tuple[int, int, str]
"""(operator number, rider number, window)."""


class BalanceBook:
    """The riders' balances as one transaction sees them.

    A book opened without balances answers zero and remembers what it was asked: if that is nothing, what was decided
    with it stands; otherwise the rows are locked and the decision is taken again with a book of what they hold.
    """

    def __init__(self, held: Mapping[BalanceKey, Decimal] | None = None) -> None:
        self.asked: set[BalanceKey] = set()
        self.used: dict[BalanceKey, Decimal] = dict(held or {})

    def read(self, key: BalanceKey) -> Decimal:
        """What earlier rides used of a window."""
        self.asked.add(key)
        return self.used.get(key, Decimal(0))

    def write(self, key: BalanceKey, used: Decimal) -> None:
        """What is used of a window after a ride."""
        self.asked.add(key)
        self.used[key] = used
