"""A simulated rider: does in his provider's app what a typed action asks of him."""

from __future__ import annotations

from typing import Any

import aiohttp

from service.lab.localstripe import DECLINED_CARD, GOOD_CARD, Books

DONE = "9000"
"""What Alipay's app hands back when the rider has agreed (opendocs 02no45)."""
OPENED = "openBusinessView:ok"
"""What WeChat hands back when the rider has agreed (wx.openBusinessView)."""


class RiderError(Exception):
    """The provider's app refused the rider, or the action is of a kind that nobody here can do."""


class Hands:
    """Riders at the simulator (`provider`: its address) and at localstripe (`cards`)."""

    def __init__(self, session: aiohttp.ClientSession, provider: str, cards: str) -> None:
        self._session = session
        self._provider = provider
        self._cards = Books(cards, session)

    async def do(self, action: dict[str, Any], rider_ref: str, *, poor: bool = False) -> None:
        """Agrees to what is asked: signs, confirms a freeze, pays. A poor rider's card is declined when charged.

        Raises RiderError, or aiohttp.ClientError where the app can't be reached.
        """
        match action:
            case {"kind": "url", "url": url}:
                async with self._session.post(url, params={"answer": "confirm"}) as answer:
                    await _taken(answer)
            case {"kind": "sign_string", "order_string": text}:
                words = {"answer": "confirm", "rider": rider_ref}
                url = f"{self._provider}/alipay/rider"
                async with self._session.post(url, params=words, data=text.encode()) as answer:
                    await _taken(answer)
                    told = await answer.json(content_type=None)
                if told["resultStatus"] != DONE:
                    raise RiderError(f"Alipay's app says {told}")
            case {"kind": "mini_program", "extra_data": data}:
                words, url = {"answer": "confirm", "rider": rider_ref}, f"{self._provider}/wechatpay/rider"
                async with self._session.post(url, params=words, json=data) as answer:
                    await _taken(answer)
                    told = await answer.json(content_type=None)
                if told["errMsg"] != OPENED:
                    raise RiderError(f"WeChat says {told}")
            case {"kind": "client_secret", "client_secret": secret}:
                await self._cards.sign(secret, DECLINED_CARD if poor else GOOD_CARD)
            case _:
                raise RiderError(f"nobody here can do {action}")


async def _taken(answer: aiohttp.ClientResponse) -> None:
    if answer.status >= 400:
        raise RiderError(f"{answer.url.path} answers {answer.status}: {await answer.text()}")
