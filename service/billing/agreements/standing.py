"""How an agreement or a hold stands at the provider, as its answers say."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

import msgspec

from service.billing.outcomes import Outcome, RiderAction

AgreementState = Literal["pending", "active", "refused", "revoked", "expired"]
HoldStatusState = Literal["pending", "open", "refused", "expired", "completed", "released"]
Refusal = Literal["rules", "fault", "passing", "final"]
"""Whose matter it is that a hold was refused: of our own rules, before anybody was asked; of what we asked for, or how;
of the rider, for a reason that may pass (his limits, today's assessment), or for one that does not."""


class AgreementStatus(msgspec.Struct, frozen=True, tag=True):
    """How an agreement stands. `action` is what the rider must do while it is pending, `currency` what its amounts are
    in, where the provider says it."""

    state: AgreementState
    provider_ref: str | None = None
    cap_minor: int | None = None
    valid_until: datetime | None = None
    action: RiderAction | None = None
    code: str | None = None
    currency: str | None = None


class HoldStatus(msgspec.Struct, frozen=True, tag=True):
    """How a hold stands; pending with an `action`: the rider must confirm it; refused and `retryable`: for a reason
    that may pass; released and `unopened`: its provider has never heard of it, and what the rider was given to confirm
    may still make it."""

    state: HoldStatusState
    provider_ref: str | None = None
    cap_minor: int | None = None
    expires_at: datetime | None = None
    action: RiderAction | None = None
    code: str | None = None
    retryable: bool = False
    unopened: bool = False


AgreementAnswer: TypeAlias = AgreementStatus | Outcome
"""A status, or why there is none."""
HoldAnswer: TypeAlias = HoldStatus | Outcome
"""A status, or why there is none."""
