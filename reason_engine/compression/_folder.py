"""A checkpoint folder that is complete or absent, and what is carried over into it from the one before."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from reason_engine.errors import SetupError
from reason_engine.profile import FILE

CARRIED = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja", "generation_config.json",
)  # fmt: skip


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """An empty folder beside `out` that takes its name where the block ends well, and is removed where it does not.

    Raises SetupError where `out` holds something, and where the disk takes no more.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SetupError(f"{out}: exists; name a folder that does not, or remove it")
    made = out.absolute().with_name(f".{out.absolute().name}.new")
    shutil.rmtree(made, ignore_errors=True)  # of a run that was killed
    try:
        made.mkdir(parents=True)
        yield made
        if out.is_dir():
            out.rmdir()
        os.replace(made, out)
    except (OSError, SafetensorError) as error:
        raise SetupError(f"{out}: cannot be written, and nothing was: {error}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)


def carry_over(base: Path, made: Path) -> None:
    """Tokenizer, template and profile of the model before, where the method wrote none; the profile without the policy
    of `auto`, which was calibrated for other weights."""
    for name in CARRIED:
        if (base / name).is_file() and not (made / name).exists():
            shutil.copyfile(base / name, made / name)
    if (base / FILE).is_file():
        profile = json.loads((base / FILE).read_text("utf-8"))
        profile.pop("auto", None)
        (made / FILE).write_text(json.dumps(profile, indent=2, ensure_ascii=False) + "\n", "utf-8")
