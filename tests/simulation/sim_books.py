"""The oracle: what must be true when everything has come to rest, by sums that a child could do."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sim_caps import wrong
from sim_people import Ride, debits_there
from sim_script import Script
from sim_world import World, WorldError

from service.lab.provider.oracle import problems

FINAL = {"settled", "settled_elsewhere", "settled_twice", "waived", "written_off", "cancelled"}
CLEARING = 4 * 10**15


async def check_world(world: World, script: Script) -> None:
    """Raises WorldError with everything that is wrong."""
    found = [f"the wallet's own books: {problem}" for problem in problems(world.books)]
    debits: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in await world.rows(
        "SELECT * FROM debit WHERE operator_no = $1 ORDER BY ride_no, ordinal", script.operator.operator_no
    ):
        debits[row["session_id"]].append(row)
    found += await _check_caps(world, script)
    for ride in script.rides:
        late = await world.rows(REFUSED_LATE, script.operator.operator_no, ride.session_id)
        found += _check_ride(world, ride, debits[ride.session_id], bool(late))
    rides = {debit.number for ride in script.rides for debit in debits_there(world, ride)}
    found += [
        f"{debit.asked} took {debit.paid_minor} for no ride"
        for debit in world.books.debits_by_number.values()
        if debit.paid_minor and debit.number not in rides
    ]
    found += await _check_owed(world, script)
    found += await _check_ledger(world, script)
    found += await _check_rest(world, script, debits)
    found += await _check_holds(world, script)
    found += [f"still set aside: {row}" for row in await world.rows("SELECT * FROM set_aside")]
    if found:
        lines = [f"world {world.seed}, {world.weather}", *found, *await _story(world, script)]
        raise WorldError("\n".join(lines))


def _check_ride(world: World, ride: Ride, debits: list[dict[str, Any]], late: bool) -> list[str]:
    """The rider's money, by the provider's books, against what the ride must cost and what we believe; `late`: some of
    it can't be given back any more."""
    there = debits_there(world, ride)
    paid, back = sum(debit.paid_minor for debit in there), sum(debit.refunded_minor for debit in there)
    ours_paid = sum(row["paid_minor"] for row in debits)
    ours_back = sum(row["refunded_minor"] for row in debits)
    found = []
    if (paid, back) != (ours_paid, ours_back):
        found.append(f"{ride.session_id}: paid {paid}, back {back} there; paid {ours_paid}, back {ours_back} here")
    found += [
        f"{ride.session_id}: {debit.rider} paid {debit.asked.key} of {ride.rider_ref}"
        for debit in there
        if debit.paid_minor and debit.rider != ride.rider_ref
    ]
    found += _check_told(world, ride, debits)
    forgone = sum(row["forgone_minor"] for row in debits)
    unpaid = [row for row in debits if row["state"] not in FINAL]
    open_minor = sum(row["amount_minor"] - row["paid_minor"] - row["excess_minor"] for row in unpaid)
    handed = sum(row["given_back_minor"] for row in debits)
    stands = paid - back - handed + forgone + open_minor
    # What is too much of what was paid outside goes back outside, too; what was paid here as well does not stay here.
    cash = sum(row["outside_minor"] for row in debits)
    outside = cash > 0 and stands - cash <= max(ride.owed_minor - cash, 0)
    # What is owed no longer of a debit that can't be stopped goes back when it settles: so does its part that was paid.
    later = sum(row["paid_minor"] for row in unpaid if row["excess_minor"])
    # What a bank took for good he has again: nobody gives it back once more.
    banks = sum(
        dispute.amount_minor
        for debit in there
        for dispute in world.books.disputes_of(debit.number)
        if dispute.kind == "chargeback" and dispute.state == "lost"
    )
    more = late or outside or stands - ride.owed_minor <= max(later, banks)
    if stands != ride.owed_minor and not (more and stands > ride.owed_minor):
        found.append(
            f"{ride.session_id}: owes {ride.owed_minor}; paid {paid}, back {back}, forgone {forgone}, open {open_minor}"
        )
    return found


def _check_told(world: World, ride: Ride, debits: list[dict[str, Any]]) -> list[str]:
    """Who was told that the rider had paid elsewhere collects nothing any more; whoever listens was told."""
    ended = all(row["state"] in FINAL - {"written_off"} for row in debits)
    outside = any(row["state"] == "settled_elsewhere" for row in debits)
    listens = world.accounts[ride.account_no][1].capabilities.told_paid_elsewhere
    if not (ended and outside and listens):
        return []
    there = (debit for debit in debits_there(world, ride) if debit.state == "accepted")
    return [f"{ride.session_id}: {debit.asked.key} is still collected, though it was paid elsewhere" for debit in there]


async def _check_holds(world: World, script: Script) -> list[str]:
    """What is debited on a hold is no more than its cap; none stands at the provider that is over, or unknown, here."""
    rows = await world.rows(ON_HOLDS, script.operator.operator_no)
    found = [f"{row['taken']} is debited on the hold of {row['session_id']}, of {row['cap_minor']}" for row in rows]
    asked = (
        "SELECT provider_key FROM hold WHERE operator_no = $1 AND state IN ('requested', 'open', 'completing')"
        " UNION ALL SELECT provider_key FROM hold_unopened JOIN merchant_account USING (account_no)"
        " WHERE operator_no = $1"
    )
    known = {row["provider_key"] for row in await world.rows(asked, script.operator.operator_no)}
    standing = (hold for hold in world.books.holds.values() if hold.state == "open" and hold.expires_at > world.now())
    return found + [f"the hold {hold.asked} is forgotten" for hold in standing if hold.asked.key not in known]


MOVES = frozenset({"debit", "refund", "refund_returned", "chargeback"})
ON_HOLDS = """
SELECT h.session_id, h.cap_minor, sum(CASE WHEN d.state IN ('settled', 'settled_elsewhere', 'settled_twice', 'waived',
    'written_off', 'cancelled') THEN d.paid_minor - d.refunded_minor ELSE d.amount_minor END)::bigint AS taken
FROM hold h JOIN debit d ON d.session_key = h.session_key AND d.slot = h.slot AND d.begun_at >= h.opened_at
  AND d.agreement_no = h.agreement_no
WHERE h.operator_no = $1 AND h.opened_at IS NOT NULL AND h.state IN ('open', 'completing', 'completed')
GROUP BY h.session_id, h.cap_minor
HAVING sum(CASE WHEN d.state IN ('settled', 'settled_elsewhere', 'settled_twice', 'waived', 'written_off', 'cancelled')
    THEN d.paid_minor - d.refunded_minor ELSE d.amount_minor END) > h.cap_minor
ORDER BY h.session_id
"""
REFUSED_LATE = """
SELECT FROM refund r JOIN debit d USING (ride_no, ordinal)
WHERE d.operator_no = $1 AND d.session_id = $2 AND r.state = 'failed'
  AND (r.code IN ('refund_window_over', 'REFUND_TOO_LATE', 'chargeback')
    OR (r.code = 'REFUND_DISPUTED' AND d.dispute = 'lost'))
"""
"""Refunds that can't be made any more. Stripe refunds payments that are not disputed
(support.stripe.com/questions/partially-refund-a-customer); that one of which a bank took a part for good stays disputed
is the simulator's rule, which Stripe does not contradict."""


async def _check_caps(world: World, script: Script) -> list[str]:
    """What a cap leaves of each ride is between what can be told without knowing in which order they were closed."""
    if script.cap is None:
        return []
    owed = await _owed(world, script)
    found = []
    for rider in script.riders:
        rides = [ride for ride in script.rides if ride.rider_ref == rider.rider_ref]
        found += wrong(script.cap, rides, owed)
        for ride in rides:
            ride.left_minor = owed.get(ride.session_id, 0)
    return found


async def _check_owed(world: World, script: Script) -> list[str]:
    owed = await _owed(world, script)
    return [
        f"{ride.session_id} must cost {ride.owed_minor}, its obligations say {owed.get(ride.session_id, 0)}"
        for ride in script.rides
        if owed.get(ride.session_id, 0) != ride.owed_minor
    ]


async def _owed(world: World, script: Script) -> dict[str, int]:
    """What the obligations of each ride come to."""
    rows = await world.rows(
        "SELECT r.session_id, sum(o.amount_minor)::bigint AS owed FROM obligation o"
        " JOIN (SELECT DISTINCT ride_no, session_id FROM debit WHERE operator_no = $1) r USING (ride_no)"
        " WHERE o.operator_no = $1 GROUP BY 1",
        script.operator.operator_no,
    )
    return {row["session_id"]: row["owed"] for row in rows}


async def _check_ledger(world: World, script: Script) -> list[str]:
    """Our clearing account with each merchant account is what the provider's books say he owes us."""
    found = []
    for number, (account, _) in sorted(world.accounts.items()):
        merchant = f"merchant:{account.account_id}"
        moved = [entry for entry in world.books.entries if entry.what in MOVES]
        wanted = sum(entry.amount_minor for entry in moved if entry.payee == merchant)
        wanted -= sum(entry.amount_minor for entry in moved if entry.payer == merchant)
        rows = await world.rows(
            "SELECT coalesce(sum(CASE WHEN debit_account = $1 THEN amount_minor ELSE -amount_minor END), 0)::bigint"
            " AS n FROM transfer WHERE $1 IN (debit_account, credit_account) AND operator_no = $2",
            CLEARING + number,
            script.operator.operator_no,
        )
        if rows[0]["n"] != wanted:
            found.append(f"account {number}: the ledger's clearing says {rows[0]['n']}, the wallet's books {wanted}")
    return found


async def _check_rest(world: World, script: Script, debits: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Nobody was forgotten: what is not final waits for the rider, and says why; refunds and holds have ended."""
    found = []
    rides = {ride.session_id: ride for ride in script.rides}
    for row in (row for rows in debits.values() for row in rows):
        name = f"debit {row['session_id']}-{row['ordinal']}"
        if row["state"] not in FINAL and not _may_wait(world, row, rides[row["session_id"]]):
            found.append(f"{name} is forgotten: {row['state']}, reason {row['reason']}, due {row['due_at']}")
        if row["paid_minor"] > row["amount_minor"] and row["state"] != "settled_twice":
            found.append(f"{name}: more paid than asked")
    operator_no = script.operator.operator_no
    for row in await world.rows("SELECT * FROM refund WHERE operator_no = $1 AND state <> 'succeeded'", operator_no):
        if row["state"] not in ("failed", "returned"):
            found.append(
                f"refund {row['ride_no']}-{row['ordinal']}-{row['refund_ordinal']} is {row['state']}: {row['code']}"
            )
    for row in await world.rows(
        "SELECT * FROM hold WHERE operator_no = $1 AND state IN ('requested', 'open', 'completing')", operator_no
    ):
        if all(debit["state"] in FINAL - {"written_off"} for debit in debits[row["session_id"]]):
            found.append(f"hold of {row['session_id']} is {row['state']}, due {row['due_at']}")
    return found


def _may_wait(world: World, row: dict[str, Any], ride: Ride) -> bool:
    """Whether a debit that is not final waits for somebody else: the rider, or a provider who still collects it."""
    if row["state"] == "needs_rider":
        return bool(row["reason"])
    waits = any(there.state == "accepted" for there in debits_there(world, ride))
    return row["state"] == "pending" and waits and row["due_at"] is not None


async def _story(world: World, script: Script) -> list[str]:
    """What happened, for whoever looks for the reason."""
    lines = [f"{number}: {profile.name}" for number, (_, profile) in sorted(world.accounts.items())]
    lines += [str(ride) for ride in script.rides]
    lines += [
        f"there: {debit.asked.subject} {debit.asked.key} {debit.state} {debit.amount_minor} paid {debit.paid_minor}"
        f" back {debit.refunded_minor} {debit.code}"
        for debit in world.books.debits_by_number.values()
    ]
    for row in await world.rows("SELECT * FROM debit WHERE operator_no = $1", script.operator.operator_no):
        lines.append(
            f"here: {row['session_id']}-{row['ordinal']} {row['state']} {row['reason']} due {row['due_at']}"
            f" queries {row['queries']} resent {row['resent']} not found {row['not_found_at']}"
        )
    for row in await world.rows(
        "SELECT d.session_id, t.* FROM debit_transition t JOIN debit d USING (ride_no, ordinal)"
        " WHERE d.operator_no = $1 ORDER BY d.session_id, t.ordinal, t.transition",
        script.operator.operator_no,
    ):
        lines.append(
            f"{row['business_at']:%m-%d %H:%M:%S} {row['session_id']}-{row['ordinal']} {row['from_state']} ->"
            f" {row['to_state']} {row['why']} {row['amount_minor']} {row['provider_key']}"
        )
    return lines
