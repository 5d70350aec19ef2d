"""`reason data`: training data as files: made, checked, filtered, multiplied, written by a teacher."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer import Argument, Option

from reason_engine.cli import terminal
from reason_engine.errors import SetupError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from reason_engine.data.outputs import Account
    from reason_engine.data.synthesize.teacher import TeacherOptions

    Config = TypeVar("Config", bound=BaseModel)

app = typer.Typer(no_args_is_help=True, help="Make, check, filter and multiply training data.")


def add_to(root: typer.Typer) -> None:
    root.add_typer(app, name="data")


Format = Annotated[str | None, Option(help="The rows' format, where it should not be detected.")]
Target_ = Annotated[Path, Argument(metavar="OUT", help="A .jsonl file; its account stands beside it.")]
Strategy = Annotated[str, Option("--strategy", "-s", help="How the model solves: reason strategies.")]
Profile_ = Annotated[
    Path | None, Option(metavar="DIR", help="Folder whose reason.json says how the --url's model wants to be asked.")
]
Concurrency = Annotated[int, Option("--concurrency", min=1, max=1024, help="Rows at once.")]
MaxTokens = Annotated[int, Option(min=1, help="Bound on each text.")]
Fresh = Annotated[bool, Option("--fresh", help="Begin anew instead of going on with the journal.")]


@app.command("generate")
def generate(
    family: Annotated[str | None, Option("--family", "-f", help="One family; none: list them.")] = None,
    config: Annotated[Path | None, Option("--config", "-c", help="Take the mixture of a training recipe.")] = None,
    count: Annotated[int, Option("--count", "-n", min=1, help="Examples to write.")] = 1000,
    seed: Annotated[int, Option(help="Same seed, same examples.")] = 0,
    settings: Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="A knob of the family.")] = None,
    out: Annotated[Path | None, Option("--out", "-o", help="A .jsonl file; none: standard output.")] = None,
) -> None:
    """Draw examples from one family or a recipe's mixture and write them as JSON lines."""
    from reason_engine.data.mixture import describe, generate_rows

    if family is None and config is None:
        typer.echo(describe())
        return
    for row in generate_rows(family, config, count, seed, settings or (), out):
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")


@app.command("check")
def check(
    files: Annotated[list[Path], Argument(metavar="FILE", help="JSON lines or list, CSV, Parquet.")],
    format: Format = None,
    tokenizer: Annotated[str | None, Option(help="As below; the word none: count no tokens.")] = None,
    shown: Annotated[int, Option("--show", min=0, help="Bad rows listed, of each file.")] = 20,
    as_json: terminal.AsJson = False,
) -> None:
    """Say what each file is, which rows cannot be used and why, how long rows are, how many are doubles.

    Exits 2 where a row is bad.
    """
    from reason_engine.data.filter.check import check, describe

    found = check(files, format=format, tokenizer=tokenizer, shown=shown)
    for one in found:
        terminal.print_result(asdict(one), describe(one), as_json)
    if any(one.bad for one in found):
        raise typer.Exit(2)


@app.command("filter")
def filter_(
    ctx: typer.Context,
    paths: Annotated[list[Path], Argument(metavar="IN OUT", help="Files to read, the one to write.")],
    format: Format = None,
    exact: Annotated[bool, Option("--exact/--no-exact", help="Drop doubles.")] = True,
    near: Annotated[float, Option(help="Drop rows this similar (Jaccard of 5-word runs); 0: none.")] = 0.8,
    numbers: Annotated[
        bool, Option("--numbers/--no-numbers", help="Similar rows with other numbers are no doubles.")
    ] = True,
    by: Annotated[str, Option(help="Doubles have the same: row, or only prompt.")] = "row",
    min_chars: int | None = None,
    max_chars: int | None = None,
    min_tokens: int | None = None,
    max_tokens: int | None = None,
    tokenizer: Annotated[
        str | None,
        Option(
            "--tokenizer", help="Checkpoint folder or tokenizer.json that counts tokens; none given: reason-nano's."
        ),
    ] = None,
    languages: Annotated[
        list[str] | None, Option("--language", "-l", help="Keep this one, as en; may be repeated.")
    ] = None,
    unknown_language: Annotated[str, Option(help="keep or drop rows whose language cannot be told.")] = "keep",
    rules: Annotated[str | None, Option(help="YAML file of ethics and safety rules, or starter.")] = None,
    against: Annotated[list[Path] | None, Option(help="A test set; rows that share a run with it go.")] = None,
    ngram: Annotated[int, Option(help="Words of such a run.")] = 13,
    as_json: terminal.AsJson = False,
) -> None:
    """Write the rows that pass every gate; beside OUT the dropped ones with reason and evidence, and the counts."""
    from reason_engine.data.filter.filter import FilterConfig, describe, filter_files

    if len(paths) < 2:
        raise SetupError("filter needs at least one file to read and one to write: IN... OUT")
    given = {"near": near or None, "languages": tuple(languages or ()), "against": tuple(against or ())}
    config = _config(FilterConfig, ctx, given)
    count = _counter("rows")
    found = filter_files(paths[:-1], paths[-1], config, lambda read, kept: count(read))
    terminal.show_status("")
    terminal.print_result(asdict(found), describe(found), as_json)


@app.command("augment")
def augment(
    ctx: typer.Context,
    rows: Annotated[Path, Argument(metavar="IN", help="A file in any format.")],
    out: Target_,
    methods: Annotated[
        list[str] | None, Option("--method", help="synonyms, paraphrase, back-translation; may be repeated.")
    ] = None,
    copies: Annotated[int, Option(help="Attempts a row and method.")] = 1,
    keep_originals: Annotated[bool, Option("--keep-originals", help="Write the old rows too.")] = False,
    check_answer: Annotated[
        bool, Option("--check-answer", help="The model must still reach the known answer.")
    ] = False,
    strategy: Strategy = "chain-of-thought",
    options: terminal.Sets = None,
    lexicon: Annotated[Path | None, Option(help="YAML: word: [synonym, ...].")] = None,
    rate: Annotated[float, Option(help="Share of listed words exchanged.")] = 0.2,
    pivot: Annotated[str, Option(help="Language to translate into and back.")] = "German",
    temperature: Annotated[float, Option(help="Of the rewriting.")] = 0.7,
    format: Format = None,
    model: terminal.Model = None,
    url: terminal.Url = None,
    profile: Profile_ = None,
    engine: terminal.EngineName = "auto",
    threads: terminal.Threads = None,
    max_tokens: MaxTokens = 1024,
    tokens: terminal.Tokens = None,
    concurrency: Concurrency = 8,
    seed: terminal.Seed = 0,
    fresh: Fresh = False,
    as_json: terminal.AsJson = False,
) -> None:
    """Say the same questions in other words; numbers, code and answers stay. A broken-off run goes on.

    With --url, --model names one of the endpoint's models.
    """
    from reason_engine.data.synthesize.augment import AugmentConfig, augment
    from reason_engine.data.synthesize.teacher import Teacher, TeacherOptions

    given = {"methods": tuple(methods or ("paraphrase",)), "options": terminal.parse_sets(options)}
    config = _config(AugmentConfig, ctx, given)

    async def work(teacher: Teacher | None) -> "Account":
        return await augment(
            rows, out, config, teacher,
            tokens=tokens, concurrency=concurrency, fresh=fresh, progress=_counter("attempts", as_json),
        )  # fmt: skip

    target = TeacherOptions(model, url, engine, threads, max_tokens, profile) if config.needs_model else None
    _run(work, target, as_json)


@app.command("synthesize")
def synthesize(
    ctx: typer.Context,
    problems: Annotated[Path, Argument(metavar="IN", help="Problems, with or without their answers.")],
    out: Target_,
    write: Annotated[int, Option(help="Problems to write like those of IN, to solve.")] = 0,
    shots: Annotated[int, Option(help="Examples shown for each of them.")] = 3,
    attempts: Annotated[int, Option(help="Solutions a problem, at most.")] = 4,
    keep: Annotated[int, Option(help="Right solutions kept of each problem.")] = 1,
    hints: Annotated[int, Option(help="STaR: attempts with the answer as a hint, where none was right.")] = 0,
    strategy: Strategy = "chain-of-thought",
    options: terminal.Sets = None,
    verifier: Annotated[str | None, Option(help="Says what is right; none: the known answer, else a vote.")] = None,
    params: Annotated[
        list[str] | None, Option("--param", metavar="KEY=VALUE", help="A parameter of the verifier.")
    ] = None,
    threshold: Annotated[float, Option(help="Its score from which on it is.")] = 0.5,
    agree: Annotated[float, Option(help="Share of attempts that a vote needs.")] = 0.6,
    suffix: Annotated[str, Option(help="Last line of each row's question.")] = "",
    temperature: Annotated[float, Option(help="Of the problems' writing.")] = 1.0,
    format: Format = None,
    model: terminal.Model = None,
    url: terminal.Url = None,
    profile: Profile_ = None,
    engine: terminal.EngineName = "auto",
    threads: terminal.Threads = None,
    max_tokens: MaxTokens = 1024,
    tokens: terminal.Tokens = None,
    concurrency: Concurrency = 8,
    seed: terminal.Seed = 0,
    fresh: Fresh = False,
    as_json: terminal.AsJson = False,
) -> None:
    """Let a teacher solve problems, or write and solve them, and keep what is right. A broken-off run goes on.

    With --url, --model names one of the endpoint's models.
    """
    from reason_engine.data.synthesize.synthesize import SynthesizeConfig, synthesize
    from reason_engine.data.synthesize.teacher import Teacher, TeacherOptions

    given = {"options": terminal.parse_sets(options), "params": terminal.parse_sets(params)}
    config = _config(SynthesizeConfig, ctx, given)

    async def work(teacher: Teacher | None) -> "Account":
        assert teacher is not None
        return await synthesize(
            problems, out, config, teacher,
            tokens=tokens, concurrency=concurrency, fresh=fresh, progress=_counter("problems", as_json),
        )  # fmt: skip

    _run(work, TeacherOptions(model, url, engine, threads, max_tokens, profile), as_json)


def _run(work: Callable[[Any], Any], target: "TeacherOptions | None", as_json: bool) -> None:
    """Run with the model that is named, and print the account."""
    import asyncio

    from reason_engine.data.synthesize.teacher import open_teacher

    async def go() -> "Account":
        if target is None:
            return await work(None)
        async with open_teacher(target) as teacher:
            return await work(teacher)

    account = asyncio.run(go())
    terminal.show_status("")
    terminal.print_result(asdict(account), account.describe(), as_json)


def _config(kind: "type[Config]", ctx: typer.Context, given: Mapping[str, Any]) -> "Config":
    """The validated config of the command's options; `given`: those whose form differs. Raises SetupError naming the
    option at fault."""
    from pydantic import ValidationError

    values = {name: ctx.params[name] for name in kind.model_fields if name in ctx.params}
    try:
        return kind.model_validate({**values, **given})
    except ValidationError as error:
        first = error.errors()[0]
        options = {param.name: param.opts[0] for param in ctx.command.params}
        where = f"{options[str(first['loc'][0])]}: " if first["loc"] else ""
        raise SetupError(f"{where}{first['msg'].removeprefix('Value error, ')}") from None


def _counter(unit: str, as_json: bool = False) -> Callable[[int], None]:
    """Tells how far it is: on a terminal, and as JSON lines before the account where those are wanted."""

    def tell(done: int) -> None:
        if as_json:
            terminal.show({"done": done, "of": unit})
        elif unit != "rows" or done % 100 == 0:
            terminal.show_status(f"{done} {unit}")

    return tell
