"""What a ride is decided against: its operator, the rider's agreement, the tariff version frozen at its start."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from service.billing.tariffs import Tariff


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


class Catalog:
    """The agreements and tariffs known to this process, by operator number and id."""

    def __init__(self) -> None:
        self.agreements: dict[tuple[int, str], AgreementRef] = {}
        self._versions: dict[tuple[int, str], tuple[TariffVersion | UnreadVersion, ...]] = {}

    def add_tariffs(self, versions: Mapping[tuple[int, str], Sequence[TariffVersion | UnreadVersion]]) -> None:
        """Takes in more versions; order does not matter."""
        for key, more in versions.items():
            merged = {version.version: version for version in (*self._versions.get(key, ()), *more)}
            self._versions[key] = tuple(
                sorted(merged.values(), key=lambda version: (version.valid_from, version.version))
            )

    def knows_tariff(self, operator_no: int, tariff_id: str) -> bool:
        """Whether any version of the tariff is known."""
        return (operator_no, tariff_id) in self._versions

    def tariffs(self) -> Iterator[Tariff]:
        """Every version of every tariff that is known."""
        known = (version for versions in self._versions.values() for version in versions)
        return (version.tariff for version in known if isinstance(version, TariffVersion))

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


def _read(version: TariffVersion | UnreadVersion | None) -> TariffVersion | None:
    return version if isinstance(version, TariffVersion) else None


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
