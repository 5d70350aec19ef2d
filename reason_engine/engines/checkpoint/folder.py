"""A model's folder in Hugging Face's form: read, checked, named and written without loading torch.

Only safetensors are read. The format: 8 bytes with the header's length (little endian), a JSON header naming each
tensor with its byte range, the bytes. A file shorter than its header says was cut off.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from reason_engine.errors import ModelLoadError, SetupError
from reason_engine.profile import FILE as PROFILE

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
DOWNLOADED = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja", "generation_config.json",
)  # fmt: skip
"""What a checkpoint with other weights takes over as it is."""
SERVED = {
    "embedded": ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"),
    "vllm": (
        "ApertusForCausalLM", "BloomForCausalLM", "Cohere2ForCausalLM", "CohereForCausalLM", "DeepseekForCausalLM",
        "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "FalconForCausalLM", "GPT2LMHeadModel",
        "GPTBigCodeForCausalLM", "GPTNeoXForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "GemmaForCausalLM",
        "Glm4ForCausalLM", "GlmForCausalLM", "GptOssForCausalLM", "GraniteForCausalLM", "LlamaForCausalLM",
        "MistralForCausalLM", "MixtralForCausalLM", "OPTForCausalLM", "Olmo2ForCausalLM", "Olmo3ForCausalLM",
        "OlmoForCausalLM", "Phi3ForCausalLM", "PhiForCausalLM", "Qwen2ForCausalLM", "Qwen2MoeForCausalLM",
        "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "SmolLM3ForCausalLM", "StableLmForCausalLM",
        "Starcoder2ForCausalLM",
    ),
}  # fmt: skip
"""Architectures by the name in `config.json` that an engine loads for generation; vLLM 0.26 to 0.32."""
Scheme = Literal["gptq", "gptq_v2", "awq", "w8a8"]
"""4-bit weights in groups as AutoGPTQ packs them (the second without its offset of one in the zeros), as AutoAWQ packs
them, and compressed-tensors' 8-bit weights with activations quantised token by token."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """Nothing is kept: every property reads the files, and raises ModelLoadError naming the one at fault."""

    path: Path

    @classmethod
    def find(cls, name: str) -> ModelFolder:
        """By a path, or a hub name `owner/model`, downloaded where that is possible. Raises ModelLoadError."""
        path = Path(name).expanduser()
        if path.is_dir():
            return cls(path)
        if path.exists():
            raise ModelLoadError(f"{path}: not a checkpoint folder")
        if path.is_absolute() or not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
            raise ModelLoadError(f"{path}: no such model folder")
        from huggingface_hub import snapshot_download

        try:
            return cls(Path(snapshot_download(name, allow_patterns=DOWNLOADED)))
        except Exception as error:  # network, cache and hub errors share no base class
            raise ModelLoadError(
                f"{name}: no such folder, and not to be had from the hub: {first_line(error)}"
            ) from None

    @property
    def is_checkpoint(self) -> bool:
        """Whether there is a `config.json`."""
        return (self.path / CONFIG).is_file()

    def check(self) -> ModelFolder:
        """Itself, with a readable configuration and whole weights. Raises ModelLoadError."""
        _ = self.config, self.weight_files
        return self

    def read_json(self, name: str, *, missing: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """One of its JSON objects; `missing` where there is no such file."""
        return read_json(self.path / name, missing=missing)

    def read_text(self, name: str) -> str | None:
        """One of its text files; None where there is no such file."""
        return read_text(self.path / name) if (self.path / name).is_file() else None

    def tokenizer(self) -> Tokenizer:
        """`tokenizer.json`."""
        from tokenizers import Tokenizer

        path = self.path / "tokenizer.json"
        if not path.is_file():
            raise ModelLoadError(f"{path}: not found; only checkpoints with a fast tokenizer can be served")
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise ModelLoadError(f"{path}: {error}") from None

    @property
    def config(self) -> Mapping[str, Any]:
        """`config.json`."""
        return self.read_json(CONFIG)

    @property
    def config_path(self) -> Path:
        """Where `config.json` stands."""
        return self.path / CONFIG

    @property
    def architecture(self) -> str:
        """The class of the model, by the name that transformers gives it; `?` where the configuration has none."""
        return str((self.config.get("architectures") or ["?"])[0])

    @property
    def served_by(self) -> tuple[str, ...]:
        """Engines that load this architecture."""
        return tuple(engine for engine, known in SERVED.items() if self.architecture in known)

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors files, each checked to be whole."""
        index = self.path / INDEX
        if index.is_file():
            named: Any = read_json(index).get("weight_map")
            if not isinstance(named, dict):
                raise ModelLoadError(f"{index}: has no weight_map")
            names = {str(name) for name in cast("dict[str, Any]", named).values()}
            files = [self.path / name for name in sorted(names)]
        else:
            files = sorted(self.path.glob("*.safetensors"))
        if not files:
            for pattern in PICKLED:
                for path in sorted(self.path.glob(pattern)):
                    raise ModelLoadError(f"{path}: pickled weights are never loaded; convert them to safetensors")
            raise ModelLoadError(f"{self.path}: has no *.safetensors file")
        for path in files:
            if path.parent.resolve() != self.path.resolve():
                raise ModelLoadError(f"{index}: names a file outside the folder: {path.name}")
            read_header(path)
        return files

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor by name, from the headers alone."""
        headers = (read_header(path) for path in self.weight_files)
        return {name: tuple(entry["shape"]) for header in headers for name, entry in header.items()}

    @property
    def parameters(self) -> int:
        """How many numbers the tensors hold."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """Name and tensor, one by one and file by file, in the precision and on the device of storage (CPU)."""
        from safetensors import SafetensorError, safe_open

        for path in self.weight_files:
            try:
                with safe_open(str(path), framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118  (not a mapping)
                        yield name, file.get_tensor(name)
            except (SafetensorError, OSError, RuntimeError) as error:
                raise ModelLoadError(f"{path}: {first_line(error)}") from None

    @property
    def fingerprint(self) -> str:
        """A short name for these weights: hash of configuration, headers, sizes and a sample of each file's bytes."""
        return fingerprint_of([self.path / CONFIG, *self.weight_files])

    @property
    def quantization(self) -> Mapping[str, Any] | None:
        """What `config.json` says of quantised weights; None where they are not."""
        found = self.config.get("quantization_config")
        return cast("dict[str, Any]", found) if isinstance(found, dict) else None

    @property
    def scheme(self) -> Scheme | None:
        """How the embedded engine reads quantised weights; ModelLoadError for a scheme that it does not read."""
        found = self.quantization
        if found is None:
            return None
        method, bits = str(found.get("quant_method", "?")), found.get("bits", found.get("w_bit"))
        if method == "gptq" and bits == 4:
            return "gptq_v2" if found.get("checkpoint_format") == "gptq_v2" else "gptq"
        layout = str(found.get("version", found.get("format", "gemm"))).lower()
        if method == "awq" and bits == 4 and layout == "gemm":
            return "awq"
        if method == "compressed-tensors" and _is_w8a8(found):
            return "w8a8"
        what = f"{method}, {bits} bits" if bits else method
        raise ModelLoadError(
            f"{self.path / CONFIG}: {what} is not read by this engine, which reads 4-bit gptq, 4-bit awq and W8A8 of "
            "compressed-tensors; use --engine vllm"
        )

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Put a JSON object into the folder."""
        (self.path / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")

    def carry_over(self, base: ModelFolder) -> None:
        """Take over the tokenizer, its template and the profile of the model before, where there is none yet; the
        profile without the policy of `auto`, which was calibrated for other weights."""
        for name in TOKENIZER:
            if (base.path / name).is_file() and not (self.path / name).exists():
                shutil.copyfile(base.path / name, self.path / name)
        self.carry_profile(base)

    def carry_profile(self, base: ModelFolder) -> None:
        """Take over the profile alone."""
        if (base.path / PROFILE).is_file() and not (self.path / PROFILE).exists():
            profile = base.read_json(PROFILE)
            self.write_json(PROFILE, {key: value for key, value in profile.items() if key != "auto"})

    @property
    def _unfinished(self) -> Path:
        path = self.path.absolute()
        return path.with_name(f".{path.name}.new")

    @contextmanager
    def create(self) -> Iterator[ModelFolder]:
        """For a folder that is complete or absent: an empty one beside it, which takes its name where the block ends
        well and is removed where it does not. Raises SetupError where this one holds something, and where the disk
        takes no more."""
        out = self.path
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise SetupError(f"{out}: exists; name a folder that does not, or remove it")
        with self._begun(f"{out}: cannot be written, and nothing was") as made:
            yield ModelFolder(made)
            if out.is_dir():
                out.rmdir()
            os.replace(made, out)

    @contextmanager
    def update(self, config: str = CONFIG) -> Iterator[Path]:
        """For new files among old ones: an empty folder beside this one, whose files move in where the block ends
        well; other files stay. `config`: the one whose mode all of them get. Raises SetupError where the disk takes no
        more: then all stays as it was."""
        with self._begun(f"{self.path}: the model cannot be written; what stood there stays") as made:
            yield made
            self.path.mkdir(parents=True, exist_ok=True)
            mode = (made / config).stat().st_mode
            for file in sorted(made.iterdir()):
                file.chmod(mode)  # safetensors writes for the owner alone
                os.replace(file, self.path / file.name)

    @contextmanager
    def _begun(self, failure: str) -> Iterator[Path]:
        from safetensors import SafetensorError

        made = self._unfinished
        shutil.rmtree(made, ignore_errors=True)  # of a run that was killed
        try:
            made.mkdir(parents=True)
            yield made
        except (OSError, SafetensorError) as error:
            raise SetupError(f"{failure}: {error}") from None
        finally:
            shutil.rmtree(made, ignore_errors=True)


def read_header(path: Path) -> Mapping[str, Any]:
    """Of a safetensors file: name -> dtype, shape, data_offsets. Raises ModelLoadError if the file is not whole."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > size - 8:
                raise ModelLoadError(f"{path}: corrupt or truncated safetensors file")
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise ModelLoadError(f"{path}: not found, though the index names it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path}: corrupt safetensors header: {first_line(error)}") from None
    try:
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (AttributeError, KeyError, TypeError, IndexError):
        raise ModelLoadError(f"{path}: corrupt safetensors header") from None
    if end + length + 8 != size:
        raise ModelLoadError(f"{path}: truncated: {size} bytes where its header says {end + length + 8}")
    return header


def read_json(path: Path, *, missing: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """A JSON object from a file; `missing` where there is none. Raises ModelLoadError."""
    if missing is not None and not path.is_file():
        return missing
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path}: not JSON: {first_line(error)}") from None
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path}: not a JSON object")
    return cast("dict[str, Any]", value)


def read_text(path: Path) -> str:
    """A text file's content. Raises ModelLoadError."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise ModelLoadError(f"{path}: not found") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{path}: {first_line(error)}") from None


def _is_w8a8(quantization: Mapping[str, Any]) -> bool:
    groups = quantization.get("config_groups")
    if quantization.get("format") != "int-quantized" or not isinstance(groups, dict) or len(groups) != 1:
        return False
    (group,) = cast("dict[str, Any]", groups).values()
    try:
        weights, inputs = group["weights"], group["input_activations"]
        return (
            (weights["num_bits"], weights["type"], weights["symmetric"], weights["strategy"])
            == (8, "int", True, "channel")
            and (inputs["num_bits"], inputs["type"], inputs["symmetric"]) == (8, "int", True)
            and (inputs["strategy"], inputs["dynamic"]) == ("token", True)
        )
    except (KeyError, TypeError):
        return False


def first_line(error: BaseException) -> str:
    """Of an error's message; its class where it has none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def fingerprint_of(files: Sequence[Path]) -> str:
    """Hash of the files' names, sizes and a sample of each one's bytes."""
    digest = sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as file:
            for at in (0, size // 3, size // 2, max(0, size - 65536)):
                file.seek(at)
                digest.update(file.read(65536))
    return digest.hexdigest()[:16]
