"""A checkpoint's tensors by name, each read when it is asked for, so that no more than one is held besides what is made
of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from reason_engine.engines.checkpoint.checkpoint import checkpoint_at
from reason_engine.engines.checkpoint.folder import ModelFolder, first_line, read_header
from reason_engine.engines.checkpoint.gguf.file import GgufFile
from reason_engine.errors import ModelLoadError

WRAPPED = "pretrained_model."
"""Before every name, where a model was saved inside a wrapper that added a value head."""


def stored_tensors(model: Path) -> Mapping[str, Tensor]:
    """Those of a folder or a GGUF file. Raises ModelLoadError."""
    files = checkpoint_at(model)
    return files.mapped() if isinstance(files, GgufFile) else FolderTensors(model)


class FolderTensors(Mapping[str, Tensor]):
    """Those of a folder's safetensors files, in the precision of storage. Raises ModelLoadError naming a file."""

    def __init__(self, folder: Path) -> None:
        self._paths = {name: path for path in ModelFolder(folder).weight_files for name in read_header(path)}
        self._files: dict[Path, Any] = {}

    def __getitem__(self, name: str) -> Tensor:
        path = self._paths[name]
        try:
            if path not in self._files:
                self._files[path] = safe_open(str(path), framework="pt")
            return self._files[path].get_tensor(name)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise ModelLoadError(f"{path}: {first_line(error)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


class Renamed(Mapping[str, Tensor]):
    """Tensors under other names."""

    def __init__(self, tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
        self._tensors, self._names = tensors, names

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def plain_names(tensors: Mapping[str, Tensor]) -> Renamed:
    """The same tensors by their names without `model.`."""
    return Renamed(tensors, {name.removeprefix(WRAPPED).removeprefix("model."): name for name in tensors})
