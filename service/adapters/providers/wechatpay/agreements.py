"""Permissions (免确认预授权): the rider allows orders without confirming each one; his openid is all that is kept.

Source: TheNorthMemory/wechatpay-openapi, docs/v3/payscore/permissions*.yaml.
"""

from __future__ import annotations

from urllib.parse import quote

from service.adapters.providers.port import AgreementRef, AgreementRequest
from service.adapters.providers.wechatpay import codes, wire
from service.adapters.providers.wechatpay.client import Client
from service.adapters.providers.wechatpay.codes import Problem
from service.adapters.providers.wechatpay.settings import WechatPaySettings
from service.billing.agreements.standing import AgreementAnswer, AgreementStatus
from service.billing.outcomes import MiniProgram, NotFound, Outcome

PAY_SCORE_APP = "wxd8f3793ea3b935b8"
"""Pay Score's own mini program (pay.weixin.qq.com, 小程序调起支付分, navigateToMiniProgram appId 固定配置)."""
ENABLE_PATH = "pages/use/enable"
PERMISSIONS = "/v3/payscore/permissions"
REASON = "the rider ended it"


class Permissions:
    """What riders have allowed this merchant's service."""

    def __init__(self, client: Client, settings: WechatPaySettings) -> None:
        self._client = client
        self._settings = settings

    async def begin(self, request: AgreementRequest) -> AgreementAnswer:
        """Asks for a token that the rider's app opens Pay Score with. Where he has allowed it before, that is told."""
        asked = {
            "service_id": self._settings.service_id,
            "appid": self._settings.appid,
            "authorization_code": request.key,
            "notify_url": self._settings.notify_url,
        }
        answer = await self._client.post(PERMISSIONS, asked, wire.TOKEN)
        if isinstance(answer, wire.TokenView):
            token = {"apply_permissions_token": answer.apply_permissions_token}
            return AgreementStatus("pending", action=MiniProgram(PAY_SCORE_APP, ENABLE_PATH, token))
        if not isinstance(answer, Problem):
            return answer
        seen = await self.get(AgreementRef(request.key))
        signed = isinstance(seen, AgreementStatus) and seen.state == "active"
        return seen if signed else codes.outcome(answer)

    async def get(self, agreement: AgreementRef) -> AgreementAnswer:
        """By our number; by the openid where WeChat Pay does not know that number any more."""
        view = await self._by_code(agreement)
        if isinstance(view, NotFound) and agreement.provider_ref is not None:
            asked = {"service_id": self._settings.service_id, "appid": self._settings.appid}
            path = f"{PERMISSIONS}/openid/{quote(agreement.provider_ref, safe='')}"
            found = await self._client.get(path, asked, wire.PERMISSION)
            view = codes.outcome(found) if isinstance(found, Problem) else found
            if isinstance(view, wire.PermissionView) and view.authorization_code not in ("", agreement.key):
                return AgreementStatus("revoked", agreement.provider_ref)  # He has signed anew since.
        return wire.permission_status(view) if isinstance(view, wire.PermissionView) else codes.of_query(view)

    async def revoke(self, agreement: AgreementRef) -> AgreementAnswer:
        """Ends a permission; what can't be ended is looked at: it may have ended before."""
        asked = {"service_id": self._settings.service_id, "reason": REASON}
        path = f"{PERMISSIONS}/authorization-code/{agreement.key}/terminate"
        answer = await self._client.post(path, asked, wire.NOTHING)
        if isinstance(answer, wire.Nothing):
            return AgreementStatus("revoked", agreement.provider_ref)
        if not isinstance(answer, Problem):
            return answer
        seen = await self.get(agreement)
        over = isinstance(seen, AgreementStatus) and seen.state == "revoked"
        return seen if over else codes.outcome(answer)

    async def openid(self, agreement: AgreementRef) -> str | AgreementAnswer:
        """The rider's openid; how the permission stands where it gives none."""
        if agreement.provider_ref is not None:
            return agreement.provider_ref
        seen = await self.get(agreement)
        if isinstance(seen, AgreementStatus) and seen.state == "active" and seen.provider_ref:
            return seen.provider_ref
        return seen

    async def _by_code(self, agreement: AgreementRef) -> wire.PermissionView | Outcome:
        path = f"{PERMISSIONS}/authorization-code/{agreement.key}"
        answer = await self._client.get(path, {"service_id": self._settings.service_id}, wire.PERMISSION)
        if isinstance(answer, Problem):
            return codes.outcome(answer)
        if isinstance(answer, wire.PermissionView) and answer.authorization_code not in ("", agreement.key):
            return wire.ANOTHER_NUMBER
        return answer
