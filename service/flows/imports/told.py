"""What an agreement's line comes to, beside what is there and what the provider says. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec.structs import replace

from service.adapters.postgres.agreements import AgreementRow
from service.billing.agreements.asking import AskError, ConflictingAskError, UnknownAskError
from service.billing.agreements.signing import Agreement, answered
from service.billing.agreements.standing import AgreementAnswer, AgreementStatus
from service.billing.outcomes import Barred, Closed, NotFound, Postponed, Unknown
from service.flows.agreement_replies import same_content
from service.flows.imports.lines import AgreementLine


def numbers(line: AgreementLine) -> Mapping[str, str]:
    """The agreement's numbers at the provider, by column."""
    told = {"provider_key": line.provider_key, "provider_ref": line.provider_ref}
    return {column: value for column, value in told.items() if value is not None}


class Known:
    """The agreements that are there, by their ids and by their numbers at the provider."""

    def __init__(self, rows: Sequence[AgreementRow]) -> None:
        self._by_id = {row.agreement.agreement_id: row for row in rows}
        self._taken = {("provider_key", row.agreement.provider_key) for row in rows}
        self._taken |= {("provider_ref", row.agreement.provider_ref) for row in rows if row.agreement.provider_ref}

    def find(self, line: AgreementLine) -> AgreementRow | None:
        """The agreement of a line, None where it is new; its end is not looked at.

        Raises ConflictingAskError for one that differs, or whose number at the provider is another agreement's.
        """
        row = self._by_id.get(line.new.agreement_id)
        if row is None:
            for column, value in numbers(line).items():
                if (column, value) in self._taken:
                    raise ConflictingAskError(column, "an agreement with another id has it here")
            return None
        same_content(line.new, row)
        agreement = row.agreement
        same = {
            "provider_key": line.provider_key in (None, agreement.provider_key),
            "provider_ref": line.provider_ref is None or _is_part(line.provider_ref, agreement.provider_ref),
            "created_at": line.created_at in (None, agreement.created_at),
        }
        for column, is_same in same.items():
            if not is_same:
                raise ConflictingAskError(column, "the agreement is there with another one; nothing was changed")
        return row


def ends_otherwise(line: AgreementLine, row: AgreementRow) -> bool:
    """Whether an agreement that is there has another end than its line says."""
    return line.valid_until not in (None, row.agreement.valid_until)


def in_force(intended: Agreement, line: AgreementLine, answer: AgreementAnswer, now: datetime) -> Agreement:
    """The agreement after the provider's answer; its end is the line's where the provider says none.

    Raises AskError unless it is in force there.
    """
    number = next(iter(numbers(line)))
    if isinstance(answer, AgreementStatus) and answer.state == "active":
        told = replace(answer, valid_until=answer.valid_until or line.valid_until)
        if line.provider_ref and told.provider_ref and not _is_part(line.provider_ref, told.provider_ref):
            raise ConflictingAskError("provider_ref", "the provider has another number for this agreement")
        if told.currency not in (None, intended.currency):
            raise ConflictingAskError("currency", "the provider has this agreement in another currency")
        agreement = answered(intended, told, now)
        if agreement.state == "active":
            return agreement
        raise UnknownAskError(number, f"over at the provider: {agreement.state}")
    raise _refused(number, answer)


def _is_part(number: str, whole: str | None) -> bool:
    """Whether a provider's number is this one, or begins with it: some say more parts once an agreement is signed."""
    return whole is not None and f"{whole}:".startswith(f"{number}:")


def _refused(number: str, answer: AgreementAnswer) -> AskError:
    match answer:
        case AgreementStatus(state="pending"):
            return UnknownAskError(number, "not signed at the provider yet")
        case AgreementStatus(state=state, code=code):
            return UnknownAskError(number, f"over at the provider: {state}{f' ({code})' if code else ''}")
        case NotFound() | Closed():
            return UnknownAskError(number, "the provider knows no such agreement")
        case Barred(code=code):
            return UnknownAskError(number, f"the provider does not accept the account ({code}): farebox account check")
        case Postponed() | Unknown():
            return UnknownAskError(number, "the provider gave no answer: run the file again later")
        case _:
            code = getattr(answer, "code", "") or type(answer).__name__
            return UnknownAskError(number, f"the provider refuses the question: {code}")
