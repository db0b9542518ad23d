"""What goes wrong: scripted per key, or by rate from the seed, the same in every run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from hashlib import blake2b
from typing import Annotated, Literal, get_args

import msgspec

from service.lab.provider.rows import Debit

CallFault = Literal[
    "slow",  # The answer comes `seconds` later.
    "drop",  # Nothing is executed, the connection is closed.
    "reset",  # Nothing is executed, the connection is reset.
    "half_open",  # Executed; the connection stays and nothing ever comes (for `seconds`).
    "lost",  # Executed, and the connection is cut before the answer.
    "error_before",  # HTTP 500, nothing executed.
    "error_after",  # HTTP 500, executed.
    "unavailable_before",  # A well-formed "system error" in a 200 (Alipay: 20000 or `code`), nothing executed.
    "unavailable_after",  # The same, executed.
    "throttle",  # Too many calls, nothing executed; again after `seconds`.
    "html",  # Executed, and a gateway answers with an HTML 502.
    "truncated",  # Executed, and the answer ends in the middle.
    "unknown_enum",  # Executed; the state has a name that nobody listed.
    "unknown_code",  # A code that nobody listed, nothing executed.
    "bad_signature",  # Executed; the answer's signature is of another text.
    "rotated_key",  # Executed; the answer is signed by a key that the merchant was never given.
    "clock_skew",  # Executed; the answer is dated `seconds` off (negative: earlier).
    "query_fails",  # A query is answered with a server error.
    "query_lag",  # A query answers what it would have said before the last change, if that is younger than `seconds`.
    "notify_before_reply",  # Executed; what it is worth telling is delivered before the answer.
    "revoke",  # The rider ends the agreement in the moment before the call.
]
DecisionFault = Literal[
    "refuse",  # An agreement or a hold is refused, with `code`.
    "decline",  # A debit is declined, with `code` (BALANCE_NOT_ENOUGH unless set).
    "partial",  # A try takes half of what is owed and waits for the rest.
    "later",  # A debit or refund is accepted and decided `seconds` later.
    "refund_abnormal",  # A refund fails when it is decided, with `code`; its key may be tried again.
]
NoticeFault = Literal[
    "notify_lost",  # An attempt to deliver is never made.
    "notify_twice",  # Delivered twice, one after the other.
    "notify_both_at_once",  # Delivered twice at the same moment.
    "notify_late",  # The first attempt comes `seconds` later.
    "notify_reordered",  # The next notification of the account comes first; at the latest `seconds` later.
    "notify_replayed",  # The very same bytes come again `seconds` after they were taken.
    "notify_tampered",  # The body was changed after it was signed.
    "notify_unknown_enum",  # Signed; the state has a name that nobody listed.
    "notify_skew",  # The signature's time is `seconds` off (negative: earlier).
]
LineFault = Literal[
    "statement_missing",  # The movement's row is not there.
    "statement_extra",  # A row of a movement that never was stands beside it.
    "statement_off",  # The amount is one minor unit too much.
    "statement_late",  # The row stands on the next day's statement.
    "statement_twice",  # The row stands there twice.
]
Kind = CallFault | DecisionFault | NoticeFault | LineFault
KINDS: tuple[str, ...] = tuple(
    kind for group in (CallFault, DecisionFault, NoticeFault, LineFault) for kind in get_args(group)
)
CALL_FAULTS: tuple[str, ...] = get_args(CallFault)
NOTICE_FAULTS: tuple[str, ...] = get_args(NoticeFault)
LINE_FAULTS: tuple[str, ...] = get_args(LineFault)
QUERY_FAULTS = frozenset({"query_fails", "query_lag"})
COMMAND_FAULTS = tuple(kind for kind in CALL_FAULTS if kind not in QUERY_FAULTS)
OPS = (
    *("agreement.begin", "agreement.get", "agreement.revoke"),
    *("hold.open", "hold.get", "hold.finish", "hold.release"),
    *("debit.take", "debit.get", "debit.nudge", "debit.reduce", "debit.close", "debit.cancel"),
    *("debit.settle_elsewhere", "debit.request_payment", "refund.make", "refund.get", "performance.report"),
    *("statement.get", "dispute.get", "dispute.answer", "account.get", "account.set", "certificate.get", "notice"),
)
"""The operations of the core, whatever face they came through; and "notice", an attempt to deliver."""
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
SECONDS = {
    "slow": 0.2,
    "half_open": 3600.0,
    "throttle": 1.0,
    "clock_skew": 360.0,
    "query_lag": 5.0,
    "later": 3600.0,
    "notify_late": 86_400.0,
    "notify_reordered": 600.0,
    "notify_replayed": 86_400.0,
    "notify_skew": 360.0,
}
DECLINED_TIMES_MAX = 3


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scripted fault: happens the next `times` times that everything named matches; "*" matches anything.

    `on` is a merchant's key, the provider's number, the hold's key, or a rider; `op` is one of OPS.
    """

    kind: Kind
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
    """The share, 0 to 1, of calls (or of debits, agreements, holds, notices, statement rows) that each fault happens
    to."""

    slow: Share = 0.0
    drop: Share = 0.0
    reset: Share = 0.0
    half_open: Share = 0.0
    lost: Share = 0.0
    error_before: Share = 0.0
    error_after: Share = 0.0
    unavailable_before: Share = 0.0
    unavailable_after: Share = 0.0
    throttle: Share = 0.0
    html: Share = 0.0
    truncated: Share = 0.0
    unknown_enum: Share = 0.0
    unknown_code: Share = 0.0
    bad_signature: Share = 0.0
    rotated_key: Share = 0.0
    clock_skew: Share = 0.0
    query_fails: Share = 0.0
    query_lag: Share = 0.0
    notify_before_reply: Share = 0.0
    revoke: Share = 0.0
    refuse: Share = 0.0
    decline: Share = 0.0
    partial: Share = 0.0
    later: Share = 0.0
    refund_abnormal: Share = 0.0
    notify_lost: Share = 0.0
    notify_twice: Share = 0.0
    notify_both_at_once: Share = 0.0
    notify_late: Share = 0.0
    notify_reordered: Share = 0.0
    notify_replayed: Share = 0.0
    notify_tampered: Share = 0.0
    notify_unknown_enum: Share = 0.0
    notify_skew: Share = 0.0
    statement_missing: Share = 0.0
    statement_extra: Share = 0.0
    statement_off: Share = 0.0
    statement_late: Share = 0.0
    statement_twice: Share = 0.0


class Faults:
    """The faults to come; those by rate are drawn by (seed, operation, key, how often): no order of calls matters."""

    def __init__(self, seed: int, rates: Rates) -> None:
        self.seed = seed
        self.rates = rates
        self._scripts: list[tuple[Fault, int]] = []
        self._calls: Counter[tuple[str, str, str]] = Counter()
        self._lines: dict[tuple[str, str], Fault] = {}

    @property
    def rates(self) -> Rates:
        """The shares of seeded faults."""
        return self._rates

    @rates.setter
    def rates(self, rates: Rates) -> None:
        self._rates = rates
        groups = (COMMAND_FAULTS, CALL_FAULTS, NOTICE_FAULTS, LINE_FAULTS)
        self._shares = {kinds: [(kind, share) for kind in kinds if (share := getattr(rates, kind))] for kinds in groups}

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
        self._lines.clear()

    def of_call(self, op: str, account: str, key: str, names: Collection[str] = ()) -> Fault | None:
        """What happens to this call; `names` are what it is about besides its key."""
        kinds = CALL_FAULTS if op.endswith(".get") else COMMAND_FAULTS
        return self._scripted(kinds, op, account, (key, *names)) or self._drawn(kinds, op, account, key)

    def of_notice(self, account: str, key: str, names: Collection[str] = ()) -> Fault | None:
        """What happens to this attempt to deliver."""
        found = self._scripted(NOTICE_FAULTS, "notice", account, (key, *names))
        return found or self._drawn(NOTICE_FAULTS, "notice", account, key)

    def of_line(self, account: str, key: str, ref: str) -> Fault | None:
        """What is wrong with a movement's row, whenever the statement is asked for."""
        known = self._lines.get((account, ref))
        if known is None:
            known = self._scripted(LINE_FAULTS, "statement.get", account, (key, ref))
            if known:
                self._lines[account, ref] = known
        return known or self._by_share(LINE_FAULTS, self._draw("statement", account, ref))

    def refusal(self, op: str, account: str, key: str, names: Collection[str] = ()) -> str | None:
        """The code with which an agreement or hold is refused."""
        found = self._scripted(("refuse",), op, account, (key, *names))
        if found is None and self._draw("refuse", account, key, 0) >= self.rates.refuse:
            return None
        return (found and found.code) or "NOT_ELIGIBLE"

    def later_s(self, op: str, account: str, key: str, names: Collection[str] = ()) -> float | None:
        """How much later a debit or refund is decided."""
        found = self._scripted(("later",), op, account, (key, *names))
        if found is None and self._draw("later", account, key, 0) < self.rates.later:
            found = Fault("later")
        return found.wait_s if found else None

    def refund_fails(self, account: str, key: str, names: Collection[str]) -> str | None:
        """The code with which a refund fails, once per key where it is drawn."""
        found = self._scripted(("refund_abnormal",), "refund.make", account, (key, *names))
        if found is None and self._draw("refund_abnormal", account, key, 0) < self.rates.refund_abnormal:
            self._calls["refund_abnormal", account, key] += 1
            found = Fault("refund_abnormal") if self._calls["refund_abnormal", account, key] == 1 else None
        return (found.code or "REFUND_ABNORMAL") if found else None

    def takes_half(self, debit: Debit) -> bool:
        """Whether this try takes only half of what is owed."""
        account, key = debit.account_id, debit.asked.key
        if self._scripted(("partial",), "debit.take", account, (key, debit.rider, debit.asked.hold or key)):
            return True
        return debit.tries == 0 and self._draw("partial", account, key, 0) < self.rates.partial

    def decline(self, debit: Debit) -> str | None:
        """The code with which this try is declined: scripted, or its wallet is short for the first few tries."""
        account, key = debit.account_id, debit.asked.key
        found = self._scripted(("decline",), "debit.take", account, (key, debit.rider, debit.asked.hold or key))
        if found:
            return found.code or "BALANCE_NOT_ENOUGH"
        if self._draw("decline", account, key, 0) >= self.rates.decline:
            return None
        short_times = 1 + int(self._draw("short", account, key, 0) * DECLINED_TIMES_MAX)
        return "BALANCE_NOT_ENOUGH" if debit.tries < short_times else None

    def _scripted(self, kinds: Collection[str], op: str, account: str, names: Collection[str]) -> Fault | None:
        for index, (fault, left) in enumerate(self._scripts):
            if (
                fault.kind in kinds
                and fault.op in ("*", op)
                and fault.account in ("*", account)
                and (fault.on == "*" or fault.on in names)
            ):
                if left > 1:
                    self._scripts[index] = (fault, left - 1)
                else:
                    del self._scripts[index]
                return fault
        return None

    def _drawn(self, kinds: tuple[str, ...], op: str, account: str, key: str) -> Fault | None:
        if not self._shares[kinds]:
            return None
        self._calls[op, account, key] += 1
        return self._by_share(kinds, self._draw(op, account, key, self._calls[op, account, key]))

    def _by_share(self, kinds: tuple[str, ...], drawn: float) -> Fault | None:
        for kind, share in self._shares[kinds]:
            if drawn < share:
                return Fault(kind)  # type: ignore[arg-type] # The name of a field of Rates is a kind.
            drawn -= share
        return None

    def _draw(self, *what: object) -> float:
        """A number in [0, 1) that belongs to the seed and to what it is drawn for."""
        text = "\0".join(map(str, (self.seed, *what)))
        return int.from_bytes(blake2b(text.encode(), digest_size=7).digest()) / (1 << 56)
