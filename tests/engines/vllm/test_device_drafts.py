"""What our drafts on the device rely on in the installed vLLM, which cannot run there without one."""

from __future__ import annotations

import inspect

from reason_engine.engines.vllm.drafts import WORKER_CLASS, drafting, speculation
from reason_engine.engines.vllm.release import Release, vllm_module
from reason_engine.engines.vllm.speculator import SamDrafts
from tests.engines.vllm.tiny import MARKS

pytestmark = MARKS


def test_the_worker_is_found_by_its_name() -> None:
    found = vllm_module("utils.import_utils").resolve_obj_by_qualname(WORKER_CLASS)
    base = vllm_module("v1.worker.gpu_worker").Worker
    assert issubclass(found, base)
    assert found is vllm_module("utils.import_utils").resolve_obj_by_qualname(WORKER_CLASS)
    assert list(inspect.signature(found.init_device).parameters) == ["self"]
    assert "use_v2_model_runner" in inspect.getsource(base.__init__)


def test_the_runner_holds_and_asks_its_speculator_as_ours_is() -> None:
    runner = inspect.getsource(vllm_module("v1.worker.gpu.model_runner").GPUModelRunner)
    assert "self.speculator = init_speculator(" in runner
    assert "use_dense_all_token_ids=use_dense_all_token_ids" in runner
    assert "num_speculative_tokens=num_spec_tokens" in runner
    states = inspect.getsource(vllm_module("v1.worker.gpu.states").RequestState)
    for name in ("all_token_ids", "total_len", "last_sampled_tokens", "max_model_len"):
        assert f"self.{name} = " in states
    batch = vllm_module("v1.worker.gpu.input_batch").InputBatch.__annotations__
    assert {"req_ids", "num_reqs", "idx_mapping", "idx_mapping_np", "seq_lens_cpu_upper_bound"} <= set(batch)


def test_drafts_are_asked_for_as_of_vllms_n_grams() -> None:
    theirs = inspect.signature(vllm_module("v1.worker.gpu.spec_decode.speculator").BaseSpeculator.propose)
    assert list(theirs.parameters)[:2] == ["self", "input_batch"]
    assert {"dummy_run", "num_speculative_tokens"} <= set(theirs.parameters)
    inspect.signature(SamDrafts.propose).bind(*[None] * 12, **dict.fromkeys(list(theirs.parameters)[12:]))


def test_the_schedule_is_one_that_vllm_takes() -> None:
    made = drafting(speculation("sam"), Release("0.33.0", cpu=False))["speculative_config"]
    lookup = vllm_module("v1.spec_decode.dynamic.utils").build_dynamic_sd_schedule_lookup(
        made["num_speculative_tokens_per_batch_size"], 64, made["num_speculative_tokens"]
    )
    assert [lookup[width] for width in (1, 4, 5, 16, 17, 32, 33, 64)] == [8, 8, 4, 4, 2, 2, 0, 0]
    known = set(vllm_module("config").SpeculativeConfig.__dataclass_fields__)
    assert set(made) <= known
    assert "worker_cls" in vllm_module("engine.arg_utils").EngineArgs.__dataclass_fields__
