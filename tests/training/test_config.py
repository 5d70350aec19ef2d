"""A training config is refused early and by name, before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from reason_engine.compression import compressors
from reason_engine.errors import SetupError, UnknownName
from reason_engine.loop.adapt import AdaptConfig
from reason_engine.training import trainers
from reason_engine.training.common.config import load
from reason_engine.training.run import prepare
from reason_engine.training.supervised.sft import SftConfig

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
GOOD = {"out": "o", "tokens": 100, "architecture": {}, "mixture": [{"family": "words", "share": 1}]}


def recipe(folder: Path, **changes: object) -> Path:
    file = folder / "r.yaml"
    file.write_text(yaml.safe_dump({**GOOD, **changes}))
    return file


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"tokns": 3}, "tokns: unknown key; did you mean 'tokens'"),
        ({"tokens": "many"}, "tokens: "),
        ({"tokens": 0}, "either tokens or epochs"),
        ({"tokens": None}, "tokens: "),
        ({"tokens": 0, "epochs": 2}, "a mixture has no end"),
        ({"precision": "fp8"}, "precision: "),
        ({"architecture": {"width": 100}}, r"architecture\.width: .*multiple of 32"),
        ({"architecture": {"heads": 3}}, r"architecture: heads \(3\)"),
        ({"architecture": {"depth": 3}}, r"architecture\.depth: unknown key"),
        ({"architecture": {"layer": 3}}, r"architecture\.layer: unknown key; did you mean 'layers'"),
        ({"mixture": [{"family": "wrods", "share": 1}]}, r"mixture\.0: .*did you mean 'words'"),
        ({"mixture": [{"family": "words", "share": 1, "params": {"digit": 2}}]}, r"mixture\.0: .*params\.digit"),
        ({"mixture": []}, "either data or mixture"),
        ({"data": "d.jsonl"}, "either data or mixture"),
        ({"model": "m"}, "either model or architecture"),
        ({"architecture": None}, "either model or architecture"),
        ({"freeze": ["("]}, "freeze: .*not a regular expression"),
    ],
)
def test_bad_keys_are_named(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(SetupError, match=said):
        prepare("sft", recipe(tmp_path, **changes))


@pytest.mark.parametrize("text, said", [("a: [", "not YAML"), ("- 3", "mapping"), ("", "out")])
def test_bad_files(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(SetupError, match=said):
        load(SftConfig, tmp_path / "r.yaml")


def test_missing_file_and_method(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"none\.yaml"):
        load(SftConfig, tmp_path / "none.yaml")
    with pytest.raises(UnknownName, match="did you mean 'sft'"):
        prepare("stf", recipe(tmp_path))


def test_settings_lie_over_the_file(tmp_path: Path) -> None:
    config = load(SftConfig, recipe(tmp_path), ["tokens=7", "architecture.width=128", "precision=fp32"])
    assert (config.tokens, config.architecture.width, config.precision) == (7, 128, "fp32")  # pyright: ignore
    for setting, said in (("tokens", "key=value"), ("tokens.x=1", "holds no keys"), ("tokens=[", "not YAML")):
        with pytest.raises(SetupError, match=said):
            load(SftConfig, recipe(tmp_path), [setting])


def test_bad_config_is_refused_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from pathlib import Path\n"
        "from reason_engine.errors import SetupError\n"
        "from reason_engine.training.run import prepare\n"
        "prepare('sft', Path(sys.argv[1]))\n"
        "try: prepare('sft', Path(sys.argv[1]), ['tokens=x'])\n"
        "except SetupError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(recipe(tmp_path))], capture_output=True, text=True, check=True
    )
    assert "tokens" in done.stdout


def fits(method: str, file: Path) -> bool:
    return loads(trainers.get(method).config, file)


def loads(kind: type[BaseModel], file: Path) -> bool:
    try:
        load(kind, file)
    except SetupError:
        return False
    return True


@pytest.mark.parametrize("file", sorted(RECIPES.rglob("*.yaml")), ids=lambda file: file.name)
def test_recipes_are_valid(file: Path) -> None:
    assert any(fits(method, file) for method in trainers) or any(
        loads(kind, file) for kind in (AdaptConfig, *(compressors.get(name).config for name in compressors))
    )


def test_rate_warms_up_and_comes_down() -> None:
    config = SftConfig.model_validate({**GOOD, "tokens": 1000, "warmup": 0.1, "final": 0.05})
    assert config.rate_at(0) < 0.02
    assert config.rate_at(50) == pytest.approx(0.5)
    assert config.rate_at(100) == pytest.approx(1.0)
    assert config.rate_at(550) == pytest.approx(0.525)
    assert config.rate_at(1000) == config.rate_at(2000) == pytest.approx(0.05)
