"""Adapters loaded and unloaded while the server runs: who may, from where, and what requests see of it."""

import asyncio
import os

import pytest

from reason_engine.contracts import Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import ModelLoadError
from reason_engine.profile import Ask, Profile, write_profile
from reason_engine.serving.adapters import allowed_folder
from reason_engine.settings import Settings

PATHS = {
    "up": ("../secret", 403), "absolute": ("/etc", 403), "absolute nowhere": ("/nowhere-at-all", 403),
    "up and back": ("../adapters/good", 200), "dots": ("good/../../secret", 403), "nowhere": ("nope", 404),
    "file": ("file", 404), "link out": ("link", 403), "link inside": ("inner", 200),
    "link to nowhere": ("dangling", 403),
    "circle": ("circle", 400), "zero byte": ("go\0od", 400), "too long": ("x" * 4000, 400), "tilde": ("~", 404),
    "file linked out": ("leaky", 403), "pipe": ("pipe", 400), "here": (".", 200),
    "absolute inside": ("{home}/good", 200),
}  # fmt: skip


@pytest.fixture
def home(tmp_path):
    """A folder of adapters, a secret beside it, and links between them."""
    home, secret = tmp_path / "adapters", tmp_path / "secret"
    for folder in (home / "good", home / "other", home / "leaky", home / "pipe", secret):
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
    (home / "file").write_text("x")
    (home / "link").symlink_to(secret)
    (home / "inner").symlink_to(home / "good")
    (home / "dangling").symlink_to(tmp_path / "gone")
    (home / "circle").symlink_to(home / "circle")
    (home / "leaky" / "adapter_model.safetensors").symlink_to(secret / "adapter_config.json")
    os.mkfifo(home / "pipe" / "adapter_model.safetensors")
    return home


def settings(home, **more):
    return Settings(adapters_dir=(home,), **more)


async def test_an_adapter_comes_serves_every_strategy_and_goes(local, home) -> None:
    write_profile(home / "good", Profile(ask=Ask(steps="Say it in steps, please.")))
    async with local(settings=settings(home)) as house:
        made = await house.http.post("/v1/adapters", json={"name": "maths", "path": "good"})
        assert made.status_code == 200, made.text
        assert made.json() | {"created": 0} == {
            "id": "maths", "object": "model", "created": 0, "owned_by": "reason-engine", "root": "maths",
            "parent": "scripted", "max_model_len": 4096, "precision": None, "strategy": None,
        }  # fmt: skip
        assert "maths:auto" in [model.id async for model in house.client.models.list()]
        got = await house.chat(model="maths:chain-of-thought")
        assert got.json()["model"] == "maths:chain-of-thought" and house.engine.log[-1].adapter == "maths"
        assert "Say it in steps, please." in str(house.engine.log[-1].prompt)
        await house.chat(model="scripted:chain-of-thought")
        assert "please" not in str(house.engine.log[-1].prompt) and house.engine.log[-1].adapter is None
        plain = await house.http.post("/v1/completions", json={"model": "maths", "prompt": "a", "max_tokens": 3})
        assert plain.status_code == 200 and house.engine.log[-1].adapter == "maths"
        gone = await house.http.delete("/v1/adapters/maths")
        assert gone.json() == {"id": "maths", "object": "model", "deleted": True}
        assert house.engine.adapters() == ()
        again = await house.http.delete("/v1/adapters/maths")
        assert again.status_code == 404 and again.json()["error"]["param"] == "name"
        assert (await house.chat(model="maths")).status_code == 404


@pytest.mark.parametrize(
    ("keys", "sent", "status"),
    [
        ({"api_keys": ("client",), "operator_keys": ("boss",)}, "boss", 200),
        ({"api_keys": ("client",), "operator_keys": ("boss",)}, "client", 403),
        ({"api_keys": ("client",), "operator_keys": ("boss",)}, "nobody", 401),
        ({"operator_keys": ("boss",)}, "boss", 200),
        ({"api_keys": ("client",)}, "client", 403),
        ({}, "", 200),
        ({"host": "0.0.0.0", "open": True}, "", 403),
    ],
)
async def test_only_operators_change_adapters(local, home, keys, sent, status) -> None:
    async with local(settings=settings(home, **keys)) as house:
        head = {"authorization": f"Bearer {sent}"} if sent else {}
        body = {"name": "maths", "path": "good"}
        for got in (
            await house.http.post("/v1/adapters", json=body, headers=head),
            await house.http.delete("/v1/adapters/maths", headers=head),
        ):
            assert got.status_code == status
            assert status != 403 or got.json()["error"]["code"] == "operator_key_required"
        assert status == 200 or house.engine.adapters() == ()


@pytest.mark.parametrize(("path", "status"), PATHS.values(), ids=PATHS)
async def test_only_what_lies_below_an_allowed_folder_is_read(local, home, path, status) -> None:
    seen = []

    class Reading(Scripted):
        async def load_adapter(self, name: str, path: str) -> None:
            seen.append(path)
            await super().load_adapter(name, path)

    async with local(Reading(), settings=settings(home)) as house:
        body = {"name": "n", "path": path.replace("{home}", str(home))}
        got = await house.http.post("/v1/adapters", json=body)
        assert got.status_code == status, got.text
        if status == 200:
            assert seen[0].startswith(str(home))
        else:
            assert not seen and got.json()["error"]["param"] == "path"


def test_what_lies_outside_is_not_told_to_be_there(home, tmp_path) -> None:
    said = set()
    for path in ("../secret", "../nothing"):
        with pytest.raises(ValueError) as error:
            allowed_folder(path, [home])
        said.add(str(error.value))
    assert len(said) == 1
    second = tmp_path / "second"
    (second / "late").mkdir(parents=True)
    assert allowed_folder("late", [home, second]) == second / "late"


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({"path": "good"}, 400, "name", "missing_parameter"),
        ({"name": "n"}, 400, "path", "missing_parameter"),
        ({"name": "", "path": "good"}, 400, "name", "invalid_value"),
        ({"name": 3, "path": "good"}, 400, "name", "invalid_value"),
        ({"name": "n", "path": ""}, 400, "path", "invalid_value"),
        ({"name": "n", "path": ["good"]}, 400, "path", "invalid_value"),
        ({"name": "n", "path": "good", "replace": "yes"}, 400, "replace", "invalid_value"),
        ({"lora_name": "n", "lora_path": "good"}, 400, "name", "missing_parameter"),
        ({"name": "n", "path": "good", "rank": 8}, 400, "rank", "unknown_parameter"),
        ({"name": "a:direct", "path": "good"}, 400, "name", "invalid_value"),
        ({"name": "direct", "path": "good"}, 400, "name", "invalid_value"),
        ({"name": "scripted", "path": "good"}, 400, "name", "invalid_value"),
        ({"name": "../x", "path": "good"}, 400, "name", "invalid_value"),
        ({"name": "a b", "path": "good"}, 400, "name", "invalid_value"),
        ({"name": "n" * 129, "path": "good"}, 400, "name", "invalid_value"),
        ({"name": "n\n", "path": "good"}, 400, "name", "invalid_value"),
        ({"name": "there", "path": "good"}, 409, "name", "adapter_already_loaded"),
    ],
)
async def test_bad_bodies_name_the_field(local, home, body, status, param, code) -> None:
    engine = Scripted()
    await engine.load_adapter("there", "/nowhere")
    async with local(engine, settings=settings(home)) as house:
        got = await house.http.post("/v1/adapters", json=body)
        error = got.json()["error"]
        assert (got.status_code, error["param"], error["code"]) == (status, param, code), got.text
        assert error["type"] == "invalid_request_error" and house.engine.adapters() == ("there",)
        assert status != 409 or got.headers["x-should-retry"] == "false"


async def test_what_the_engine_cannot_read_or_serve_is_the_clients_error(local, home) -> None:
    class Picky(Scripted):
        async def load_adapter(self, name: str, path: str) -> None:
            raise ModelLoadError(f"{path}: shapes do not fit this model")

    async with local(Picky(), settings=settings(home)) as house:
        got = await house.http.post("/v1/adapters", json={"name": "n", "path": "good"})
        error = got.json()["error"]
        assert got.status_code == 400 and error["param"] == "path" and "do not fit" in error["message"]
        (home / "good" / "reason.json").write_text('{"ask": 3}')
        got = await house.http.post("/v1/adapters", json={"name": "n", "path": "good"})
        assert got.status_code == 400 and "reason.json: ask" in got.json()["error"]["message"]
    async with local(Scripted(caps=Capabilities())) as house:
        got = await house.http.post("/v1/adapters", json={"name": "n", "path": "good"})
        assert got.status_code == 403 and got.json()["error"]["code"] == "adapters_disabled"


async def test_what_runs_keeps_its_version_and_what_comes_gets_the_new_one(local, home, eventually) -> None:
    held = asyncio.Event()

    async def gate(request, index, position) -> None:
        if request.adapter == "maths":
            await held.wait()

    engine = Scripted(lambda prompt, seed, index: "Answer: 4", gate=gate)
    async with local(engine, settings=settings(home)) as house, asyncio.TaskGroup() as group:
        body = {"name": "maths", "path": "good"}
        await house.http.post("/v1/adapters", json=body)
        old = group.create_task(house.chat(model="maths", reasoning={"strategy": "self-refine"}))
        await eventually(lambda: len(engine.log) == 1)
        body |= {"path": "other", "replace": True}
        renew = group.create_task(house.http.post("/v1/adapters", json=body))
        await eventually(lambda: len(engine.adapters()) == 2)
        fresh = await house.chat(model="maths")
        assert fresh.status_code == 200 and engine.log[-1].adapter == "maths@2" and not renew.done()
        held.set()
        assert (await old).status_code == 200 and (await renew).status_code == 200
        assert [one.adapter for one in engine.log[2:]] == ["maths"] * (len(engine.log) - 2) != []
        assert engine.adapters() == ("maths@2",)


async def test_unloading_waits_for_what_runs_and_lets_nothing_new_in(local, home, eventually) -> None:
    held = asyncio.Event()

    async def gate(request, index, position) -> None:
        await held.wait()

    engine = Scripted(lambda prompt, seed, index: "Answer: 4", gate=gate)
    async with local(engine, settings=settings(home)) as house, asyncio.TaskGroup() as group:
        await house.http.post("/v1/adapters", json={"name": "maths", "path": "good"})
        body = {"model": "maths", "prompt": "a", "max_tokens": 3}
        running = [
            group.create_task(house.chat(model="maths")),
            group.create_task(house.http.post("/v1/completions", json=body)),
        ]
        await eventually(lambda: len(engine.log) == 2)
        leave = group.create_task(house.http.delete("/v1/adapters/maths"))
        await eventually(lambda: house.app.state.service.adapters.loaded == {})
        assert (await house.chat(model="maths")).status_code == 404
        assert engine.adapters() == ("maths",) and not leave.done()
        held.set()
        assert [(await one).status_code for one in running] == [200, 200]
        assert (await leave).status_code == 200 and engine.adapters() == ()


async def test_one_of_two_loads_at_once_is_refused(local, home) -> None:
    async with local(settings=settings(home)) as house, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(house.http.post("/v1/adapters", json={"name": "n", "path": path}))
            for path in ("good", "other")
        ]
        codes = sorted([(await task).status_code for task in tasks])
        assert codes == [200, 409]


async def test_a_bad_name_at_the_start_ends_it(live, home, eventually) -> None:
    async with live(settings=Settings(adapters={"direct": str(home / "good")}), started=False) as house:
        await eventually(lambda: house.app.state.service.gate.failure is not None)
        assert "a strategy" in str(house.app.state.service.gate.failure)
