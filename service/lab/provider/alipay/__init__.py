"""The Alipay face: the open platform's gateway as a merchant sees it, over the same books as every other face.

    POST /gateway.do --> requests (parameters, RSA2) --> methods --> zhima | trades | authorisations | bills
    the rider's app  --> riders (a merchant's order string, verified, confirmed or refused)
    notices          --> messages (form, RSA2, until the answer is `success`)

It is the opposite side of `service.adapters.providers` and shares no code with it. Sources: alipay-sdk-java-all (the
field comments of `com.alipay.api.domain` and `.response`), the gateway's table of return codes (open.alitrip.com, doc
105806), the error tables of alipay.trade.* (opendocs 02ekfp and its siblings), Alipay's agent-skill documents of
芝麻先享 (opendocs 03vtf0). What none of them says is in `codes.UNVERIFIED`, or said where it is done.
"""
