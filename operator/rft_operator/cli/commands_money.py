"""Commands about money: plan before a run, cost while and after, audit of a bill."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from rft_operator.cli.common import NO, Problem, Where, carry_out, cluster_options, output_option, run_names
from rft_operator.errors import RftError

if TYPE_CHECKING:
    from rft_operator.domain.cost import CostTable

SPLITS = ("run", "namespace", "team", "label", "stage", "machine", "waste")


def _text_of(file: TextIO) -> str:
    """Return what a file holds; raises Problem for what is no text, such as what older shells of Windows write."""
    try:
        return file.read()
    except UnicodeDecodeError as error:
        raise Problem(f"{file.name}: is no text in UTF-8, which it must be saved as ({error})") from error


@click.command("plan", short_help="Estimate memory, time and cost of a run.")
@click.option(
    "-f", "--file", "file", type=click.File(encoding="utf-8-sig"), required=True, help="The resource; - is stdin."
)
@click.option("--prices", type=click.Path(path_type=Path), help="Price catalogue, where the resource names no price.")
@output_option("text", "json", "yaml")
@click.option("--config", type=click.Path(path_type=Path), help="config.json of a model that is not known.")
@click.option("--gpu", help="GPU product, as its nodes' label nvidia.com/gpu.product says.")
@click.option("--rows", type=click.IntRange(1), help="Rows of the dataset.")
@click.option("--mean-tokens", type=click.IntRange(1), help="Tokens of a row on average, prompt included.")
def plan_command(file: TextIO, output: str, **options: Any) -> None:
    """Estimate memory, time and cost of a run, without a cluster; exit code 1 if it does not fit or is too dear."""
    from rft_operator.cli.plan import Options, make_plan, page, to_json

    try:
        plan = make_plan(_text_of(file), Options(**options), now=int(time.time()))
    except RftError as error:
        raise Problem(str(error)) from error
    click.echo(page(plan) if output == "text" else _as(to_json(plan), output), nl=False)
    for note in plan.notes if output != "text" else ():
        click.echo(f"Note: {note}", err=True)
    if not plan.estimate.works:
        sys.exit(NO)


@click.command("audit", short_help="Compute the bill anew and compare.")
@click.option(
    "-f", "--file", "file", type=click.File(encoding="utf-8-sig"), required=True, help="The dump; - is stdin."
)
@click.option("--prices", type=click.Path(path_type=Path), help="Price catalogue, where resources name no price.")
@click.option("--now", "now_text", help="Instant of the dump (RFC 3339), for pods that still run. Default: now.")
@output_option("text", "json", "yaml")
def audit_command(file: TextIO, prices: Path | None, now_text: str | None, output: str) -> None:
    """Compute the bill anew from a dump of API objects; exit code 1 if a status in it says something else.

    The dump is a List: kubectl get pods,nodes,jobs,rft -A -o json --show-managed-fields
    """
    from rft_operator.cli.audit import page, run_audit, to_json
    from rft_operator.domain.timestamps import epoch

    try:
        now = epoch(now_text) if now_text is not None else int(time.time())
    except ValueError as error:
        raise Problem(f"--now {now_text!r} is no instant; write for example 2026-01-01T00:00:00Z") from error
    try:
        found = run_audit(_text_of(file), prices, now=now)
    except RftError as error:
        raise Problem(str(error)) from error
    click.echo(page(found) if output == "text" else _as(to_json(found), output), nl=False)
    for note in found.notes:
        click.echo(f"Note: {note}", err=True)
    if output != "text":
        for key, verdict in found.verdicts.items():
            for each in verdict.findings:
                click.echo(f"{key} DISAGREES: {each}", err=True)
    if not found.agrees:
        sys.exit(NO)


def _as(text: str, output: str) -> str:
    """Return a JSON text as it is, or as YAML."""
    import json

    from rft_operator.cli.output import to_yaml

    return to_yaml(json.loads(text)) if output == "yaml" else text


@click.command("cost", short_help="Take the bill of runs apart.")
@run_names(required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="Runs of all namespaces.")
@click.option("-l", "--selector", "label_selector", help="Runs with these labels, for example team=reasoning.")
@click.option("--by", type=click.Choice(SPLITS), default="run", show_default=True, help="What a row stands for.")
@click.option("--label", help="Label of --by label; of --by team it is team unless given.")
@cluster_options
@output_option("table", "json", "yaml", "csv")
def cost_command(
    names: tuple[str, ...],
    where: Where,
    output: str,
    *,
    by: str,
    label: str | None,
    all_namespaces: bool,
    label_selector: str | None,
) -> None:
    """Take the bill of runs apart: by run, namespace, team, label, stage, machine, or what it was wasted on.

    Whatever the split, the total is that of the ledgers, to the micro-dollar and to the second. Runs that were deleted
    are not in it: what they spent is kept in team budgets (kubectl get finetunebudgets).
    """
    from rft_operator.cli.cost import page, to_csv, to_document
    from rft_operator.cli.output import structured
    from rft_operator.client.manifests import billed
    from rft_operator.domain.cost import By

    if names and (all_namespaces or label_selector):
        raise click.UsageError("give names, or -A and -l, not both")
    if by == "label" and label is None:
        raise click.UsageError("--by label needs --label KEY, for example --label team")
    if label is not None and by not in ("label", "team"):
        raise click.UsageError(f"--label is for --by label and --by team, not for --by {by}")
    split = By.LABEL if by == "team" else By(by)
    key = (label or "team") if split is By.LABEL else None

    async def go() -> CostTable:
        async with where.client() as client:
            if names:
                raws = [await client.read(name) for name in dict.fromkeys(names)]
            else:
                raws = list(await client.read_all(all_namespaces=all_namespaces, label_selector=label_selector))
            return await client.cost([billed(raw) for raw in raws], by=split, label=key)

    found = carry_out(go())
    forms = {"table": page, "csv": to_csv}
    text = forms[output](found) if output in forms else structured(to_document(found), output)
    click.echo(text, nl=False)
