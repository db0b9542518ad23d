"""What facts are made of: amounts, lines, source events, whom a rider can ask."""

from decimal import Decimal
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from service.billing.events.ride_data import Kind

Minor = Annotated[int, Meta(description="Minor units of the currency: 250 is CNY 2.50.")]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", description="ISO 4217.")]
Lines = Annotated[
    msgspec.Raw,
    Meta(
        description="The receipt: exact amounts that sum to the total.",
        extra_json_schema={"type": "array", "items": {"$ref": "#/$defs/ChargeLine"}},
    ),
]
"""Lines that were encoded once, by `facts.encode_lines`."""


class ChargeLine(msgspec.Struct, frozen=True, gc=False):
    """One line of a receipt. `path` is a JSON pointer into the tariff: the rule that made the line."""

    code: str
    quantity: Decimal
    unit: str
    unit_price: Decimal
    amount: Annotated[Decimal, Meta(description="Exact, in major units: 1.475 stays 1.475.")]
    path: str
    window: Annotated[str | None, Meta(description="The balance across rides that the line drew on.")] = None
    refundable: Annotated[bool, Meta(description="A fee that support may give back by itself.")] = False
    tax_rate: Annotated[Decimal | None, Meta(description="0.13 is 13 %; null where nothing is taxed.")] = None


class SourceEvent(msgspec.Struct, frozen=True, gc=False):
    """A ride event that the fact rests on, and where in Kafka it is."""

    kind: Kind
    source: str
    id: str
    topic: str
    partition: int
    offset: int


Sources: TypeAlias = tuple[SourceEvent, ...]


class Contact(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Whom the rider can ask: the operator's own contact."""

    name: str
    phone: str | None = None
    email: str | None = None
    url: str | None = None
