"""The WeChat Pay face: APIv3 as a merchant of Pay Score (支付分) sees it, over the same books as every other face.

    /v3/...         --> requests (Authorization, RSA) --> doors --> permissions | orders | completion | refunds | ...
    the rider's app --> riders (accepts a permission, confirms an order, pays, ends a permission)
    notices         --> messages (headers as answers have them, resource under AES-256-GCM, until 200 or 204)

It is the opposite side of `service.adapters.providers` and shares no code with it. Sources: wechatpay-skills
(wechatpay-apiv3, wechatpay-payscore/references: its troubleshooting page is called 排障手册 here, its page of
parameters and rules 开发参数与业务规则), the OpenAPI documents of TheNorthMemory/wechatpay-openapi, the notifications
of wechatpay-im/website, wechatpay-go and wechatpayv3 for what clients check. What none of them says is in
`codes.UNVERIFIED`, or said where it is done.
"""
