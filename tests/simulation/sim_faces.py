"""Merchant accounts at the faces of Alipay and WeChat Pay, for the real adapters, and what riders do there."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple

import aiohttp
import msgspec
from sim_lives import Life
from sim_world import World

from service.lab.demo.merchants import SELLER, SERVICE, TERMS
from service.lab.provider.rows import Account, AlipayMerchant, WeChatMerchant
from service.lab.provider.signatures import new_key, public_half
from service.lab.provider.wechatpay.signing import pub_key_id
from service.lab.riders import Hands, RiderError

FaceName = Literal["zhima", "preauth", "wechatpay", "wechatpay, confirmed"]
ADDRESS = "http://provider.invalid"
API_V3_KEY = "k" * 32


class AtFace(NamedTuple):
    """An account as `add_account` takes it, and as it stands in the provider's books."""

    provider: str
    settings: dict[str, Any]
    account: Account


def at_face(face: FaceName, number: int, account_id: str, url: str) -> AtFace:
    """The `number`th account of a world; all worlds share their keys, which take a while to make."""
    ours, theirs = _key("OURS"), _key("THEIRS")
    if face in ("wechatpay", "wechatpay, confirmed"):
        mchid, appid, service_id = f"19{number:08d}", "wxd678efh567hg6787", f"{10**29 + 1}"
        known = WeChatMerchant(
            mchid, appid, service_id, "1DDE55AD", public_half(ours), API_V3_KEY, public_key_mode=True
        )
        account = Account(
            account_id, terms=TERMS["wechatpay"], face="wechatpay", notify_url=url, wechatpay=known, keys=(theirs,)
        )
        at_wechat = {
            "mchid": mchid,
            "appid": appid,
            "service_id": service_id,
            "merchant_serial_no": known.serial_no,
            "notify_url": url,
            "service_introduction": "Ride",
            "need_user_confirm": face == "wechatpay, confirmed",
            "merchant_private_key_env": _told("OURS", ours),
            "api_v3_key_env": _told("V3", API_V3_KEY),
            "api_v2_key_env": _told("V2", "v" * 32),
            "public_key_id": pub_key_id(known, theirs),
            "wechatpay_public_key_env": _told("PUBLIC", public_half(theirs)),
        }
        return AtFace("wechatpay", at_wechat, account)
    app_id = f"2021{number:012d}"
    alipay = AlipayMerchant(app_id, public_half(ours), SELLER)
    account = Account(account_id, terms=TERMS[face], face="alipay", notify_url=url, alipay=alipay, keys=(theirs,))
    settings = SERVICE | {
        "product": face,
        "app_id": app_id,
        "seller_id": SELLER,
        "notify_url": url,
        "app_private_key_env": _told("OURS", ours),
        "alipay_public_key_env": _told("PUBLIC", public_half(theirs)),
    }
    return AtFace("alipay", settings, account)


def follow(
    world: World, operator_no: int, table: Literal["agreement", "hold", "debit"], willing: Callable[[], bool]
) -> Any:
    """A rider's phone: does in his provider's app what the operator's app has shown him, where he is willing to."""

    async def phone(life: Life) -> None:
        faces = [number for number, (_, profile) in world.accounts.items() if profile.face != "sandbox"]
        hands = Hands(life.session, ADDRESS, "")
        for row in await world.rows(SHOWN[table], operator_no, faces):
            if not willing():
                continue
            try:
                await hands.do(msgspec.json.decode(row["action"]), row["rider_ref"])
            except (RiderError, aiohttp.ClientError, TimeoutError):
                world.counts["told no"] += 1

    return phone


SHOWN = {
    "agreement": """
SELECT a.action::text AS action, r.rider_ref FROM agreement a JOIN rider r USING (rider_no)
WHERE a.operator_no = $1 AND a.account_no = ANY($2) AND a.state = 'pending' AND a.action IS NOT NULL
ORDER BY a.agreement_no""",
    "hold": """
SELECT h.action::text AS action, r.rider_ref FROM hold h
JOIN agreement a USING (agreement_no) JOIN rider r USING (rider_no)
WHERE h.operator_no = $1 AND h.account_no = ANY($2) AND h.state = 'requested' AND h.action IS NOT NULL
ORDER BY h.session_id""",
    "debit": """
SELECT d.action::text AS action, r.rider_ref FROM debit d
JOIN agreement a USING (agreement_no) JOIN rider r USING (rider_no)
WHERE d.operator_no = $1 AND d.account_no = ANY($2) AND d.action IS NOT NULL
ORDER BY d.ride_no, d.ordinal""",
}
"""What each kind of thing has shown to its rider."""


@cache
def _key(name: str) -> str:
    return new_key()


def _told(name: str, secret: str) -> str:
    """The variable in which the secret stands."""
    variable = f"FAREBOX_SIMULATION_{name}"
    os.environ[variable] = secret
    return variable
