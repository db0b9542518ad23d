"""The `data` of each ride event, as producers write it.

Names follow MDS 2.0 where MDS has one; unknown fields are ignored.
These structs are what the JSON Schemas in `schemas/events/` are made from.
"""

from decimal import Decimal
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from service.billing.events.cloudevents import Instant, Text
from service.billing.extent import SESSION_ID_MAX, ZONES_MAX
from service.billing.words import Label

Kind: TypeAlias = Literal[
    "started",
    "paused",
    "resumed",
    "ended",
    "cancelled",
    "corrected",
    "voided",
    "reservation_started",
    "reservation_cancelled",
    "adjusted",
]
"""What happened to the ride: the word in the event's type. `adjusted` is support's own and comes by no topic."""

Int4 = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Int8 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
SessionId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=SESSION_ID_MAX,
        description="The ride's id, a UUID as a rule. Equal to the Kafka key, to `subject` and to `partitionkey`.",
        extra_json_schema={"pattern": r"^[^\s\p{C}\p{Z}]{1,64}$"},
    ),
]
PAUSING: frozenset[Kind] = frozenset({"paused", "resumed"})
"""Of these a ride may have many."""
ParkingCategory = Annotated[
    Literal["corral", "curb", "rack", "other_valid", "invalid"], Meta(description="How the vehicle was parked (MDS).")
]
Distance = Annotated[
    Int8, Meta(description="Metres ridden. Less than 0, or more than 2147483647, sends the ride to review.")
]
ZoneFees = Annotated[
    tuple[Text, ...],
    Meta(max_length=ZONES_MAX, description="Codes of the zone and parking fees due, as the tariff names them."),
]
Reason = Annotated[str, Meta(max_length=1000, description="Why, in words, for the trail.")]


class Location(msgspec.Struct, frozen=True, gc=False):
    """A WGS 84 position in degrees."""

    lat: Annotated[float, Meta(ge=-90, le=90)]
    lng: Annotated[float, Meta(ge=-180, le=180)]


AdjustmentKind: TypeAlias = Literal["extra", "goodwill", "refund", "opening"]


class Adjustment(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What support makes a ride owe beside its fare: an extra charge (damage, a fine, a toll), goodwill (so much less),
    or a refund (so much given back); or the debt that another system had billed and that was brought over (opening).

    `amount_minor` > 0 is what the rider owes more or less, tax included; `tax_rate` (0.13 is 13 %) is the tax within an
    extra charge, None where it is not taxed. `code` names it on the receipt, or `label` in words of the operator's own;
    `reason` and `by` are for the trail.
    `regardless`: an extra charge that is owed even if the ride is voided.
    """

    kind: AdjustmentKind
    code: str
    amount_minor: int
    currency: str
    reason: str
    adjustment_id: str
    by: str
    tax_rate: Decimal | None = None
    regardless: bool = False
    label: Label | None = None


class RideData(msgspec.Struct, kw_only=True, gc=False):
    """What any ride event may carry."""

    session_id: SessionId | None = None
    trip_id: Annotated[SessionId | None, Meta(description="MDS name of session_id.")] = None
    trip_ids: Annotated[
        Annotated[tuple[SessionId, ...], Meta(max_length=1)] | None,
        Meta(description="MDS name of session_id, as a list of one."),
    ] = None
    agreement_id: Annotated[Text | None, Meta(description="The rider's pay-later agreement.")] = None
    tariff_id: Annotated[Text | None, Meta(description="The tariff agreed at the start.")] = None
    tariff_version: Annotated[Int4 | None, Meta(description="The version the rider was shown.")] = None
    coupon_id: Annotated[
        Text | None, Meta(description="The coupon to take; without one the rider's best is taken.")
    ] = None
    vehicle_id: Text | None = None
    device_id: Annotated[Text | None, Meta(description="MDS name of the vehicle, where vehicle_id is not given.")] = (
        None
    )
    vehicle_type: Annotated[
        Text | None, Meta(description="bicycle, cargo_bicycle, scooter_standing, moped, car … (MDS).")
    ] = None
    timestamp: Annotated[
        Int8 | None,
        Meta(description="Milliseconds since 1970, until 2199. Read as the time of an MDS event without a `time`."),
    ] = None
    location: Location | None = None
    billable: Annotated[bool, Meta(description="false: recorded, never charged; say the purpose.")] = True
    purpose: Annotated[Text | None, Meta(description="Why the ride is not billable: staff, maintenance, prepaid.")] = (
        None
    )
    reason: Reason | None = None


class Started(RideData):
    """The ride began at the event's `time`."""

    agreement_id: Annotated[Text, Meta(description="The rider's pay-later agreement.")]
    tariff_id: Annotated[Text, Meta(description="The tariff agreed at the start.")]


class Paused(RideData):
    """The rider paused the ride and keeps the vehicle."""


class Resumed(RideData):
    """The rider went on after a pause."""


class Ended(RideData):
    """The ride ended at the event's `time`."""

    agreement_id: Annotated[Text, Meta(description="The rider's pay-later agreement, as on the start.")]
    tariff_id: Annotated[Text, Meta(description="The tariff agreed at the start.")]
    distance: Distance | None = None
    parking_category: ParkingCategory | None = None
    zone_fees: ZoneFees = ()


class Cancelled(RideData):
    """The ride was called off before it was used."""


class Corrected(RideData):
    """What the ride really was; a field that is not given stays as it was. No zone's fee at all: an empty list."""

    started_at: Annotated[Instant | None, Meta(description="The true start, RFC 3339 with an offset.")] = None
    ended_at: Annotated[Instant | None, Meta(description="The true end, RFC 3339 with an offset.")] = None
    distance: Distance | None = None
    parking_category: ParkingCategory | None = None
    zone_fees: ZoneFees | None = None


class Voided(RideData):
    """The ride is not to be paid; what was charged is given back."""


class ReservationStarted(RideData):
    """A vehicle was reserved for the rider."""


class ReservationCancelled(RideData):
    """The reservation was given up or ran out."""


DATA_TYPES: dict[Kind, type[RideData]] = {
    "started": Started,
    "paused": Paused,
    "resumed": Resumed,
    "ended": Ended,
    "cancelled": Cancelled,
    "corrected": Corrected,
    "voided": Voided,
    "reservation_started": ReservationStarted,
    "reservation_cancelled": ReservationCancelled,
}
"""The shape of each kind's data."""
