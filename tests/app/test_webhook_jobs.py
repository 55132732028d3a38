"""Jobs whose tasks services do: a whole agent, real HTTP, the example's model server, and services that
misbehave."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from agents import free_port, odd_service, running, settings_of, spec_of, submission, until

from meshpeer.adapters.specfile.load import load_job, load_text
from meshpeer.app.agent import Agent
from meshpeer.app.founding import found
from meshpeer.app.options import InitOptions
from meshpeer.core.ids import JobId
from meshpeer.core.jobs.model import JobSpec
from meshpeer.runtime.control import Job

EXAMPLES = Path(__file__).resolve().parents[2] / "docs/examples"
KEY = b"k" * 32
IDS = "abcdefghijklmnopqrstuvwxyz234567"


async def test_the_example_tells_languages_and_signs_what_it_says(folder: Path) -> None:
    """Async and sync tasks of ``inference.yaml``, with a secret on both sides."""
    secret = folder / "webhooks.secret"
    secret.write_text(f"whsec_{base64.b64encode(KEY).decode()}\n")
    secret.chmod(0o600)
    with model_server("--secret-file", str(secret)) as url:
        spec = aimed_at(load_job(str(EXAMPLES / "inference.yaml")).spec, url)
        async with running(settings_of(folder, secret_file=str(secret))) as agent:
            job = await run(agent, spec)
            said = [json.loads(await log_of(agent, job, f"guess[{index}]")) for index in range(4)]
            sure = json.loads(await log_of(agent, job, "sure"))
    assert job.state == "succeeded"
    assert [one["language"] for one in said] == ["english", "german", "french", "spanish"]
    assert sure["language"] == "english"


async def test_a_node_whose_secret_a_service_does_not_share_gets_nothing_done(folder: Path) -> None:
    with model_server_secret(folder) as url:
        spec = spec_of({"t": {"webhook": {"url": f"{url}/now", "body": {"text": "x"}}}})
        async with running(settings_of(folder)) as agent:
            job = await run(agent, spec)
            (task,) = await agent.api.tasks(job.id)
    assert (job.state, task.error) == (
        "failed",
        'the service answered 401: {"error": "not signed by a secret of mine"}',
    )


MANNERS = {
    "sync": ("succeeded", ""),
    "later": ("succeeded", ""),
    "before the 202": ("succeeded", ""),
    "twice": ("succeeded", ""),
    "after two 503": ("succeeded", ""),
    "after a cut": ("succeeded", ""),
    "with a forgery first": ("succeeded", ""),
    "fails": ("failed", "no such voice"),
    "late": ("failed", "timed out after 3 s"),
    "404": ("failed", "the service answered 404"),
    "redirect": ("failed", "the service answered 307"),
    "too large": ("failed", "the service's answer is larger than 1,048,576 bytes"),
}


async def test_whatever_a_service_does_each_task_ends_once_and_right(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manners = [{"manner": one} for one in MANNERS if one != "late"]
    with odd_service() as service:
        hook = {"url": f"{service.url}/do", "body": {"manner": "${manner}", "key": "${task}"}}
        late = {"webhook": {"url": f"{service.url}/do", "body": {"manner": "late"}}, "timeout": "3s"}
        spec = spec_of({"t": {"webhook": hook, "array": manners, "timeout": "20s"}, "late": late})
        async with running(settings_of(folder, slots=16)) as agent:
            job = await run(agent, spec)
            tasks = {one.id: one for one in await agent.api.tasks(job.id)}
            await service.settled()
    table = []
    elements = {one["manner"]: f"t[{place}]" for place, one in enumerate(manners)}
    for manner in MANNERS:
        task = tasks[elements.get(manner, "late")]
        table.append((manner, task.state, task.error, service.answers.get(manner, [])))
    with capsys.disabled():
        print("\n" + "\n".join(f"  {one[0]:22} {one[1]:10} {one[3]!s:22} {one[2]}" for one in table))
    for manner, state, error, _ in table:
        assert (state, error) == MANNERS[manner], manner
    assert service.answers == {
        "later": [200],
        "before the 202": [200],
        "twice": [200, 200],
        "after two 503": [200],
        "after a cut": [200],
        "with a forgery first": [404, 415, 400, 200],
        "fails": [200],
        "late": [404],
    }
    assert service.requests["after two 503"] == 3
    assert service.requests["after a cut"] == 2
    assert service.requests["redirect"] == 1
    # All calls of an attempt are one message, with the key of its task.
    assert len(service.messages["after two 503"]) == 1
    assert all(key.startswith(job.id) for _, key in service.messages["after two 503"])


async def test_work_that_a_service_has_outlives_the_agent(folder: Path) -> None:
    with odd_service() as service:
        spec = spec_of({"t": {"webhook": {"url": f"{service.url}/do", "body": {"manner": "held"}}}})
        settings = settings_of(folder, web_port=free_port())
        async with running(settings) as agent:
            job = await agent.api.submit(submission(spec))
            # A call whose answer the agent has not read is made again, and rightly.
            await until(lambda: agent.node.scheduler.webhooks.taken == 1)
        held = threading.Thread(target=service.release)
        held.start()
        await until(lambda: service.refused > 0)
        async with running(settings) as agent:
            ended = await last(agent, job.id)
            (task,) = await agent.api.tasks(job.id)
            said = await log_of(agent, ended, "t")
        held.join()
    assert (ended.state, len(task.attempts)) == ("succeeded", 1)
    assert json.loads(said) == {"held": True}
    assert service.requests["held"] == 1
    assert service.answers["held"] == [200]


async def test_a_job_calls_what_the_node_allows_and_nothing_else(folder: Path) -> None:
    with odd_service() as service:
        port = free_port()
        urls = [
            f"{service.url}/do",
            f"http://127.0.0.1:{port}/metrics",
            f"http://localhost:{port}/v1/callbacks/x",
            "http://169.254.169.254/latest/meta-data/",
            f"http://127.0.0.2:{service.port}/do",
        ]
        body = {"manner": "sync"}
        spec = spec_of(
            {f"t{place}": {"webhook": {"url": url, "body": body}} for place, url in enumerate(urls)}
        )
        async with running(settings_of(folder, web_port=port)) as agent:
            job = await run(agent, spec)
            tasks = await agent.api.tasks(job.id)
    assert [(one.state, one.error) for one in tasks] == [
        ("succeeded", ""),
        ("failed", f"port {port} is this node's own agent's"),
        ("failed", f"port {port} is this node's own agent's"),
        ("failed", "this node lets no job call http://169.254.169.254:80"),
        ("failed", f"this node lets no job call http://127.0.0.2:{service.port}"),
    ]
    assert service.requests == {"sync": 1}


async def test_service_that_is_down_is_waited_for(folder: Path) -> None:
    port = free_port()
    spec = spec_of({"t": {"webhook": {"url": f"http://127.0.0.1:{port}/do", "body": {"manner": "later"}}}})
    async with running(settings_of(folder)) as agent:
        job = await agent.api.submit(submission(spec))
        await until(lambda: any(one.trouble for one in agent.node.scheduler.webhooks._open.values()))
        with odd_service(port):
            assert (await last(agent, job.id)).state == "succeeded"


async def test_cancelled_job_hangs_up_and_its_call_back_is_unknown(folder: Path) -> None:
    with odd_service() as service:
        spec = spec_of({"t": {"webhook": {"url": f"{service.url}/do", "body": {"manner": "held"}}}})
        async with running(settings_of(folder)) as agent:
            job = await agent.api.submit(submission(spec))
            await until(lambda: agent.node.scheduler.webhooks.waiting == 1 and "held" in service.requests)
            assert (await agent.api.cancel(job.id)).state == "cancelled"
            await trio.to_thread.run_sync(service.release)
    assert service.answers["held"] == [404]


async def test_end_of_a_job_is_told_to_who_is_named_and_the_status_says_so(folder: Path) -> None:
    with odd_service() as service:
        document = {
            "name": "told",
            "on_complete": f"{service.url}/ended",
            "on_failure": "http://10.255.255.1/page-me",
            "tasks": {"t": {"run": ["false"]}},
        }
        loaded = load_text(json.dumps(document).encode(), source_name="job.json", folder=folder)
        async with running(settings_of(folder)) as agent:
            job = await run(agent, loaded.spec)

            async def message() -> dict[str, tuple[str, str]]:
                shown = await agent.api.job(job.id)
                return {one.event: (one.state, one.trouble) for one in shown.webhooks}

            outbox = agent.node.scheduler.outbox
            await until(lambda: [one.state for one in outbox.of(JobId(job.id))] == ["delivered", "given_up"])
            assert await message() == {
                "on_complete": ("delivered", ""),
                "on_failure": ("given_up", "this node lets no job call http://10.255.255.1:80"),
            }
    assert service.requests == {"job.completed": 2}
    assert len(service.messages["job.completed"]) == 1


# --- helpers ------------------------------------------------------------------------------------------------


@contextmanager
def model_server(*arguments: str) -> Iterator[str]:
    command = [sys.executable, str(EXAMPLES / "inference/server.py"), "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().rpartition(" ")[2].strip()
        finally:
            process.kill()


@contextmanager
def model_server_secret(folder: Path) -> Iterator[str]:
    (folder / "other.secret").write_text(f"whsec_{base64.b64encode(b'o' * 32).decode()}\n")
    with model_server("--secret-file", str(folder / "other.secret")) as url:
        yield url


def aimed_at(spec: JobSpec, url: str) -> JobSpec:
    """Returns the job with another server in its webhooks."""
    tasks = []
    for task in spec.tasks:
        hook = task.webhook
        if hook is not None:
            moved = msgspec.structs.replace(hook, url=hook.url.replace("http://127.0.0.1:18789", url))
            task = msgspec.structs.replace(task, webhook=moved)
        tasks.append(task)
    return msgspec.structs.replace(spec, tasks=tuple(tasks))


async def run(agent: Agent, spec: JobSpec) -> Job:
    job = await agent.api.submit(submission(spec))
    return await last(agent, job.id)


async def last(agent: Agent, job: str) -> Job:
    """Waits for the job's end."""
    with trio.fail_after(60):
        *_, ended = [one async for one in agent.api.watch(job)]
    return ended


async def log_of(agent: Agent, job: Job, task: str) -> bytes:
    return (await agent.api.log(job.id, task, "stdout", 0, wait=False)).data


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a founded mesh that tasks' users may pass, as pytest's own may not be."""
    path = Path(tempfile.mkdtemp(prefix="meshpeer-test-"))
    os.chmod(path, 0o711)
    try:
        found(InitOptions(name="alone"), settings_of(path))
        yield path
    finally:
        shutil.rmtree(path)
