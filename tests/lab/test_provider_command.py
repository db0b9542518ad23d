"""`farebox provider-simulator`: an account with the credentials of its face, or told what is missing."""

from __future__ import annotations

import socket

import msgspec
import pytest
from click.testing import CliRunner
from sandbox_peer import peer

from service.cli.simulator import provider_simulator
from service.lab.provider.faults import CALL_FAULTS, KINDS, OPS
from service.lab.provider.workshop import DOORS


@pytest.mark.parametrize(
    ("account", "told"),
    [
        ({"account_id": "a"}, "needs api_key"),
        ({"account_id": "a", "face": "alipay"}, "app_id"),
        ({"account_id": "a", "face": "alipay", "alipay": {"app_id": "1", "public_key": "no key"}}, "public key"),
        ({"account_id": "a", "face": "wechatpay"}, "mchid"),
        ({"account_id": "a", "face": "bank"}, "Invalid enum value"),
    ],
)
def test_an_account_without_the_credentials_of_its_face_is_not_opened(account: dict[str, str], told: str) -> None:
    result = CliRunner().invoke(provider_simulator, ["--account", msgspec.json.encode(account).decode()])
    assert result.exit_code == 2
    assert told in " ".join(result.output.replace("│", " ").split())


def test_a_fault_that_nobody_knows_is_refused_with_those_that_are() -> None:
    result = CliRunner().invoke(provider_simulator, ["--rate", "meteor=1"])
    assert result.exit_code == 2
    assert all(kind in result.output for kind in CALL_FAULTS)


def test_a_port_in_use_is_one_line_and_exit_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = CliRunner().invoke(provider_simulator, ["--port", str(taken.getsockname()[1])])
    assert done.exit_code == 2
    assert "give another --port" in done.stderr


def test_the_guide_names_every_door_of_the_workbench() -> None:
    result = CliRunner().invoke(provider_simulator, ["--guide"])
    assert result.exit_code == 0
    kept_quiet = {"/healthz", "/alipay/bill"}  # For probes; an address that the bill's answer gives.
    missing = {path for _, path in DOORS if path not in kept_quiet and path not in result.output}
    assert not missing
    assert not {name for name in (*KINDS, *OPS) if name not in result.output}


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"),
    [
        ("POST", "/script", b'[{"kind": "meteor"}]', ("kind is one of slow, drop", "statement_twice")),
        ("POST", "/script", b'[{"kind": "lost", "op": "debit.make"}]', ("no op 'debit.make'", "debit.take")),
        ("POST", "/script", b'[{"kind": "lost", "key": "a"}]', ("`key`", "kind, on, op, account, times")),
        ("PUT", "/rates", b'{"meteor": 1}', ("`meteor`", "each 0 to 1: slow")),
        ("POST", "/disputes", b'{"account_id": "a", "debit": "d", "kind": "grudge"}', ("complaint or chargeback",)),
        ("POST", "/disputes", b'{"account_id": "shop", "debit": "d", "kind": "complaint"}', ("its hold's key",)),
    ],
)
async def test_what_the_workbench_refuses_it_refuses_with_what_is_allowed(
    method: str, path: str, body: bytes, allowed: tuple[str, ...]
) -> None:
    async with peer() as at:
        await at.call("PUT", "/accounts", {"account_id": "shop", "api_key": "secret"})
        async with at.session.request(method, at.url + path, data=body) as answer:
            told = (await answer.json())["error"]["message"]
        assert 400 <= answer.status < 500
        assert all(part in told for part in allowed), told
