"""The vLLM engine keeps the contract of all engines."""

from __future__ import annotations

from dataclasses import replace

from reason_engine.contracts import Engine
from tests.engines.contract import EngineContract, prompt_of, request
from tests.engines.contract import read as contract_read
from tests.engines.vllm.tiny import GREEDY, MARKS

pytestmark = MARKS


class TestContract(EngineContract):
    """The engine keeps the contract of all engines, but for one half of a promise: vLLM's random generator begins anew
    with every request, so a continuation draws other tokens than the whole would have. Greedy paths go on the same."""

    async def test_a_continuation_on_token_ids_equals_the_whole(self, engine: Engine) -> None:
        prompt = prompt_of(engine)
        [whole] = await contract_read(engine, request(prompt))
        [begun] = await contract_read(engine, request(prompt, replace(GREEDY, max_tokens=5)))
        ids = tuple(engine.tokenize(prompt)) + begun.ids
        [rest] = await contract_read(engine, request(ids, replace(GREEDY, max_tokens=7)))
        assert begun.ids + rest.ids == whole.ids
        assert rest.prompt_tokens == len(ids)
