"""What a ride is called at a provider: the account's own word, else ours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, TypeAlias

import msgspec

from service.billing.words import RIDE, Language

Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=32, pattern=r"^[^/=&\x00-\x1f\x7f]+$")]
"""Alipay forbids `/`, `=` and `&` (AlipayTradePayModel.subject)."""


class Texts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text for riders in each language; a rider of the other one reads ours."""

    zh: Text | None = None
    en: Text | None = None


Title: TypeAlias = Text | Texts
"""The account's word in one text for all, or one for each language."""
_NAMED = {"wechatpay": "service_introduction"}
"""The setting that says it, where the provider wants one anyway; else it is `title`."""


def title_given(provider: str, settings: Mapping[str, Any], language: Language) -> str:
    """The account's word for a ride in the rider's language, else ours."""
    given = settings.get(_NAMED.get(provider, "title"))
    text = given.get(language) if isinstance(given, Mapping) else given
    return str(text or RIDE[language])


@lru_cache(maxsize=1024)
def title_stored(provider: str, settings: str, language: Language) -> str:
    """As `title_given`, of settings as they are stored (JSON)."""
    return title_given(provider, msgspec.json.decode(settings), language)
