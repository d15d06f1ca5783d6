"""The whole operator against a scripted API server: how it starts, how it stops, and what it never tells."""

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from slmops.__main__ import GRACE, main
from slmops.cluster.connection import from_kubeconfig
from slmops.cluster.objects import CONFIG_MAP, EVENT, FINE_TUNE, JOB, LEASE, NODE, QUANTIZED_MODEL
from slmops.logs import JsonFormatter
from tests.unit import builders, virtualnet
from tests.unit.fakeapi import FakeApi, eventually, hang, status
from tests.unit.replica import SPEC, Replica, condition, end, free_port, holder, operate, replica, works

CANARY = "canary-51a7"
"""A secret. It must not be seen in any log, status or event."""


# --- starting


def test_missing_crds_are_said_once_and_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with FakeApi() as api:
            api.served.remove(FINE_TUNE), api.served.remove(QUANTIZED_MODEL)
            found = Replica(api)
            await asyncio.sleep(120)
            assert holder(api) is None, "who cannot work does not stand for election"
            assert api.streams(JOB) == 0
            api.served += [FINE_TUNE, QUANTIZED_MODEL]
            await found.leading(20)
            await found.kill()

    with caplog.at_level(logging.WARNING, logger="slmops"):
        virtualnet.run(run())
    assert [record.getMessage() for record in caplog.records if record.name == "slmops"] == [
        "CRDs are not installed: FineTune, QuantizedModel; apply crds/"
    ]


@pytest.mark.parametrize("fault", [lambda request: status(503), lambda request: status(403), hang])
def test_an_api_server_that_comes_up_late_is_waited_for(fault: Any) -> None:
    async def run() -> None:
        async with FakeApi() as api:
            api.faults.append(fault)
            found = Replica(api)
            await asyncio.sleep(200)
            assert (await found.get("/healthz"))[0] == 200
            assert (await found.get("/readyz"))[0] == 503
            api.faults.clear()
            await found.leading(30)
            api.put(FINE_TUNE, "a", spec=SPEC)
            await works(api)
            await found.kill()

    virtualnet.run(run())


def test_what_was_there_before_is_worked_on_once_everything_is_known() -> None:
    """A Job that is not in the cache yet would be made twice."""

    async def run() -> None:
        async with FakeApi() as api:
            api.put(FINE_TUNE, "a", spec=SPEC)
            first = await Replica(api).leading()
            await works(api)
            assert await first.terminate() == 0
            refusal = api.refuse(503, path="/jobs")
            second = Replica(api)
            await asyncio.sleep(60)
            assert not second.operator.election.leading()
            api.faults.remove(refusal)
            await second.leading(60)
            await asyncio.sleep(30)
            assert len(api.all(JOB)) == 1
            await second.kill()

    virtualnet.run(run())


# --- stopping


def test_on_sigterm_the_lease_is_released_and_the_end_is_good() -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        api.put(FINE_TUNE, "a", spec=SPEC)
        await works(api)
        await asyncio.sleep(30)  # kopf has taken the signals for itself meanwhile
        assert holder(api)
        began = virtualnet.now()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await found.task == 0
        assert virtualnet.now() - began < 2
        assert holder(api) == ""
        assert api.streams(FINE_TUNE) == 0, "connections are closed"

    operate(scenario)


def test_on_sigterm_a_running_pass_is_finished_and_no_other_begins() -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        async def slow(request: web.Request) -> None:
            if request.method == "POST" and "/configmaps" in request.path:
                found.operator._stop.set()
                await asyncio.sleep(GRACE / 2)

        api.faults.append(slow)
        api.put(FINE_TUNE, "a", spec=SPEC)
        api.put(FINE_TUNE, "b", spec=SPEC)
        began = virtualnet.now()
        assert await found.task == 0
        assert virtualnet.now() - began < GRACE + 0.2
        assert len(api.all(JOB)) == 1
        first = "a" if condition(api, "a", "Accepted") else "b"
        assert condition(api, first, "Accepted") == "True"
        assert "status" not in api.get(FINE_TUNE, "b" if first == "a" else "a")
        assert holder(api) == ""

    operate(scenario, workers=1)


@pytest.mark.usefixtures("side_by_side")
@pytest.mark.parametrize("where", ["/configmaps", "/jobs", "/status"])
def test_in_the_middle_of_a_pass_another_replica_leads_within_three_seconds_of_sigterm(where: str) -> None:
    async def run() -> None:
        async with FakeApi() as api:
            first = await Replica(api).leading()
            second = Replica(api)
            election = second.operator.election
            election._jitter = lambda: 1.0  # it looks as seldom as it may
            await asyncio.sleep(10)
            begun, looked, look = asyncio.Event(), asyncio.Event(), election._attempt

            async def attempt() -> bool:
                looked.set()
                return await look()

            election._attempt = attempt  # type: ignore[method-assign]

            async def slow(request: web.Request) -> None:
                if (
                    request.method != "GET"
                    and request.path.startswith("/api")
                    and where in request.path
                    and not begun.is_set()
                ):
                    begun.set()
                    await asyncio.sleep(20)

            api.faults.append(slow)
            api.put(FINE_TUNE, "a", spec=SPEC)
            await begun.wait()
            looked.clear()
            await looked.wait()
            await asyncio.sleep(election._pause() - GRACE + 0.05)  # so that it looks just before the Lease is released
            began = virtualnet.now()
            end = asyncio.create_task(first.terminate())
            while not second.leads():  # noqa: ASYNC110  (virtual time; a looser look would count as part of the three seconds)
                await asyncio.sleep(0.01)
            assert virtualnet.now() - began < 3
            assert await end == 0
            await works(api)
            await asyncio.sleep(60)
            assert len(api.all(JOB)) == len(api.all(CONFIG_MAP)) == 1
            assert condition(api, "a", "Accepted") == "True"
            await second.kill()

    virtualnet.run(run())


def test_a_pass_that_hangs_does_not_keep_the_process_from_ending() -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        api.faults.append(lambda request: hang(request) if "/configmaps" in request.path else None)
        api.put(FINE_TUNE, "a", spec=SPEC)
        await asyncio.sleep(1)
        began = virtualnet.now()
        assert await found.terminate() == 0
        assert virtualnet.now() - began < GRACE + 0.2
        assert holder(api) == ""

    operate(scenario)


def test_a_standby_that_is_told_to_stop_leaves_the_lease_alone() -> None:
    async def run() -> None:
        async with FakeApi() as api, replica(api) as first:
            second = Replica(api)
            await asyncio.sleep(10)
            assert await second.terminate() == 0
            assert holder(api) == first.operator.election.identity

    virtualnet.run(run())


def test_without_an_api_server_it_can_be_stopped_too() -> None:
    async def run() -> None:
        async with FakeApi() as api:
            api.faults.append(hang)
            found = Replica(api)
            await asyncio.sleep(100)
            began = virtualnet.now()
            assert await found.terminate() == 0
            assert virtualnet.now() - began < GRACE

    virtualnet.run(run())


def test_an_error_that_nobody_expected_ends_the_process_with_its_trace(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        def boom(*_: Any, **__: Any) -> None:
            raise LookupError("boom")

        monkeypatch.setattr(found.operator.intake, "wake_all", boom)
        await asyncio.sleep(100)
        assert await found.task == 1
        assert holder(api) == "", "it is ours still, so another may begin at once"

    operate(scenario, resync_seconds=20)
    (record,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert record.getMessage() == "stopping after an error: boom"
    assert record.exc_info is not None


# --- secrets


def test_no_secret_is_in_any_log_status_or_event(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The token of the operator, through a working day with every kind of trouble, at the loudest log level."""

    async def run() -> str:
        async with FakeApi() as api:
            api.token = CANARY
            (tmp_path / "token").write_text(CANARY)
            content = {
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "slmops-system"}}],
                "clusters": [{"name": "c", "cluster": {"server": api.url}}],
                "users": [{"name": "u", "user": {"tokenFile": "token"}}],
            }
            (tmp_path / "config").write_text(yaml.safe_dump(content))
            found = await Replica(api, from_kubeconfig([tmp_path / "config"])).leading()
            assert all(request.headers["Authorization"] == f"Bearer {CANARY}" for request in api.requests)
            api.put(FINE_TUNE, "a", spec=SPEC)
            end(api, await works(api), builders.ended(1, "no report"), builders.FAILED)
            api.put(FINE_TUNE, "b", spec={**SPEC, "method": "Magic"})
            for code in (401, 403, 404, 409, 422, 500):
                fault = api.refuse(code, times=20)
                api.put(FINE_TUNE, f"c{code}", spec=SPEC)
                api.cut()
                await asyncio.sleep(2)
                api.faults.remove(fault)
                await asyncio.sleep(2)
            (tmp_path / "token").write_text("rubbish that is no token")
            await asyncio.sleep(1)
            (tmp_path / "token").write_text(CANARY)
            await asyncio.sleep(20)
            assert not found.task.done()
            seen = [api.all(gvk) for gvk in (FINE_TUNE, EVENT, JOB, CONFIG_MAP, LEASE)]
            metrics = await found.get("/metrics")
            await found.terminate()
            return json.dumps([seen, metrics])

    with caplog.at_level(logging.DEBUG):
        written = virtualnet.run(run())
    lines = [JsonFormatter().format(record) for record in caplog.records]
    assert len(lines) > 100
    assert CANARY not in written
    assert [line for line in lines if CANARY in line] == []


# --- the process


def test_a_mistake_in_the_settings_ends_it_with_two_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.yaml").write_text("workers: many\n")
    assert main(["run", "--config", str(tmp_path / "settings.yaml")]) == 2
    assert capsys.readouterr().err == (
        f"slmops: {tmp_path}/settings.yaml: workers: Input should be a valid integer, unable to parse string as an"
        " integer\n"
    )
    assert main(["run", "--config", str(tmp_path / "absent.yaml")]) == 2
    assert "absent.yaml: No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kubeconfig", "expected"),
    [(None, "set KUBECONFIG to a kubeconfig file"), ("", "no current-context"), ("users: [", "not a kubeconfig")],
)
def test_without_a_usable_kubeconfig_it_ends_with_two_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kubeconfig: str | None,
    expected: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    if kubeconfig is not None:
        (tmp_path / "config").write_text(kubeconfig)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    assert main(["run"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("slmops: ")
    assert expected in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run", "--confg", "x"]])
def test_a_wrong_command_line_ends_it_with_two(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


async def test_the_process_itself_works_until_sigterm_and_logs_in_lines_of_json(tmp_path: Path) -> None:
    async with FakeApi() as api:
        api.put(FINE_TUNE, "a", spec=SPEC)
        api.put(NODE, "n")
        content = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": api.url}}],
            "users": [{"name": "u", "user": {"token": CANARY}}],
        }
        (tmp_path / "config").write_text(yaml.safe_dump(content))
        (tmp_path / "settings.yaml").write_text(f"httpPort: {free_port()}\nlogLevel: debug\n")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "slmops", "run", "--config", str(tmp_path / "settings.yaml"),
            env={**os.environ, "KUBECONFIG": str(tmp_path / "config"), "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            await eventually(lambda: process.returncode is not None or api.get(FINE_TUNE, "a").get("status"), 30)
            process.send_signal(signal.SIGTERM)
            _, said = await asyncio.wait_for(process.communicate(), 30)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, said.decode()
        assert len(api.all(JOB)) == 1
        assert api.all(LEASE)[0]["metadata"]["namespace"] == "default"
        assert holder(api) == ""
        lines = [json.loads(line) for line in said.decode().splitlines()]
        messages = [line["message"] for line in lines]
        assert any(message.startswith("slmops ") and api.url in message for message in messages)
        for expected in ("caches are filled", "stopping", "the Lease is released"):
            assert expected in messages
        assert CANARY not in said.decode()
