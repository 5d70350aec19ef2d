"""What a checkpoint is to those who serve it: a folder in Hugging Face's form, or one GGUF file.

Both answer for the same files: a GGUF file makes of its metadata what a folder would hold as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from reason_engine.engines.checkpoint.folder import CONFIG, ModelFolder, Scheme, first_line
from reason_engine.engines.checkpoint.gguf.file import GgufFile, parts_of, stem_of
from reason_engine.errors import ModelLoadError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

HUB_FILE = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+):(.+\.gguf)", re.IGNORECASE)


class Checkpoint(Protocol):
    """Weights, configuration, tokenizer. What is wrong with a file is a ModelLoadError that names it."""

    @property
    def path(self) -> Path:
        """The folder or the file."""
        ...

    def check(self) -> Self:
        """Itself, with a readable configuration and whole weights."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """`config.json`."""
        ...

    @property
    def config_path(self) -> Path:
        """The file that the configuration comes from."""
        ...

    @property
    def architecture(self) -> str:
        """The class of the model, by the name that transformers gives it."""
        ...

    @property
    def scheme(self) -> Scheme | None:
        """How matrices are quantised that are multiplied with as they are stored."""
        ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of every tensor by name."""
        ...

    @property
    def fingerprint(self) -> str:
        """A short name for these weights."""
        ...

    def read_json(self, name: str, *, missing: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """One of the JSON files of a folder."""
        ...

    def read_text(self, name: str) -> str | None:
        """One of the text files of a folder; None where there is none."""
        ...

    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        ...


def checkpoint_at(path: Path) -> Checkpoint:
    """The folder or file that stands there; what it holds is not looked at."""
    return ModelFolder(path) if path.is_dir() or not path.is_file() else GgufFile(path)


def find_checkpoint(name: str) -> Checkpoint:
    """By a path, a hub name `owner/model`, or a GGUF file in a hub repository, `owner/model:FILE.gguf`; what is not
    here is downloaded where that is possible. Raises ModelLoadError."""
    path = Path(name).expanduser()
    if path.is_file():
        return GgufFile(path)
    if not path.exists() and (found := HUB_FILE.fullmatch(name)):
        return _from_hub(found[1], found[2])
    folder = ModelFolder.find(name)
    if not path.exists() and not folder.is_checkpoint:
        raise ModelLoadError(f"{name}: has no {CONFIG}; a GGUF file in it is named {name}:FILE.gguf")
    return folder


def name_of(path: Path) -> str:
    """What a model is called by its files: a folder's name, a file's without its ending and the number of its part."""
    return stem_of(path.name) if path.is_file() else path.resolve().name


def is_gguf(name: str) -> bool:
    """Whether this name is that of a file, not of a folder."""
    path = Path(name).expanduser()
    return path.is_file() or (not path.exists() and HUB_FILE.fullmatch(name) is not None)


def _from_hub(repository: str, file: str) -> GgufFile:
    from huggingface_hub import hf_hub_download

    try:
        paths = [Path(hf_hub_download(repository, one)) for one in parts_of(file)]
    except Exception as error:  # network, cache and hub errors share no base class
        raise ModelLoadError(
            f"{repository}:{file}: no such file, and not to be had from the hub: {first_line(error)}"
        ) from None
    return GgufFile(paths[0])
