"""What a process that decides about rides knows: operators, tariffs, agreements, open rides. Bounded and droppable."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice

from service.adapters.postgres.catalog import CatalogStore
from service.adapters.postgres.intake import IntakeStore
from service.adapters.postgres.rides import RideStore
from service.billing.catalog import AgreementRef, Catalog, Operator
from service.billing.rides import Ride
from service.flows.clock import BusinessClock
from service.telemetry import CACHED_RIDES

AGREEMENTS_MAX = 500_000
SOURCES_MAX = 100_000
VERSIONS_MAX = 100
"""So many versions of tariffs are read at once; nothing else goes on in the process meanwhile."""


class Knowledge:
    """Caches in front of PostgreSQL. None is the truth: whoever decides on an old entry is refused and asks again."""

    def __init__(self, clock: BusinessClock, rides_max: int) -> None:
        self.catalog = Catalog()
        self.operators: dict[int, Operator] = {}
        self.clock = clock
        self._rides_max = rides_max
        self._rides: dict[bytes, Ride] = {}
        self._flying: deque[dict[bytes, Ride]] = deque()
        self._sources: Mapping[tuple[str, str], int] = {}
        self._taken: dict[tuple[str, str], int] = {}
        self._default: int | None = None
        self._change_no = 0

    async def refresh(self, store: CatalogStore) -> None:
        """Reads the clock, operators, sources and the tariff versions that are new."""
        installation = await store.installation()
        self.clock.read(installation)
        self._default = installation.default_operator_no
        self.operators = await store.operators()
        self._sources = await store.sources()
        await self.refresh_tariffs(store)

    async def refresh_tariffs(self, store: CatalogStore) -> None:
        """Reads the tariff versions that are new, some at a time: a process that begins has all of them to read."""
        before = None
        while self._change_no != before:
            before = self._change_no
            self._change_no, versions = await store.tariffs_since(self._change_no, VERSIONS_MAX)
            self.catalog.add_tariffs(versions)

    def operator_of(self, topic: str, source: str) -> Operator | None:
        """Whose event it is, or None while nobody has mapped the source, nor taken it."""
        number = self._sources.get((topic, source)) or self._taken.get((topic, source), self._default)
        return self.operators.get(number) if number is not None else None

    def unowned(self, topic: str, source: str) -> bool:
        """Whether nobody has mapped the source, and it is not known here whether somebody has taken it."""
        return (topic, source) not in self._sources and (topic, source) not in self._taken

    async def take_sources(self, store: IntakeStore, topic: str, sources: Iterable[str]) -> bool:
        """Makes sources that nobody has mapped the default operator's, for ever; True when one is somebody else's by
        now: what was read as the default operator's is to be read again."""
        asked = sorted(set(sources))
        owners = await store.take_sources(topic, asked, self._default, self.clock.now())
        if len(self._taken) + len(owners) > SOURCES_MAX:
            self._taken.clear()
        self._taken.update(((topic, source), number) for source, number in owners.items())
        return any(number != self._default for number in owners.values())

    def recall(self, keys: Iterable[bytes]) -> tuple[dict[bytes, Ride], list[bytes]]:
        """The rides among these keys that are remembered, and the keys to ask for."""
        known: dict[bytes, Ride] = {}
        unknown: list[bytes] = []
        for key in keys:
            ride = self._rides.get(key)
            for batch in self._flying:
                ride = batch.get(key, ride)
            if ride is None:
                unknown.append(key)
            else:
                known[key] = ride
        return known, unknown

    async def learn_agreements(self, store: RideStore, asked: set[tuple[int, str]]) -> None:
        """Looks up agreements that are not remembered; what is kept of them never changes."""
        unknown = sorted(asked - self.catalog.agreements.keys())
        if unknown:
            found: dict[tuple[int, str], AgreementRef] = await store.find_agreements(unknown)
            if len(self.catalog.agreements) + len(found) > AGREEMENTS_MAX:
                self._forget_agreements(asked)
            self.catalog.agreements.update(found)

    def _forget_agreements(self, asked: set[tuple[int, str]]) -> None:
        """Drops the older half, but for what was asked for now: it would be taken for unknown."""
        for key in list(islice(self.catalog.agreements, AGREEMENTS_MAX // 2)):
            if key not in asked:
                del self.catalog.agreements[key]

    def fly(self, rides: Iterable[Ride]) -> None:
        """These were decided and are about to be written, after the batches that fly already."""
        self._flying.append({ride.key: ride for ride in rides})

    def land(self) -> None:
        """The oldest batch that flies is committed: open rides are remembered, decided ones are done."""
        landed = self._flying.popleft() if self._flying else {}
        for key, ride in landed.items():
            self._rides.pop(key, None)
            if not ride.session.final:
                self._rides[key] = ride
        while len(self._rides) > self._rides_max:
            del self._rides[next(iter(self._rides))]
        CACHED_RIDES.set(len(self._rides))

    def forget_rides(self) -> None:
        """Somebody else may have decided about any of them."""
        self._rides = {}
        self._flying.clear()
