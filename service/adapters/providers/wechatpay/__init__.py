"""WeChat Pay Score behind the port: permissions, orders with a cap, completion, and what the rider pays himself.

settings | secrets -> keys, signing -> client -> agreements -> orders -> payments -> provider
                                          notices, statements, complaints, codes, wire
"""

from __future__ import annotations

from service.adapters.providers.wechatpay.provider import WechatPayProvider

__all__ = ["WechatPayProvider"]
