"""One GGUF file, or the first of those that a model was split into, as a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reason_engine.engines.checkpoint.folder import CONFIG, ModelFolder, fingerprint_of
from reason_engine.engines.checkpoint.gguf.config import config_of
from reason_engine.engines.checkpoint.gguf.header import Header, read_header
from reason_engine.engines.checkpoint.gguf.names import Part, named
from reason_engine.engines.checkpoint.gguf.special import generation_config, tokenizer_config
from reason_engine.engines.checkpoint.gguf.tensors import GgufTensors, check_kinds, kinds_of
from reason_engine.engines.checkpoint.gguf.tokenizer import build_tokenizer, tokens_of
from reason_engine.errors import ModelLoadError
from reason_engine.profile import companion

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.gguf)", re.IGNORECASE)
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A tokenizer beside the file stands in for that of its metadata: `tokenizer.json`, and what belongs to it, in a
    folder named as the file is without `.gguf`, else in the folder where the file lies."""

    path: Path

    def check(self) -> GgufFile:
        """Itself, with whole tensors that the decoder can use and a tokenizer that can be built."""
        parts = self._parts
        check_kinds(parts)
        _ = self.tokenizer()
        return self

    @property
    def config(self) -> Mapping[str, Any]:
        """What `config.json` would hold."""
        return config_of(self._header)

    @property
    def config_path(self) -> Path:
        """The file itself."""
        return self.path

    @property
    def architecture(self) -> str:
        """The class of the model, by the name that transformers gives it."""
        return str(self.config["architectures"][0])

    @property
    def scheme(self) -> None:
        """None: tensors are handed out as numbers."""
        return

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor by its name at Hugging Face."""
        return {name: part.info.shape for name, part in self._parts.items()}

    @property
    def fingerprint(self) -> str:
        """A short name for these weights: hash of sizes and a sample of each file's bytes."""
        return fingerprint_of(self.files)

    @property
    def kinds(self) -> list[str]:
        """How its matrices are stored, by ggml's names, the most numbers first."""
        return kinds_of(self._parts)

    @property
    def files(self) -> list[Path]:
        """This file, or all that the model was split into."""
        return [self.path.with_name(name) for name in parts_of(self.path.name)]

    def read_json(self, name: str, *, missing: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """What a folder would hold in that file; `missing` where it would have none."""
        if name == CONFIG:
            return self.config
        if (beside := self._beside) is not None:
            return beside.read_json(name, missing=missing)
        made = {"tokenizer_config.json": tokenizer_config, "generation_config.json": generation_config}
        if name in made:
            return made[name](self._header)
        if missing is None:
            raise ModelLoadError(f"{self.path}: has nothing that would be {name}")
        return missing

    def read_text(self, name: str) -> str | None:
        """A text file beside it, where the tokenizer stands there too."""
        return None if self._beside is None else self._beside.read_text(name)

    def tokenizer(self) -> Tokenizer:
        """That of the metadata, or the one beside the file."""
        if (beside := self._beside) is None:
            return build_tokenizer(self._header)
        made = beside.tokenizer()
        if self._header.strings("tokenizer.ggml.tokens"):
            for number, token in enumerate(tokens_of(self._header)):
                other = made.id_to_token(number)
                if other is not None and other != token:
                    raise ModelLoadError(
                        f"{beside.path / TOKENIZER}: is not the tokenizer of {self.path.name}: token {number} is "
                        f"{other!r} there and {token!r} in the file"
                    )
        return made

    def mapped(self) -> GgufTensors:
        """The tensors by name, each read when it is asked for."""
        return GgufTensors(self._parts)

    @property
    def _parts(self) -> dict[str, Part]:
        header = self._header
        return named(header, config_of(header))

    @property
    def _beside(self) -> ModelFolder | None:
        folder = companion(self.path)
        return ModelFolder(folder) if (folder / TOKENIZER).is_file() else None

    @property
    def _header(self) -> Header:
        """The head of the first file, with the tensors of all."""
        first = read_header(self.path)
        count, number = (first.metadata.get(f"split.{key}", missing) for key, missing in (("count", 1), ("no", 0)))
        if count in (0, 1):
            return first
        if number != 0:
            raise ModelLoadError(f"{self.path}: part {number + 1} of {count}; name the first, which has the metadata")
        files = self.files
        if len(files) != count:
            raise ModelLoadError(
                f"{self.path}: one of {count} parts, so its name should end in -00001-of-{count:05}.gguf"
            )
        tensors = dict(first.tensors)
        for place, path in enumerate(files[1:], 1):
            if not path.is_file():
                raise ModelLoadError(f"{path}: not found, though {self.path.name} is one of {count} parts")
            other = read_header(path)
            if other.metadata.get("split.no") != place or other.metadata.get("split.count") != count:
                raise ModelLoadError(f"{path}: not part {place + 1} of {count} by its metadata")
            tensors |= other.tensors
        if len(tensors) != first.metadata.get("split.tensors.count", len(tensors)):
            raise ModelLoadError(f"{self.path}: its {count} parts hold {len(tensors)} tensors, not as many as it says")
        return replace(first, tensors=tensors)


def parts_of(name: str) -> list[str]:
    """The names of all files of a split model by that of the first; of any other file, its own."""
    found = SPLIT.fullmatch(name)
    if found is None or int(found[2]) != 1:
        return [name]
    stem, _, count, ending = found.groups()
    return [f"{stem}-{part:05}-of-{count}{ending}" for part in range(1, int(count) + 1)]


def stem_of(name: str) -> str:
    """A file's name without `.gguf`, and without the number of its part."""
    found = SPLIT.fullmatch(name)
    return found[1] if found else name.removesuffix(".gguf")
