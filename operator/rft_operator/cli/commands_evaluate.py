"""The command evaluate: the evaluator of the cluster, on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from rft_operator.cli.common import INTERRUPTED, Problem
from rft_operator.errors import RftError

TIME_IS_UP = 3
KEY = "OPENAI_API_KEY"
FORMATS = ("messages", "s1", "sky-t1", "prompt-completion")


@click.command("evaluate", short_help="Evaluate a model folder or an endpoint.")
@click.argument("model")
@click.option(
    "-b",
    "--benchmark",
    "benchmarks",
    multiple=True,
    required=True,
    metavar="NAME[=ROWS]",
    help="A built-in benchmark, or a name and its rows: a JSONL file, hf://, file:// or gym://. May be repeated.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of all that is kept.",
)
@click.option("--base", help="A model to compare with, question by question.")
@click.option(
    "--preset", type=click.Choice(["reasoning-v1", "s1", "skythought"]), help="Values of a published protocol."
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    help="Format of the rows that the model was trained on: its marks of thinking, and how it is asked. "
    "Default: s1 with preset s1, sky-t1 with skythought, else messages.",
)
@click.option("--limit", type=int, help="Ask the first so many questions of each benchmark.")
@click.option("--samples", type=int, help="Answers to each question.")
@click.option("--temperature", help="0 is greedy. Default: the preset's, else 0.")
@click.option("--top-p", help="Default: the preset's, else 1.")
@click.option(
    "--max-tokens", type=int, help="Tokens of an answer, thinking included. Default: the preset's, else 8192."
)
@click.option("--scorer", help="Of rows that name none: math, integer, letter, gsm8k or code.")
@click.option(
    "--run-code", is_flag=True, help="Run programs among the answers on this machine, sealed off from it (Linux)."
)
@click.option("--thinking-tokens", metavar="N[,N...]", help="Budget of thinking; several are measured in one go.")
@click.option("--waits", metavar="N[,N...]", help='How often an end of thinking is replaced by "Wait". Default: 0.')
@click.option("--engine", type=click.Choice(["transformers", "vllm"]), help="Default: transformers.")
@click.option("--gpus", type=int, help="GPUs that share the model; more than one needs vllm.")
@click.option(
    "--endpoint", metavar="URL", help=f"An engine that serves MODEL, as http://host:8000/v1; its key in {KEY}."
)
@click.option("--tokenizer", metavar="MODEL", help="With --endpoint: folder or hf:// of the model's tokenizer.")
@click.option("--context-tokens", type=int, help="With --endpoint: what it can hold, where it does not say.")
@click.option("--batch-size", type=int, help="Questions answered at once. Default: 32.")
@click.option("--seed", type=int, help="Of sampled answers and of the order of choices. Default: 42.")
@click.option("--max-seconds", type=int, help="End after so long with what there is, exit code 3.")
def evaluate_command(model: str, benchmarks: tuple[str, ...], output: Path, **options: Any) -> None:
    """Ask a model the questions of benchmarks, and say what its scores are worth.

    MODEL is a Hugging Face model folder, hf://organisation/name[@revision], or the name that --endpoint serves. The
    same command again goes on where it was: nothing is asked twice. Questions, protocol, scorers and statistics are
    those of a run on a cluster.
    """
    try:
        stopped = _evaluate(model, benchmarks, output, options)
    except RftError as error:
        raise Problem(str(error)) from error
    except KeyboardInterrupt:
        click.echo("\nEnded; the answers are kept, and the same command goes on.", err=True)
        sys.exit(INTERRUPTED)
    if stopped:
        click.echo("Time is up: the scores are partial; the same command goes on.", err=True)
        sys.exit(TIME_IS_UP)


def _refuse_unused(options: Mapping[str, Any], remedy: str) -> None:
    """Raise :class:`EvaluateError` for an option that would change nothing."""
    from rft_operator.errors import EvaluateError

    for option, value in options.items():
        if value is not None:
            raise EvaluateError(f"--{option} {value}: is of no use here; {remedy}, or leave it out")


def _evaluate(model: str, benchmarks: tuple[str, ...], output: Path, options: dict[str, Any]) -> bool:
    """Return whether it was ended before all was measured."""
    from rft_operator.cli.evaluate import LONGEST_SECONDS, evaluation_of, format_of
    from rft_operator.errors import EvaluateError

    base, format_, run_code = options.pop("base"), options.pop("format_"), options.pop("run_code")
    url, tokenizer, context = options.pop("endpoint"), options.pop("tokenizer"), options.pop("context_tokens")
    if url is not None and tokenizer is None:
        raise EvaluateError("--endpoint: needs --tokenizer, for prompts are rendered and tokens counted here")
    _refuse_unused({"tokenizer": tokenizer, "context-tokens": context} if url is None else {}, "add --endpoint")
    _refuse_unused({each: options[each] for each in ("engine", "gpus")} if url is not None else {}, "remove --endpoint")
    if options["max_seconds"] is None:
        options["max_seconds"] = LONGEST_SECONDS
    evaluation = evaluation_of(benchmarks, options, model=model, compared=base is not None)
    try:
        from rft_trainer.errors import StageError
        from rft_trainer.evaluate.standalone import Endpoint, Order, evaluate
    except ImportError as error:
        raise EvaluateError(
            f"evaluate: needs the trainer's libraries ({error}); pip install 'reasoning-finetune-operator[trainer]'"
        ) from error
    key = os.environ.get(KEY)
    order = Order(
        model=model,
        base=base,
        evaluation=evaluation,
        format=format_ or format_of(evaluation.preset),
        output=output,
        endpoint=None if url is None else Endpoint(url=url, tokenizer=tokenizer, api_key=key, context_tokens=context),
        run_code=run_code,
    )
    try:
        summary = evaluate(order)
    except StageError as error:
        raise EvaluateError(str(error)) from error
    if summary.pending:
        raise EvaluateError(
            f"{summary.pending} answers are programs, and nothing is scored before they are run: the same command with "
            "--run-code runs them, sealed off from this machine (docs/code-execution.md)"
        )
    return summary.stopped is not None
