"""What providers tell by themselves. Their signature alone lets them in; they are answered after the commit."""

from __future__ import annotations

import asyncio
from typing import Literal

from litestar import Response, post
from litestar.params import FromPath

from service.adapters.postgres.doors import NotificationStore
from service.adapters.providers.port import Ack, BadNotification, Notification, Provider
from service.billing.agreements.standing import AgreementStatus, HoldStatus
from service.flows.disputes import announced
from service.telemetry import NOTIFICATIONS, logger
from service.web.access import OPEN
from service.web.answers import Asked
from service.web.doors import Doors, doors_of
from service.web.problems import away, not_found

LOG = logger("notifications")
BYTES_MAX = 256 * 1024
ANY_BODY = "As the provider sends it: whatever the content type, the raw bytes are what is signed."


@post(
    "/v1/providers/{provider:str}/{account:str}/notifications",
    status_code=200,
    opt=OPEN | {"raw_body": ANY_BODY},
    tags=["providers"],
    request_max_body_size=BYTES_MAX,
)
async def notify(request: Asked, provider: FromPath[str], account: FromPath[str]) -> Response[bytes]:
    """The address that a provider is given for a merchant account: `account` is `<operator>.<account id>`.

    Needs no token: the account's own signature lets it in, and no other account's does. It is acknowledged in the
    provider's words once what it says is committed; one that is not believed is refused in his words too. 503: not
    taken in time, to be sent again.
    """
    doors = doors_of(request)
    work = asyncio.create_task(_take(doors, request, provider, account))
    done, _ = await asyncio.wait({work}, timeout=doors.settings.notification_seconds)
    if not done:
        doors.leave(work)
        NOTIFICATIONS.labels(account if doors.has_account(provider, account) else "", "late").inc()
        raise away("what the notification is about")
    ack = work.result()
    return Response(ack.body, status_code=ack.status, media_type=ack.content_type)


async def _take(doors: Doors, request: Asked, provider: str, account: str) -> Ack:
    """Reads, verifies, takes in and records a notification; returns how it is acknowledged."""
    known = await doors.provider_of(provider, account)
    if known is None:
        raise not_found("merchant account")
    body = await request.body()
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.scope["headers"]}
    notice = known.parse_notification(headers, body, doors.machine())
    if isinstance(notice, BadNotification):
        of_no_use = notice.ack.status < 300  # Genuine, and about something that nobody here asked for.
        NOTIFICATIONS.labels(account, "ignored" if of_no_use else "refused").inc()
        if not of_no_use:
            LOG.warning("notification refused", provider=provider, account=account, reason=notice.reason)
        return notice.ack
    taken = await _hand_over(doors, known, notice)
    async with doors.working.reading(NotificationStore) as store:
        named = (notice.notification_id, notice.about, notice.named_by, notice.key)
        await store.record(known.account.account_no, *named, taken, doors.machine())
    NOTIFICATIONS.labels(account, "taken" if taken else "unknown").inc()
    return notice.ack


async def _hand_over(doors: Doors, provider: Provider, notice: Notification) -> bool:
    """Tells whom it concerns; False when it is about nothing of ours, or about a hold that is over.

    States only go forward, so that old, repeated and reversed notifications change nothing.
    """
    number, answer = provider.account.account_no, notice.answer
    if notice.dispute is not None:
        return await doors.collection.disputed(number, notice.dispute)
    if notice.about == "dispute":
        return await announced(doors.working, number, notice.key, doors.clock.now())
    if notice.about == "agreement" and not isinstance(answer, HoldStatus):
        by_ref = notice.named_by == "agreement_ref"
        return await doors.agreements.noticed(number, notice.key, answer, by_ref=by_ref)
    if notice.about == "hold" and not isinstance(answer, AgreementStatus):
        return await doors.holds.noticed(number, notice.key, answer)
    if isinstance(answer, AgreementStatus | HoldStatus) or notice.named_by == "agreement_ref":
        return False  # A status of something else than it is about.
    about: Literal["debit", "refund"] = "refund" if notice.about == "refund" else "debit"
    return await doors.collection.noticed(number, notice.key, answer, notice.named_by, about, notice.payment)
