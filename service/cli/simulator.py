"""`farebox provider-simulator`: the payment provider to try things on, as a process of its own."""

from __future__ import annotations

import asyncio
import signal
from datetime import datetime
from pathlib import Path
from textwrap import fill

import msgspec
import rich_click as click
import uvloop

from service.billing.instants import InstantError, read_instant
from service.cli.connections import fail
from service.cli.ranges import Times
from service.flows.clock_setting import SPEED_MAX
from service.lab.provider.faults import KINDS, OPS, Rates
from service.lab.provider.refusals import RefusedError
from service.lab.provider.rows import Account
from service.lab.provider.server import Plan, simulator
from service.lab.provider.workshop import checked


def register(group: click.Group) -> None:
    """Adds the subject to the command line."""
    group.add_command(provider_simulator)


GUIDE = """\
Faces, one per account:
  sandbox   our own JSON: /v1/...; {"account_id": "city", "api_key": "secret"}
  alipay    the open platform's POST /gateway.do, signed both ways (RSA2):
            {"account_id": "zhima", "face": "alipay", "notify_url": "http://...",
             "alipay": {"app_id": "2021...", "public_key": "<the merchant's, PEM or its base64>",
                        "seller_id": "2088..."},
             "terms": {"provider_retries": true, "hold_needed": true, "holds_max": 3}}
  wechatpay APIv3 of Pay Score: /v3/..., signed both ways, notifications under AES-256-GCM:
            {"account_id": "score", "face": "wechatpay", "notify_url": "http://...",
             "wechatpay": {"mchid": "1900...", "appid": "wx...", "service_id": "2002...",
                           "serial_no": "<of the merchant's certificate>", "public_key": "<its key>",
                           "apiv3_key": "<32 characters>", "public_key_mode": false},
             "terms": {"provider_retries": true, "nudge": true, "hold_needed": true, "further_debits": false,
                       "reduce_pending": true, "close": false, "new_key_after_decline": false, "partial": true,
                       "holds_max": 3, "unpaid_max": 1, "refund_window_s": 31536000}}

The workbench (JSON; no key: keep it on loopback):
  PUT  /accounts              makes or changes an account, as --account does
  GET  /keys?account=zhima    the provider's public keys (at wechatpay serials and certificates too), the one that
                              signs first; POST makes a new one
  POST /rider/...&answer=confirm   a sandbox rider's page, at the address that his action has: GET shows it (answer:
                              confirm, refuse; of a debit pay, refuse, which leaves it unpaid); also as a form's body
  POST /alipay/rider?answer=confirm&rider=r1   the rider's app: the body is an order string
                              (answer: confirm, refuse, look)
  POST /wechatpay/rider?answer=confirm&rider=r1   the rider's WeChat: the body is an apply_permissions_token, a
                              package, a prepay_id, or the JSON that has one (answer: confirm, refuse);
                              ?answer=pay&account=score&order=NAME, ?answer=terminate&account=score&rider=r1;
                              NAME is the hold's key or WeChat's number of the order; of a payment without an order,
                              the debit's key
  POST /wechatpay/platform?does=cancel&account=score&order=NAME   the merchant's own people at the merchant platform:
                              they cancel an order, or mark it as paid to the merchant (does: cancel, paid)
  PUT  /wallets               [{"rider": "r1", "currency": "CNY", "balance_minor": 0}]; what a rider pays by himself
                              in his app he pays from elsewhere, whatever this wallet has
  POST /script                [{"kind": "lost", "op": "debit.take", "on": "<key, number or rider>"}]; DELETE forgets;
                              also "account", "times", "seconds", "code"; kinds and ops below
  PUT  /rates                 {"decline": 0.05}, as --rate does; each kind below, 0 to 1
  POST /agreements            {"account_id": "zhima", "key": "...", "revoke": true}
  POST /disputes              {"account_id": "zhima", "debit": "NAME", "kind": "complaint"}, or a chargeback; "state":
                              "resolved" ends a complaint, "won" or "lost" a chargeback. NAME is the key that the debit
                              was sent under, its hold's key, or the provider's number of debit, order or payment; on an
                              order (Zhima, Pay Score) the debit's own key is never sent: take the hold's
  PUT  /clock                 {"now": "2026-11-22T10:00:00Z", "speed": 0}
  GET  /books, /books/debits, /books/notices, /books/reports   what really happened

Kinds of faults:
"""
GUIDE += fill(", ".join(KINDS), 118, initial_indent="  ", subsequent_indent="  ")
GUIDE += "\n\nOps (or *, the default):\n"
GUIDE += fill(", ".join(OPS), 118, initial_indent="  ", subsequent_indent="  ") + "\n"


def _tell(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(GUIDE, nl=False)
        context.exit()


@click.command("provider-simulator")
@click.option(
    "--guide", is_flag=True, is_eager=True, expose_value=False, callback=_tell, help="How faces and workbench are used."
)
@click.option("--port", type=click.IntRange(0, 65_535), default=0, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the faults that happen by rate.")
@click.option("--rate", "rates", multiple=True, metavar="FAULT=SHARE", help="For example decline=0.05; repeatable.")
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path, file_okay=False), help="Keeps the books over a restart."
)
@click.option(
    "--balance", type=click.IntRange(0), default=10_000_000, show_default=True, help="A new wallet, in minor units."
)
@click.option("--clock", metavar="RFC3339", help="What the provider's clock shows at first.  [default: the machine's]")
@click.option("--speed", type=Times(0, SPEED_MAX), default=1.0, show_default=True, help="Of a clock that was set.")
@click.option("--account", "accounts", multiple=True, metavar="JSON", help="A merchant account; repeatable.")
def provider_simulator(
    port: int,
    host: str,
    seed: int,
    rates: tuple[str, ...],
    directory: Path | None,
    balance: int,
    clock: str | None,
    speed: float,
    accounts: tuple[str, ...],
) -> None:
    """Runs a payment provider to try things on until it is told to stop; the first line printed is its address.

    It has books of its own, a clock that can be set, faults on demand, and a face for each kind of merchant account:
    --guide tells how they are used.
    """
    plan = Plan(
        port=port,
        host=host,
        seed=seed,
        rates=_rates(rates),
        directory=directory,
        wallet_balance_minor=balance,
        accounts=tuple(_account(text) for text in accounts),
        clock_shows=None if clock is None else _instant(clock),
        clock_speed=speed,
    )
    try:
        uvloop.run(_serve(plan))
    except OSError as error:
        fail(f"{host}:{port} can't be listened on ({error.strerror}); give another --port")


async def _serve(plan: Plan) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with simulator(plan) as url:
        click.echo(url)
        await stop.wait()


def _rates(texts: tuple[str, ...]) -> Rates:
    pairs = dict(text.partition("=")[::2] for text in texts)
    try:
        return msgspec.convert(pairs, Rates, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(Rates.__struct_fields__)
        raise click.BadParameter(f"{error}; allowed are {known}, each 0 to 1", param_hint="--rate") from None


def _account(text: str) -> Account:
    try:
        return checked(msgspec.json.decode(text, type=Account))
    except (msgspec.DecodeError, RefusedError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint="--account") from None


def _instant(text: str) -> datetime:
    try:
        return read_instant(text)
    except InstantError as error:
        raise click.BadParameter(f"{text!r} is {error}", param_hint="--clock") from None
