"""What happens in a world: who rides, what is corrected, what people and the provider do, drawn by the seed."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal, get_args

import msgspec
from msgspec.structs import replace
from sim_caps import CAPS
from sim_faces import ADDRESS, AtFace, at_face
from sim_fleet import open_fleet
from sim_lives import API_KEY, NOTIFY_SECRET, Life
from sim_people import Ride, Rider, debits_there
from sim_profiles import FORGETFUL, PROFILES, Focus, Profile
from sim_rides import REASON, Rides
from sim_world import BEGINNING, World

from service.adapters.postgres.operators import NewOperator, OperatorStore
from service.billing.debits.events import (
    DisputeClosed,
    DisputeOpened,
    PaidElsewhere,
    Resumed,
    Suspended,
)
from service.billing.debits.state import DisputeResult
from service.billing.tariffs import import_document
from service.flows.accounts import add_account
from service.flows.agreement_replies import EligibilityAsk, NewAgreement
from service.flows.operators import add_operator
from service.flows.stops import UnknownStopError, What, list_stops, resume, stop
from service.flows.tariffs import publish_tariff
from service.lab.provider import agreements as provider_agreements
from service.lab.provider import debits as provider_debits
from service.lab.provider.courier import signature
from service.lab.provider.disputes import AskDispute, dispute
from service.lab.provider.mirror import terms_of
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Account, Entry, Wallet

PLAN: dict[str, Any] = {
    "tariff_id": "bike",
    "valid_from": "2026-01-01T00:00:00Z",
    "plan": {
        "plan_id": "p",
        "currency": "CNY",
        "price": "1.00",
        "is_taxable": False,
        "name": "n",
        "description": "d",
        "per_min_pricing": [{"start": 0, "rate": "0.20", "interval": 1}],
    },
}
LOST_END = {"rules": {"ride_max": "30.00", "lost_end": {"after_hours": 24, "charge": "ride_max"}}}
LOST_MINOR = 3000
AGREED = (100_000, 100_000, 100_000, 100_000, 800, 300)
"""The most that a provider takes on an agreement, minor units: a ride costs 1.20 to 13.00."""
RICH, MIDDLING = 10_000_000, 500


class Script(Rides):
    """Writes the script of one world."""

    async def set_up(self) -> None:
        """Founds the operator with accounts and tariff; puts riders and rides on the script."""
        world, random = self.world, self.random
        new = NewOperator(operator_id=world.operator_id, name="n", time_zone="Asia/Shanghai", currency="CNY")
        await add_operator(world.calm, new, BEGINNING)
        async with world.calm.reading(OperatorStore) as store:
            operator = await store.find(world.operator_id)
        assert operator is not None
        self.operator = operator
        write_off_days = random.choice((10, 30, 180))
        calendar = {
            "debit_delay": random.choice(("PT0S", "PT0S", "PT2H", "P1D")),
            "due_days": random.choice((1, 7, 15)),
            "write_off_days": write_off_days,
        }
        statement = "UPDATE operator SET calendar = $2 WHERE operator_no = $1 RETURNING 1"
        await world.rows(statement, operator.operator_no, msgspec.json.encode(calendar).decode())
        self.lost_minor = random.choice((0, LOST_MINOR))
        rules = LOST_END if self.lost_minor else {}
        if self.focus.capped or (self.focus == Focus() and random.random() < 0.3):
            self.cap, self.lost_minor = random.choice(CAPS), 0
            rules = {"rules": {self.cap.rule: f"{self.cap.amount_minor / 100:.2f}"}}
        draft = import_document(msgspec.json.encode(PLAN | rules))[0]
        await publish_tariff(world.calm, operator, draft, now=BEGINNING, lead=timedelta())
        wanted = self.focus.profiles
        drawn = (*PROFILES, FORGETFUL) if wanted else PROFILES
        profiles = [profile for profile in drawn if not wanted or profile.name in wanted]
        await world.rows("UPDATE installation SET default_operator_no = $1 RETURNING 1", operator.operator_no)
        await world.rows("DELETE FROM operator_source RETURNING 1")  # Its app is no other world's.
        world.fleet = await open_fleet(world, world.rows)
        for number in range(random.choice((1, 1, 2))):
            await self._open_account(f"acc{number}", random.choice(profiles))
        for number in range(random.choice((1, 2, 3) if self.cap is None else (1, 1, 2))):
            self._rider(number)
        for number in range(random.choice((1, 2, 3, 4)) + (0 if self.cap is None else 2)):
            self._ride(number)
        self._banks_refuse_refunds()
        for _ in range(0 if self.focus.profiles else random.choice((0, 0, 1, 2))):
            self._stop(self._some_day())
        world.settled_down = self.settled_down
        world.at(BEGINNING + timedelta(days=60), "heal", "", self._heal)

    async def _open_account(self, name: str, profile: Profile) -> None:
        world = self.world
        account_id = f"{name}.{world.operator_id}"
        url = f"http://farebox.invalid/{account_id}"
        hears = self.random.random() < 0.7
        if profile.face == "sandbox":
            api_key = f"{API_KEY}-{account_id}"
            capabilities = msgspec.to_builtins(profile.capabilities)
            settings = {"api_key": api_key, "notify_secret": NOTIFY_SECRET, "capabilities": capabilities}
            terms = terms_of(profile.capabilities, **(self._whims(profile) | profile.terms))
            there = Account(account_id, api_key, terms, url if hears else None, NOTIFY_SECRET)
            made = AtFace("sandbox", settings, there)
        else:
            made, hears = at_face(profile.face, len(world.accounts), account_id, url), True
        account = await add_account(
            world.calm,
            self.operator.operator_no,
            account_id=account_id,
            provider=made.provider,
            base_url=ADDRESS,
            settings=made.settings,
            now=BEGINNING,
        )
        self._hears[account.account_no] = hears
        world.books.put(made.account)
        world.accounts[account.account_no] = (account, profile)
        if profile.face == "sandbox" and not self.focus.profiles and self.random.random() < 0.2:
            self._revoke_key(account_id, self._some_day())

    def _revoke_key(self, account_id: str, when: datetime) -> None:
        """The provider takes the account's key for no key of his, until somebody has put that right."""

        def known_by(api_key: str, _: World) -> None:
            books = self.world.books
            books.put(replace(books.accounts[account_id], api_key=api_key))

        until = when + timedelta(minutes=self.random.choice((1, 7, 40)))
        key = self.world.books.accounts[account_id].api_key
        self._outside(when, f"key of {account_id} revoked", partial(known_by, f"{key}-revoked"))
        self._outside(until, f"key of {account_id} good again", partial(known_by, key))

    def _whims(self, profile: Profile) -> dict[str, Any]:
        """How long the provider remembers a key, if at all, and the most that he takes on an agreement.

        Where a declined debit is tried again under its number, weeks later, he knows that number for good. Keys are
        ignored only where nothing but a lost answer has one sent twice: not where declined debits keep their number,
        nor where the rider is shown, under its number, what the provider still collects. There he would have two debits
        of one number, and tell of the newest alone: no service can be right with him.
        """
        able = profile.capabilities
        window_s = int(able.same_key_window.total_seconds()) if able.new_key_after_decline else None
        forgets = self.random.random() < 0.1 and not self.focus.profiles
        forgets = forgets and able.new_key_after_decline and not able.provider_retries
        cap_minor = self.focus.cap_minor if self.focus.profiles else self.random.choice(AGREED)
        return {"key_window_s": window_s, "forgets_keys": forgets, "cap_minor": cap_minor}

    def _stop(self, when: datetime) -> None:
        """An operator stops debits, refunds or reports, of everything or a part, and lets them go on."""
        what = self.random.choice(get_args(What))
        scope: dict[str, str] = self.random.choice(
            ({}, {"tariff_id": "bike"}, {"account_id": f"acc0.{self.world.operator_id}"})
        )
        operator_no, world = self.operator.operator_no, self.world

        async def begin(life: Life) -> None:
            world.stopped = True
            await stop(life.database, operator_no, what, reason=REASON, by="support", now=world.now(), **scope)

        world.at(when, f"stop {what}", "serve", begin, must=True)
        self._go_on(when + timedelta(hours=self.random.choice((1, 30, 300))))

    def _go_on(self, when: datetime) -> None:
        """Everything that stands still goes on."""

        async def resume_all(life: Life) -> None:
            for standing in await list_stops(life.database, self.operator.operator_no):
                with suppress(UnknownStopError):  # Somebody was faster.
                    await resume(
                        life.database,
                        self.operator.operator_no,
                        standing.stop_no,
                        reason=REASON,
                        by="support",
                        now=self.world.now(),
                    )

        self.world.at(when, "resume", "serve", resume_all, must=True)

    # -------------------------------------------------------------- riders

    def _rider(self, number: int) -> None:
        account_no = self.random.choice(sorted(self.world.accounts))
        rider = Rider(f"rider-{number}", f"agr-{number}", account_no, self.random.random() < 0.7)
        self.riders.append(rider)
        self._wallet(rider, self.random.choice((RICH, RICH, MIDDLING, 0)))

        async def sign(life: Life) -> None:
            asked = NewAgreement(
                agreement_id=rider.agreement_id, rider_ref=rider.rider_ref, account_id=self._account_id(account_no)
            )
            view = await life.agreements.create(self.operator.operator_no, asked)
            if view.action is None and view.state == "pending":
                await life.agreements.get(self.operator.operator_no, rider.agreement_id)

        self.world.at(BEGINNING, f"sign {rider.agreement_id}", "serve", sign, must=True)
        for minutes in (3, 11, 31):
            self._outside(BEGINNING + timedelta(minutes=minutes), "confirm", lambda _: self._confirm_agreements())
            self._phone(BEGINNING + timedelta(minutes=minutes), "agreement")
        for minutes in self.random.choice(((), (2, 2), (10, 30, 30))):
            self._human(
                BEGINNING + timedelta(minutes=minutes), f"may {rider.rider_ref} ride", partial(self._may_ride, rider)
            )
        for _ in range(self.random.choice((0, 0, 1, 3))):
            when = self._some_day()
            balance = self.random.choice((0, 150, MIDDLING, RICH))
            self._outside(when, f"wallet {balance}", partial(self._filled, rider, balance))
        if self.random.random() < 0.2:
            self._outside(self._some_day(), "revoke", lambda _: self._revoke(rider))
        if self.random.random() < 0.2:
            cap = self.random.choice((100, 300, 1000))
            self._outside(self._some_day(), f"cap {cap}", lambda _: self._limit(rider, cap))
        if self.random.random() < 0.1:

            async def end(life: Life) -> None:
                await life.agreements.revoke(self.operator.operator_no, rider.agreement_id)

            self._human(self._some_day(), f"end {rider.agreement_id}", end)

    async def _may_ride(self, rider: Rider, life: Life) -> None:
        """An app asks before it lets him; where he has not signed yet, the provider is asked."""
        await life.agreements.eligibility(
            EligibilityAsk(operator_no=self.operator.operator_no, agreement_id=rider.agreement_id, tariff_id="bike")
        )

    def _confirm_agreements(self) -> None:
        for (account_id, key), agreement in sorted(self.world.books.agreements.items()):
            account = self.world.books.accounts[account_id]
            if agreement.state == "pending" and account.face == "sandbox":
                provider_agreements.answer_by_rider(self.world.books, account, key, True, self.world.now())

    def _wallet(self, rider: Rider, balance_minor: int) -> None:
        books, now, currency = self.world.books, self.world.now(), "CNY"
        opening = books.opening(rider.rider_ref, currency, now)
        missing = balance_minor - books.wallet(rider.rider_ref, currency).balance_minor
        there = f"wallet:{rider.rider_ref}"
        parties = ("outside", there) if missing > 0 else (there, "outside")
        about = ("top_up", "", rider.rider_ref, "", *parties, abs(missing), currency, now)
        entries = (Entry(books.next_number(), *about),) if missing else ()
        books.put(*opening, Wallet(rider.rider_ref, currency, balance_minor), *entries)

    def _filled(self, rider: Rider, balance_minor: int, _: World) -> None:
        self._wallet(rider, balance_minor)

    def _theirs(self, rider: Rider) -> tuple[Account, str] | None:
        account = self.world.books.accounts[self._account_id(rider.account_no)]
        for (account_id, key), agreement in self.world.books.agreements.items():
            if account_id == account.account_id and agreement.asked.rider == rider.rider_ref:
                return account, key
        return None

    def _revoke(self, rider: Rider) -> None:
        found = self._theirs(rider)
        if found is not None:
            provider_agreements.revoke(self.world.books, *found, self.world.now())

    def _limit(self, rider: Rider, cap_minor: int) -> None:
        found = self._theirs(rider)
        if found is not None and found[0].face == "sandbox":
            provider_agreements.limit(self.world.books, *found, self.world.now(), cap_minor=cap_minor, valid_until=None)

    def _suspend(self, ride: Ride, when: datetime) -> None:
        self._wish(ride, when, Suspended("lock failed"))
        self._wish(ride, when + timedelta(hours=self.random.choice((1, 50, 400))), Resumed())

    def _dispute(self, ride: Ride, when: datetime) -> None:
        _, profile = self.world.accounts[ride.account_no]
        if profile.capabilities.dispute == "chargeback":
            self._chargeback(ride, when)
            return
        if profile.face != "sandbox" and self.random.random() < 0.7:
            self._outside(when, f"complain {ride.session_id}", partial(self._claim, ride, "complaint", "open", None))
            over = when + timedelta(days=self.random.choice((1, 9)))
            self._outside(over, f"content {ride.session_id}", partial(self._claim, ride, "complaint", "resolved", None))
            return
        self._wish(ride, when, DisputeOpened("complaint"))
        results: tuple[DisputeResult, ...] = ("won", "lost", "resolved")
        result = self.random.choice(results)
        self._wish(ride, when + timedelta(days=self.random.choice((1, 9))), DisputeClosed(result))

    def _chargeback(self, ride: Ride, when: datetime) -> None:
        """His bank takes the money back, some of it or all, and may give it to us again; the provider tells."""
        if not self._hears[ride.account_no]:
            return
        for part_minor in self.random.choice(((None,), (None,), (60, None))):
            claim = partial(self._claim, ride, "chargeback")
            self._outside(when, f"chargeback {ride.session_id}", partial(claim, "open", part_minor))
            ends: tuple[Literal["won", "lost"], ...] = ("won", "lost")
            end = self.random.choice(ends)
            self._outside(when + timedelta(days=3), f"chargeback {end}", partial(claim, end, None))
            when += self.random.choice((timedelta(days=2), timedelta(days=3, minutes=1), timedelta(days=5)))

    def _claim(
        self,
        ride: Ride,
        kind: Literal["complaint", "chargeback"],
        state: Literal["open", "resolved", "won", "lost"],
        part_minor: int | None,
        _: World,
    ) -> None:
        """What the rider holds against the ride's debits at the provider: a complaint about any, paid or not."""
        books = self.world.books
        for debit in debits_there(self.world, ride):
            if debit.paid_minor or kind == "complaint":
                bank = kind == "chargeback"
                asked = AskDispute(debit.account_id, debit.asked.key, kind, state, part_minor, another=bank)
                with suppress(RefusedError):
                    dispute(books, books.accounts[debit.account_id], asked, self.world.now())

    def _elsewhere(self, ride: Ride, when: datetime) -> None:
        self._wish(ride, when, PaidElsewhere("cash"))

    def _ask(self, ride: Ride, when: datetime) -> None:
        """The rider wants to pay now, and is given something to do; whether he does it is another matter."""

        async def ask(life: Life) -> None:
            for row in await self._debits(ride):
                await life.collection.ask_payment((row["ride_no"], row["ordinal"]))

        self._human(when, f"ask {ride.session_id}", ask)
        self._phone(when + timedelta(minutes=self.random.choice((1, 50))), "debit")

    def _pay(self, ride: Ride, when: datetime) -> None:
        """The rider opens his wallet's app and pays what is open there for this ride."""

        def pay(_: World) -> None:
            books = self.world.books
            for debit in debits_there(self.world, ride):
                if debit.state in ("accepted", "declined"):
                    account = books.accounts[debit.account_id]
                    newest = books.debits[debit.account_id, debit.asked.key].number == debit.number
                    over = debit.state == "declined" and account.terms.new_key_after_decline  # Nobody can pay it.
                    if newest and (not over or debit.code == provider_debits.RIDER_MUST_PAY):
                        provider_debits.pay_by_rider(books, account, debit.asked.key, self.world.now())

        self._outside(when, f"pay {ride.session_id}", pay)

    def _forge(self, ride: Ride, when: datetime) -> None:
        """Somebody who is not the provider says that the ride is paid."""
        self.world.at(when, f"forge {ride.session_id}", "serve", lambda life: self.forged(life, ride))

    def _lie(self, ride: Ride, when: datetime) -> None:
        """The provider says of itself that more was paid than was asked for."""
        self.world.at(when, f"lie {ride.session_id}", "serve", lambda life: self.forged(life, ride, more_minor=100))

    async def forged(self, life: Life, ride: Ride, more_minor: int = 0) -> None:
        """A notification about each debit of the ride, without a good signature or of more than was asked for: refused,
        or asked about, or nothing is ever right."""
        found = await self._debits(ride)
        for row in found:
            account, _ = self.world.accounts[ride.account_no]
            said_minor = max(row["amount_minor"], row["asked_minor"]) + more_minor  # Never what was asked for once.
            data = {
                "key": row["provider_key"], "ref": "DE0", "state": "paid", "currency": "CNY",
                "amount_minor": said_minor, "paid_minor": said_minor,
            }  # fmt: skip
            body = {"id": "NO0", "account_id": account.account_id, "about": "debit", "data": data}
            encoded = msgspec.json.encode(body)
            signed = signature(NOTIFY_SECRET, encoded, datetime.now(UTC)) if more_minor else "t=1,v1=00"
            await life.heard(ride.account_no, {"farebox-signature": signed}, encoded)

    def _heal(self, _: World) -> None:
        self._go_on(self.world.now())
        self._tell_again()
        for rider in self.riders:
            if rider.rich:
                self._wallet(rider, RICH)
        for ride in self.rides:
            if ride.unclear:
                started = any(one.kind == "started" for one in ride.said)
                (self._correct if started else self._void)(ride, self.world.now())
