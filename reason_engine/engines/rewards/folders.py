"""Reward models in folders: a checkpoint of its own, or a small head over the served model's hidden states.

A checkpoint's format follows from its class, its labels and its folder's name (`formats`), or the operator names it. A
folder with `head.json` and safetensors is a head of ours; those in `heads/` beside the weights of a model are found by
themselves. Code that comes with a checkpoint is never run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from reason_engine.engines.checkpoint.folder import CONFIG, ModelFolder
from reason_engine.engines.rewards.formats import FORMATS, RewardFormat, RewardKind, find_format
from reason_engine.engines.rewards.naming import JUDGE, split_format, unknown_format
from reason_engine.errors import ModelLoadError

HEAD, HEADS_FOLDER = "head.json", "heads"
HEAD_DIM = 32
"""Of the attention of a side network."""
CLASSES = ("ForSequenceClassification", "ForTokenClassification", "ForProcessRewardModel", "ForPrmModel")


@dataclass(frozen=True, slots=True)
class RewardFile:
    """A reward model in a folder. `own`: a head over the served model's hidden states."""

    name: str
    path: str
    format: RewardFormat
    own: bool
    side: tuple[int, int] | None = None
    """(width, depth) of a side network; None: linear layers."""

    @property
    def kind(self) -> RewardKind:
        """What it judges."""
        return self.format.kind


def bundled_heads(folder: Path) -> dict[str, str]:
    """The heads and whole reward models that ship with a model."""
    found = (path for name in (HEAD, CONFIG) for path in (folder / HEADS_FOLDER).glob(f"*/{name}"))
    return {path.parent.name: str(path.parent) for path in sorted(found)}


def read_reward(name: str, path: str) -> RewardFile:
    """What a folder holds. Raises ModelLoadError naming the file at fault, SetupError for an unknown format."""
    path, stated = split_format(name, path)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ModelLoadError(f"reward model {name!r}: {folder}: no such folder")
    files = ModelFolder(folder)
    _ = files.weight_files
    if (folder / HEAD).is_file():
        if stated is not None:
            raise ModelLoadError(f"reward model {name!r}: {folder}: a head alone has no format to name")
        return _read_head(name, files)
    format = stated or _format(name, files)
    if format.head == "written":
        raise ModelLoadError(f"reward model {name!r}: {folder} {JUDGE.format(style=format.name)}")
    if format.name == "internlm2-reward":
        served = f"vllm serve {folder} --runner pooling --trust-remote-code --port 8001"
        raise ModelLoadError(
            f"{folder}: its tokenizer is code, which is never run here; serve it beside this one ({served}) and name "
            f"it {name}=http://127.0.0.1:8001#format=internlm2-reward"
        )
    return RewardFile(name, str(folder), format, own=False)


def _format(name: str, files: ModelFolder) -> RewardFormat:
    config, architecture = files.config, files.architecture
    labels = len(config.get("id2label") or ()) or config.get("num_labels") or 2  # transformers writes two as none
    called = f"{files.path.resolve().name} {config.get('_name_or_path') or ''}"
    found = find_format(called, architecture, labels)
    if found is not None:
        return found
    if architecture.endswith("ForTokenClassification"):
        raise unknown_format(name, f"{files.path} ({architecture}, {labels} labels)")
    raise ModelLoadError(
        f"{files.path / CONFIG}: {architecture} has no head that scores ({', '.join(CLASSES)} have), and by its name, "
        f"{called.strip()!r}, it is no step model that is read by two tokens; if it is one, say which behind the path: "
        f"{', '.join(f'#format={row.name}' for row in FORMATS.values() if row.head == 'tokens')}"
    )


def _read_head(name: str, files: ModelFolder) -> RewardFile:
    head, path = files.read_json(HEAD), files.path / HEAD
    stated = head.get("kind")
    if stated not in ("outcome", "process"):
        raise ModelLoadError(f"{path}: kind must be 'outcome' or 'process', not {stated!r}")
    format = FORMATS["plain-steps" if stated == "process" else "classify"]
    return RewardFile(name, str(files.path), format, own=True, side=_side(path, head.get("side")))


def _side(path: Path, stated: object) -> tuple[int, int] | None:
    if stated is None:
        return None
    sizes = [dict(stated).get(key) for key in ("width", "depth")] if isinstance(stated, dict) else [None]
    if not all(isinstance(size, int) and 0 < size <= 65536 for size in sizes) or cast(int, sizes[0]) % HEAD_DIM:
        wanted = f"a width, a multiple of {HEAD_DIM}, and a depth"
        raise ModelLoadError(f"{path}: side must hold {wanted}, not {stated!r}")
    return cast(tuple[int, int], tuple(sizes))
