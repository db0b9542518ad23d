"""People as markers, and providers that tell more about them than anybody asked: what must not be kept.

What a provider signs is signed again by the keys that the simulator was given for it, so that it is believed.
"""

from __future__ import annotations

import hmac
import json
from base64 import b64decode
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

import aiohttp
import msgspec
from aiohttp import web
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace
from yarl import URL

from service.lab.localstripe import Door
from service.lab.provider.alipay.signing import notice_content
from service.lab.provider.rows import Account
from service.lab.provider.signatures import new_key, sign
from service.lab.provider.wechatpay.signing import encrypted, signed_headers

LOGON = "***@example.com"
"""How every masked login ends that the simulator puts into its answers by itself (buyer_logon_id)."""
WORDS = ("message", "sub_msg", "summary", "description")
"""Fields for people, in which anybody may be named."""
OURS = ("metadata", "risk_fund", "time_range")
"""Objects that say only what we wrote into them."""


class Person:
    """A rider as others know him, told apart by where it was said."""

    def __init__(self, told_by: str) -> None:
        number = sum(told_by.encode())
        self.told_by = told_by
        self.fields: dict[str, Any] = {
            "rider_name": f"王小明-{told_by}",
            "mobile": f"+86-139-{told_by}-{number:04}",
            "identity_no": f"11010119900307{told_by}{number:04}",
            "zm_score": f"zmscore-{told_by}-731",
            "buyer_logon_id": f"139***{told_by}@qq.example",
            "nickname": f"Xiaoming of {told_by}",
            "home": f"{number} {told_by} Road, Hangzhou",
        }

    def all_of_it(self) -> dict[str, Any]:
        """The fields, again under the names that providers have for them, and again deeper down: lists and objects in
        fields nobody listed."""
        mine = self.fields
        contact = {"name": mine["rider_name"], "phone": mine["mobile"], "email": mine["buyer_logon_id"]}
        contact |= {"address": {"line1": mine["home"]}}
        return {
            **mine,
            "billing_details": contact,
            "shipping": contact,
            "customer_details": contact,
            "receipt_email": mine["buyer_logon_id"],
            "evidence": {"customer_name": mine["rider_name"], "customer_purchase_ip": mine["home"]},
            "payer_logon_id": mine["buyer_logon_id"],
            "buyer_user_name": mine["rider_name"],
            "payer_phone": mine["mobile"],
            "user_info": {"nickname": mine["nickname"], "risk_score": mine["zm_score"]},
            "payer": {"detail": [mine]},
        }

    def flat(self) -> dict[str, str]:
        """What a form can say."""
        return {name: text for name, text in self.all_of_it().items() if isinstance(text, str)}

    def in_words(self) -> str:
        """In a text for people."""
        return " ".join(self.fields.values())

    def marks(self) -> list[str]:
        """What to look for: as it is, as JSON may escape it, and as bytes are shown in hex."""
        forms: list[str] = []
        for text in self.fields.values():
            forms += [text, json.dumps(text)[1:-1], text.encode().hex()]
        return forms


class Talkative:
    """What was said of whom: `said` counts the answers and notifications that a person was put into, by what they
    were about."""

    def __init__(self, people: Mapping[str, Person]) -> None:
        self.people = people
        self.said: Counter[str] = Counter()
        self.url = ""
        """Its own address."""
        self.api = ""
        """Where notifications go."""
        self.webhook_secret = ""
        """What Stripe signs with."""
        self.broken = {"POST /v1/debits": 1}
        """How many calls of an address are done, and answered by a gateway's page instead."""
        self._accounts: dict[str, Account] = {}

    def opened(self, body: bytes) -> bytes:
        """An account as it goes to the simulator: with a key that is known here."""
        account = msgspec.json.decode(body, type=Account)
        if account.face == "sandbox":
            return body
        account = replace(account, keys=(new_key(),))
        merchant = account.alipay.app_id if account.alipay else account.wechatpay and account.wechatpay.mchid
        self._accounts |= {account.account_id: account, str(merchant): account}
        return msgspec.json.encode(account)

    # ------------------------------------------------------------------ what was answered

    def sandbox(self, call: str, answer: web.Response) -> None:
        """The sandbox provider's JSON, of which nothing is signed."""
        answer.body = self._said("sandbox", str(answer.status), json.loads(_body(answer)))
        answer.headers["X-Buyer-Name"] = self.people["sandbox"].fields["buyer_logon_id"]
        if self.broken.get(call, 0):
            self.broken[call] -= 1
            answer.set_status(502)
            answer.body = f"<html>{self.people['sandbox'].in_words()}</html>".encode()
            answer.content_type = "text/html"

    def alipay(self, params: Mapping[str, str], answer: web.Response) -> None:
        """An answer of the gateway: the node is planted, and signed as it then is."""
        node, *_ = told = json.loads(_body(answer))
        text = self._said("alipay", params["method"], told[node])
        signature = sign(self._accounts[params["app_id"]].keys[0], text)
        answer.body = f'{{"{node}":{text.decode()},"sign":"{signature}"}}'.encode()

    def wechatpay(self, call: str, account: Account, answer: web.Response) -> None:
        """An answer of the API; files and what says nothing stay as they are."""
        if answer.content_type == "application/json" and _body(answer):
            answer.body = body = self._said("wechatpay", call, json.loads(_body(answer)))
            answer.headers.update(signed_headers(account, body))

    def stripe(self, call: str, answer: web.Response) -> None:
        """An answer of Stripe's."""
        answer.body = self._said("stripe", f"{call} {answer.status}", json.loads(_body(answer)))

    # ------------------------------------------------------------------ what was notified

    def notice(self, path: str, headers: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
        """A notification on its way to the service, by the address that it goes to."""
        _, _, _, provider, account_id, _ = path.split("/")
        if provider == "alipay":
            return headers, self._alipay_notice(body)
        if provider == "wechatpay":
            return self._wechatpay_notice(self._accounts[account_id.partition(".")[2]], headers, body)
        event = json.loads(body)
        said = self._said("stripe notice", event["type"], event)
        return headers | {"Stripe-Signature": self.stripe_signature(said)}, said

    def stripe_signature(self, body: bytes) -> str:
        """As Stripe's documentation has it (docs.stripe.com/webhooks, Verify webhook signatures manually)."""
        seconds = int(datetime.now(UTC).timestamp())
        return f"t={seconds},v1={hmac.digest(self.webhook_secret.encode(), b'%d.%s' % (seconds, body), 'sha256').hex()}"

    def _alipay_notice(self, body: bytes) -> bytes:
        form = dict(parse_qsl(body.decode()))
        kind = form.get("msg_method") or form["notify_type"]
        person = self._about("alipay notice", kind)
        form = person.flat() | form
        if "biz_content" in form:
            form["biz_content"] = json.dumps(planted(json.loads(form["biz_content"]), person), ensure_ascii=False)
        del form["sign"]
        content = notice_content(form, with_type="msg_method" in form)
        return urlencode(form | {"sign": sign(self._accounts[form["app_id"]].keys[0], content.encode())}).encode()

    def _wechatpay_notice(self, account: Account, headers: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
        assert account.wechatpay is not None
        told = json.loads(body)
        person, resource = self._about("wechatpay notice", told["event_type"]), told["resource"]
        key = account.wechatpay.apiv3_key
        sealed, nonce, about = b64decode(resource["ciphertext"]), resource["nonce"], resource["associated_data"]
        opened = json.loads(AESGCM(key.encode()).decrypt(nonce.encode(), sealed, about.encode()))
        text = json.dumps(planted(opened, person), ensure_ascii=False).encode()
        told = planted(told, person)
        told["resource"]["ciphertext"] = encrypted(key, nonce, about, text)
        said = json.dumps(told, ensure_ascii=False).encode()
        return headers | signed_headers(account, said), said

    # ------------------------------------------------------------------ both

    def account(self, headers: Mapping[str, str]) -> Account:
        """Whose call to WeChat Pay it is."""
        return self._accounts[headers["Authorization"].partition('mchid="')[2].partition('"')[0]]

    def _said(self, who: str, what: str, told: Any) -> bytes:
        return json.dumps(planted(told, self._about(who, what)), ensure_ascii=False).encode()

    def _about(self, who: str, what: str) -> Person:
        """Whom something names, which is counted."""
        self.said[f"{who} {what}"] += 1
        return self.people[who]


def _body(answer: web.Response) -> bytes:
    assert isinstance(answer.body, bytes)
    return answer.body


class TalkativeDoor(Door):
    """localstripe's door, with a person in each of its answers."""

    def __init__(self, target: str, session: aiohttp.ClientSession, state: Talkative) -> None:
        super().__init__(target, session)
        self._state = state

    async def handle(self, request: web.Request) -> web.StreamResponse:
        answer = await super().handle(request)
        assert isinstance(answer, web.Response)
        kind, *more = request.path.removeprefix("/v1/").split("/")
        self._state.stripe(" ".join((request.method, kind, *more[1:])), answer)
        return answer


@asynccontextmanager
async def talkative(provider_url: str, people: Mapping[str, Person]) -> AsyncIterator[Talkative]:
    """A door in front of the simulator that puts a person into each of its answers, and into each notification that it
    is given to carry."""
    state = Talkative(people)

    async def forward(request: web.BaseRequest) -> web.StreamResponse:
        body, path = await request.read(), request.path
        headers = {
            name: text for name, text in request.headers.items() if name.lower() not in ("host", "content-length")
        }
        base = provider_url
        if path.startswith("/v1/providers/"):
            base, (headers, body) = state.api, state.notice(path, headers, body)
        elif path == "/accounts":
            body = state.opened(body)
        url = URL(base + request.raw_path, encoded=True)
        try:
            async with session.request(request.method, url, headers=headers, data=body) as came:
                told = {
                    name: text for name, text in came.headers.items() if name.startswith(("Wechatpay", "Request-I"))
                }
                answer = web.Response(status=came.status, body=await came.read(), headers=told)
                answer.content_type = came.content_type
        except aiohttp.ClientConnectorError:
            return web.Response(status=502)  # Notified before the service is up: it comes again.
        if path == "/gateway.do":
            state.alipay(dict(parse_qsl(request.query_string) + parse_qsl(body.decode())), answer)
        elif path.startswith("/v3/"):
            state.wechatpay(f"{request.method} {_generic(path)}", state.account(request.headers), answer)
        elif path.startswith("/v1/") and base == provider_url:
            state.sandbox(f"{request.method} {path}", answer)
        return answer

    runner = web.ServerRunner(web.Server(forward, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        try:
            state.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield state
        finally:
            await runner.cleanup()


def _generic(path: str) -> str:
    """An address without the numbers in it."""
    parts = path.split("/")
    return "/".join("*" if sum(letter.isdigit() for letter in part) > 1 else part for part in parts)


def planted(value: Any, person: Person) -> Any:
    """The JSON with the person in each of its objects, and in the words for people; what it said itself stays."""
    if isinstance(value, list):
        return [planted(item, person) for item in value]
    if not isinstance(value, dict):
        return value
    told = {name: item if name in OURS else planted(item, person) for name, item in value.items()}
    told |= {name: told[name] + person.in_words() for name in WORDS if isinstance(told.get(name), str)}
    return person.all_of_it() | told
