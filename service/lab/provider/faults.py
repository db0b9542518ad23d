"""What goes wrong: scripted per key, or by rate from the seed, the same in every run."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from typing import Annotated, Literal, get_args

import msgspec

from service.lab.provider.rows import Debit

CallFault = Literal[
    "slow",  # The answer comes `seconds` later.
    "drop",  # Nothing is executed, the connection is cut.
    "lost",  # Executed, and the connection is cut before the answer.
    "error_before",  # HTTP 500, nothing executed.
    "error_after",  # HTTP 500, executed.
    "throttle",  # HTTP 429, nothing executed; again after `seconds`.
    "html",  # Executed, and a gateway answers with an HTML 502.
    "truncated",  # Executed, and the answer ends in the middle.
    "unknown_enum",  # Executed; the state has a name that nobody listed.
    "unknown_code",  # HTTP 409 with a code that nobody listed, nothing executed.
]
DecisionFault = Literal[
    "refuse",  # An agreement or a hold is refused, with `code`.
    "decline",  # A debit is declined, with `code` (BALANCE_NOT_ENOUGH unless set).
    "later",  # A debit or refund is accepted and decided `seconds` later.
]
NoticeFault = Literal[
    "notify_lost",  # An attempt to deliver is never made.
    "notify_twice",  # Delivered twice.
    "notify_late",  # The first attempt comes `seconds` later.
    "notify_tampered",  # The body was changed after it was signed.
]
CALL_FAULTS: tuple[CallFault, ...] = get_args(CallFault)
NOTICE_FAULTS: tuple[NoticeFault, ...] = get_args(NoticeFault)
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
SECONDS = {"slow": 0.2, "throttle": 1.0, "later": 3600.0, "notify_late": 86_400.0}
DECLINED_TIMES_MAX = 3


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scripted fault: happens the next `times` times that everything named matches; "*" matches anything.

    `on` is a merchant's key or a rider; `op` an operation such as "debit.take" (see `desk.OPERATIONS`), or "notice".
    """

    kind: CallFault | DecisionFault | NoticeFault
    on: str = "*"
    op: str = "*"
    account: str = "*"
    times: int = 1
    seconds: float | None = None
    code: str | None = None

    @property
    def wait_s(self) -> float:
        """How long the fault takes, in seconds."""
        return SECONDS.get(self.kind, 0.0) if self.seconds is None else self.seconds


class Rates(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The share, 0 to 1, of calls (or of debits, agreements, holds, notices) that each fault happens to."""

    slow: Share = 0.0
    drop: Share = 0.0
    lost: Share = 0.0
    error_before: Share = 0.0
    error_after: Share = 0.0
    throttle: Share = 0.0
    html: Share = 0.0
    truncated: Share = 0.0
    unknown_enum: Share = 0.0
    unknown_code: Share = 0.0
    refuse: Share = 0.0
    decline: Share = 0.0
    later: Share = 0.0
    notify_lost: Share = 0.0
    notify_twice: Share = 0.0
    notify_late: Share = 0.0
    notify_tampered: Share = 0.0


class Faults:
    """The faults to come; those by rate are drawn by (seed, operation, key, how often): no order of calls matters."""

    def __init__(self, seed: int, rates: Rates) -> None:
        self.seed = seed
        self.rates = rates
        self._scripts: list[tuple[Fault, int]] = []
        self._calls: Counter[tuple[str, str, str]] = Counter()

    def script(self, fault: Fault) -> None:
        """Adds a scripted fault; earlier ones happen first."""
        self._scripts.append((fault, fault.times))

    @property
    def scripted(self) -> bool:
        """True while a scripted fault is still to come."""
        return bool(self._scripts)

    def clear(self) -> None:
        """Forgets what was scripted."""
        self._scripts.clear()

    def of_call(self, op: str, account: str, key: str, rider: str) -> Fault | None:
        """What happens to this call."""
        return self._scripted(CALL_FAULTS, op, account, key, rider) or self._drawn(CALL_FAULTS, op, account, key)

    def of_notice(self, account: str, key: str, rider: str) -> Fault | None:
        """What happens to this attempt to deliver."""
        found = self._scripted(NOTICE_FAULTS, "notice", account, key, rider)
        return found or self._drawn(NOTICE_FAULTS, "notice", account, key)

    def refusal(self, op: str, account: str, key: str, rider: str) -> str | None:
        """The code with which an agreement or hold is refused."""
        found = self._scripted(("refuse",), op, account, key, rider)
        if found is None and self._draw("refuse", account, key, 0) >= self.rates.refuse:
            return None
        return (found and found.code) or "NOT_ELIGIBLE"

    def later_s(self, op: str, account: str, key: str, rider: str) -> float | None:
        """How much later a debit or refund is decided."""
        found = self._scripted(("later",), op, account, key, rider)
        if found is None and self._draw("later", account, key, 0) < self.rates.later:
            found = Fault("later")
        return found.wait_s if found else None

    def decline(self, debit: Debit) -> str | None:
        """The code with which this try is declined: scripted, or its wallet is short for the first few tries."""
        account, key = debit.account_id, debit.asked.key
        found = self._scripted(("decline",), "debit.take", account, key, debit.rider)
        if found:
            return found.code or "BALANCE_NOT_ENOUGH"
        if self._draw("decline", account, key, 0) >= self.rates.decline:
            return None
        short_times = 1 + int(self._draw("short", account, key, 0) * DECLINED_TIMES_MAX)
        return "BALANCE_NOT_ENOUGH" if debit.tries < short_times else None

    def _scripted(self, kinds: tuple[str, ...], op: str, account: str, key: str, rider: str) -> Fault | None:
        for index, (fault, left) in enumerate(self._scripts):
            if (
                fault.kind in kinds
                and fault.op in ("*", op)
                and fault.account in ("*", account)
                and fault.on in ("*", key, rider)
            ):
                if left > 1:
                    self._scripts[index] = (fault, left - 1)
                else:
                    del self._scripts[index]
                return fault
        return None

    def _drawn(
        self, kinds: tuple[CallFault, ...] | tuple[NoticeFault, ...], op: str, account: str, key: str
    ) -> Fault | None:
        shares = [(kind, share) for kind in kinds if (share := getattr(self.rates, kind))]
        if not shares:
            return None
        self._calls[op, account, key] += 1
        drawn = self._draw(op, account, key, self._calls[op, account, key])
        for kind, share in shares:
            if drawn < share:
                return Fault(kind)
            drawn -= share
        return None

    def _draw(self, *what: object) -> float:
        """A number in [0, 1) that belongs to the seed and to what it is drawn for."""
        text = "\0".join(map(str, (self.seed, *what)))
        return int.from_bytes(blake2b(text.encode(), digest_size=7).digest()) / (1 << 56)
