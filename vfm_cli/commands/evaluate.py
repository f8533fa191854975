"""`vfm evaluate`: what an encoder's features hold, next to what is trivial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vfm_cli.commands.finetune import find_key, is_of_moments, prepared_domain
from vfm_cli.console import Counter, emit_json, say, table
from vfm_cli.options import LOCAL, domain_option, json_option, key_option, online_option

if TYPE_CHECKING:
    from recipes.evaluate.scored import Scored

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def command() -> None:
    """Measure an encoder on people it has not learned from, next to what is trivial, with patient-level bootstrap intervals.

    knn, linear: a probe on frozen features, by cross-validation over patients. zero-shot, retrieval, choice: runs that aligned clips with
    texts (retrieval: or with signals), without any probe. findings: how right what vfm report drafts is.
    """


def shared(decorated: F) -> F:
    """Options of every protocol."""
    for decorate in reversed(
        (
            click.option("--data", required=True, help="A prepared folder, or its URL."),
            click.option(
                "--split", default="", help="An official split of the public data set: its test part is asked."
            ),
            click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of whatever is drawn."),
            click.option(
                "--out",
                type=LOCAL,
                default=None,
                help="Folder for predictions.csv, evaluation.json, and a picture of classes or values.",
            ),
            domain_option,
            key_option,
            online_option,
            json_option,
        )
    ):
        decorated = decorate(decorated)
    return decorated


labels_option = click.option(
    "--labels",
    default=None,
    type=LOCAL,
    help="CSV with one row per recording, study or patient; default: those of the public data set.",
)
task_option = click.option("--task", required=True, help="A task of the domain, e.g. ef or view.")
aligned_option = click.option("--encoder", required=True, type=LOCAL, help="A vfm run that aligned clips with texts.")


def names(words: str) -> tuple[str, ...]:
    """`a,b` -> (a, b); `none` for none."""
    return tuple(word.strip() for word in words.split(",") if word.strip() and word.strip() != "none")


def probe(protocol: str, about: str) -> click.Command:
    """`vfm evaluate knn` and `vfm evaluate linear`."""

    @click.command(protocol, help=about)
    @click.option("--encoder", required=True, help="A vfm run, a folder, vfm-tiny, vfm-small, or a hub name.")
    @labels_option
    @task_option
    @click.option(
        "--baselines", default="pixels,random,generic", show_default=True, help="Rows to compare with; 'none' for none."
    )
    @click.option("--folds", type=int, default=5, show_default=True, help="Patients are split into this many parts.")
    @click.option(
        "--clips", type=click.IntRange(1), default=None, help="Clips averaged per recording [3], or per action [1]."
    )
    @click.option(
        "--every",
        type=click.FloatRange(0, min_open=True),
        default=None,
        help="Tasks of what is there at each moment: seconds from one clip to the next [a clip's length].",
    )
    @click.option(
        "--ahead",
        type=click.FloatRange(0, min_open=True),
        default=None,
        help="Tasks of moments: what comes this many seconds later; a clip ends before that [now].",
    )
    @click.option(
        "--opposites", is_flag=True, help="Tasks of actions: tell each only from its opposite (open or close)."
    )
    @click.option("--report", type=LOCAL, default=None, help="Write one self-contained HTML page.")
    @shared
    def run(
        encoder: str, data: str, labels: Path | None, task: str, baselines: str, folds: int, clips: int | None, every: float | None,
        ahead: float | None, opposites: bool, report: Path | None, split: str, seed: int, out: Path | None, domain: str | None, key: Path | None,
        online: bool, as_json: bool,
    ) -> None:  # fmt: skip
        asked: dict[str, Any] = {
            "baselines": names(baselines), "folds": folds, "split": split, "seed": seed, "key": find_key(key), "domain": domain,
            "online": online, "progress": Counter("embedding", "recordings"),
        }  # fmt: skip
        moments = is_of_moments(data, domain or prepared_domain(data), task)
        check_of_moments(moments, task, every=every, ahead=ahead, opposites=opposites, report=report)
        if moments:
            from recipes.jobs.instants import Asking, evaluate_moments

            asking = Asking(every, ahead or 0.0, clips or 1, opposites)
            asked["progress"] = Counter("embedding", "moments")
            show(evaluate_moments(protocol, encoder, data, labels, task, asking, out=out, **asked), out, as_json)
            return
        asked["clips"] = clips or 3
        if report is not None:
            from recipes.jobs.report import evaluate_and_report

            title = f"{Path(encoder).name}: {protocol} {task}"
            found = evaluate_and_report(
                [(protocol, task)], encoder, data, labels, report, title=title, out=out, **asked
            )[0]
        else:
            from recipes.jobs.evaluate import evaluate

            found = evaluate(protocol, encoder, data, labels, task, out=out, **asked)
        if as_json:
            emit_json(found.to_dict())
            return
        head, lines = found.table()
        table(head, lines, title=f"{protocol} {task}: {found.size()}")
        click.echo("")
        for note in found.notes:
            click.echo(f"note: {note}")
        click.echo(found.verdict())
        if out is not None:
            click.echo(f"predictions: {out / 'predictions.csv'}")
        if report is not None:
            click.echo(f"report: {report}")

    return run


def check_of_moments(moments: bool, task: str, *, report: Path | None, **given: Any) -> None:
    """Raises ConfigError for options that the kind of the task does not know."""
    from domains.errors import ConfigError

    if moments and report is not None:
        raise ConfigError(
            f"no page is made of '{task}', a task of moments", do="Leave --report out; figures: --out or --json"
        )
    if not moments and (known := [name for name, value in given.items() if value]):
        what = f"--{known[0]} is for tasks of moments, and '{task}' is of whole recordings"
        raise ConfigError(what, do=f"Leave --{known[0]} out")


for name, about in (
    ("knn", "Each recording by its nearest neighbours among other people's."),
    ("linear", "A linear probe on frozen features, its strength chosen inside the training patients."),
):
    rest = "\n\nPixel statistics, random weights and the encoder that the run started from stand in the same table."
    command.add_command(probe(name, about + rest))


@command.command("zero-shot")
@aligned_option
@labels_option
@task_option
@click.option("--prompts", type=LOCAL, default=None, help="YAML of class: [texts]; default: the domain's.")
@click.option(
    "--baselines", default="unaligned,chance,common", show_default=True, help="Rows to compare with; 'none' for none."
)
@click.option("--clips", type=click.IntRange(1), default=None, help="Clips averaged per recording [3].")
@click.option(
    "--every",
    type=click.FloatRange(0, min_open=True),
    default=None,
    help="Tasks of moments: seconds from one to the next [1].",
)
@click.option(
    "--absent",
    type=click.Choice(["dropped", "called", "zero"]),
    default=None,
    help="Phases: one that a recording has not is left out of its mean, counts 0 where it was called, or counts 0 [called].",
)
@click.option(
    "--relaxed",
    type=click.FloatRange(0),
    default=None,
    help="Phases: seconds about a change in which the neighbour may be called [0].",
)
@shared
def zero_shot(
    encoder: Path, data: str, labels: Path | None, task: str, prompts: Path | None, baselines: str, clips: int | None, every: float | None,
    absent: Any, relaxed: float | None, split: str, seed: int, out: Path | None, domain: str | None, key: Path | None, online: bool, as_json: bool,
) -> None:  # fmt: skip
    """Call recordings, or moments of them, by the class whose description in words is nearest; no label is learned from.

    Whole recordings by --clips clips each; phases, tools and other labels of moments by one clip every --every seconds, figures of each recording
    averaged. Untrained projections, chance and the most common class stand in the same table; how it was done is said with the figures.
    """
    from recipes.jobs.zero_shot import Rules
    from recipes.jobs.zero_shot import zero_shot as ask

    rules = Rules(names(baselines), split=split, clips=clips, every=every, absent=absent, relaxed=relaxed, seed=seed)
    counter = Counter("embedding", "clips")
    show(
        ask(encoder, data, labels, task, rules, prompts=prompts, key=find_key(key), domain=domain, out=out, online=online, progress=counter),
        out,
        as_json,
    )  # fmt: skip


def texts_options(decorated: F) -> F:
    """Which texts are asked."""
    for decorate in reversed(
        (
            click.option(
                "--text",
                "texts",
                type=LOCAL,
                multiple=True,
                help="CSV of narrations or reports, may be repeated; default: the texts that came with the recordings.",
            ),
            click.option(
                "--level",
                "levels",
                type=click.Choice(["clip", "keystep", "abstract"]),
                multiple=True,
                help="Texts of this level alone; may be repeated.",
            ),
            click.option("--source", "sources", multiple=True, help="Texts of this source alone; may be repeated."),
            click.option(
                "--baselines",
                default="unaligned,chance",
                show_default=True,
                help="Rows to compare with; 'none' for none.",
            ),
        )
    ):
        decorated = decorate(decorated)
    return decorated


@command.command("retrieval")
@click.option(
    "--encoder",
    required=True,
    type=LOCAL,
    help="A vfm run that aligned clips with texts, or brought them together with signals (imu, previps).",
)
@texts_options
@click.option(
    "--acts", is_flag=True, help="Also mAP and nDCG, a text as right as its verbs and nouns are (EPIC-KITCHENS)."
)
@click.option(
    "--studies",
    is_flag=True,
    help="Ask whole studies, each the mean of its recordings, among texts about whole studies.",
)
@click.option(
    "--clips",
    type=click.IntRange(1),
    default=None,
    help="Clips averaged per stretch [3]; with signals, stretches of a clip that are asked of each recording [all, one after the other].",
)
@shared
def retrieval(
    encoder: Path, data: str, texts: tuple[Path, ...], levels: tuple[str, ...], sources: tuple[str, ...], acts: bool, studies: bool,
    baselines: str, clips: int | None, split: str, seed: int, out: Path | None, domain: str | None, key: Path | None, online: bool, as_json: bool,
) -> None:  # fmt: skip
    """Find the text of each clip among all texts, and the clip of each text among all clips: R@1, R@5, R@10 and the median rank, ties averaged.

    Texts that read alike are one. Of a run with signals: what was measured beside each clip among all, and the clip of what was measured. Untrained
    projections and chance stand in the same table.
    """
    from recipes.jobs.retrieval import retrieval as ask

    found = ask(
        encoder, data, texts=texts, levels=levels, sources=sources, acts=acts, studies=studies, baselines=names(baselines),
        split=split, clips=clips, seed=seed, key=find_key(key), domain=domain, out=out, online=online, progress=Counter("embedding", "clips"),
    )  # fmt: skip
    show(found, out, as_json)


@command.command("choice")
@aligned_option
@texts_options
@click.option("--clips", type=click.IntRange(1), default=1, show_default=True, help="Clips averaged per stretch.")
@shared
def choice(
    encoder: Path, data: str, texts: tuple[Path, ...], levels: tuple[str, ...], sources: tuple[str, ...], baselines: str, clips: int, split: str,
    seed: int, out: Path | None, domain: str | None, key: Path | None, online: bool, as_json: bool,
) -> None:  # fmt: skip
    """Choose which of five clips a text is about: among clips of other recordings, and among those nearest in time in the same one."""
    from recipes.jobs.choice import choice as ask

    found = ask(
        encoder, data, texts=texts, levels=levels, sources=sources, baselines=names(baselines), split=split, clips=clips, seed=seed,
        key=find_key(key), domain=domain, out=out, online=online, progress=Counter("embedding", "clips"),
    )  # fmt: skip
    show(found, out, as_json)


@command.command("findings")
@click.option("--index", required=True, type=LOCAL, help="Folder that vfm embed made of studies that have reports.")
@click.option(
    "--text",
    "texts",
    type=LOCAL,
    multiple=True,
    help="CSV with the reports of those studies, may be repeated; default: those that came with the recordings.",
)
@click.option("--count", type=click.IntRange(2), default=5, show_default=True, help="Similar studies.")
@click.option(
    "--least", type=click.IntRange(2), default=2, show_default=True, help="Patients whose reports must say a thing."
)
@click.option(
    "--baselines",
    default="commonest,random,generic",
    show_default=True,
    help="Rows to compare with; 'none' for none.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of whatever is drawn.")
@click.option(
    "--out",
    type=LOCAL,
    default=None,
    help="Folder for predictions.csv, statements.csv, evaluation.json, and a picture of the figures.",
)
@click.option("--encoder", default=None, help="The model that embedded, should it lie elsewhere now.")
@click.option(
    "--collection-data", default=None, help="The prepared folder that was embedded, should it lie elsewhere now."
)
@key_option
@online_option
@json_option
def findings(
    index: Path, texts: tuple[Path, ...], count: int, least: int, baselines: str, seed: int, out: Path | None, encoder: str | None,
    collection_data: str | None, key: Path | None, online: bool, as_json: bool,
) -> None:  # fmt: skip
    """Draft findings for every study of a collection as vfm report does, from other patients' studies, and compare them with its own report.

    How many drafted statements the own report makes (precision), how many of its own are drafted (recall), the same of statements that few reports
    make, and whether drafted ranges hold its numbers. What most reports say, random studies and the encoder that the run started from stand in the
    same table. No word of a report is said on the terminal.
    """
    from recipes.jobs.drafted import evaluate_findings
    from recipes.jobs.findings import check_least

    check_least(count, least)
    found = evaluate_findings(
        index, texts, count=count, least=least, baselines=names(baselines), seed=seed, collection_data=collection_data, model=encoder,
        key=find_key(key), out=out, online=online, progress=Counter("embedding", "clips"),
    )  # fmt: skip
    show(found, out, as_json)


def show(found: Scored, out: Path | None, as_json: bool) -> None:
    """The table, how it was done, and the verdict."""
    if as_json:
        emit_json(found.to_dict())
        return
    head, lines = found.table()
    table(head, lines, title=f"{found.protocol} {found.task}: {found.size}")
    click.echo("")
    for sentence in found.how:
        click.echo(f"how: {sentence}")
    for note in found.notes:
        click.echo(f"note: {note}")
    for failure in found.excluded:
        say(f"left out: {failure.video_id}: {failure.reason}")
    click.echo(found.verdict())
    if out is not None:
        click.echo(f"predictions: {out / 'predictions.csv'}")
