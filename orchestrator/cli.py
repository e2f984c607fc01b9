"""The verbs of the command line. Thin: each verb's module does the work, and is imported when it is asked for."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from orchestrator.opening import Study

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Studies of musical surprisal as graphs of cells: trained by Ray Tune, tracked by MLflow, kept in a ledger.",
)

ExperimentArgument = Annotated[str, typer.Argument(help="the experiment's YAML file", metavar="EXPERIMENT")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="key=value over the YAML, such as flow.steps=500", metavar="[KEY=VALUE]...", show_default=False
    ),
]
LedgerRoot = Annotated[
    str,
    typer.Option("--ledger", envvar="ORCHESTRATOR_LEDGER", help="folder or URL (s3://bucket/prefix) of the results"),
]
LedgerOption = Annotated[str | None, typer.Option("--ledger", help="folder or URL (s3://bucket/prefix) of the results")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]
RetryOption = Annotated[str | None, typer.Option("--retry", help="'failed': try failed cells again")]
ExploratoryOption = Annotated[
    bool, typer.Option("--exploratory", help="let a search choose by delta_r, on held-out EEG")
]
JobArgument = Annotated[str, typer.Argument(help="the name that submit printed", metavar="JOB")]
DASHBOARD_HELP = "URL of the cluster's dashboard; default: $RAY_API_SERVER_ADDRESS, or http://127.0.0.1:8265"
DashboardOption = Annotated[str | None, typer.Option("--address", help=DASHBOARD_HELP, metavar="URL")]
FollowOption = Annotated[bool, typer.Option("--follow", "-f", help="until it has ended")]


@app.command()
def run(
    experiment: ExperimentArgument,
    overrides: Overrides = None,
    ledger: LedgerOption = None,
    inline: Annotated[bool, typer.Option("--inline", help="every task in this process, without Ray")] = False,
    address: Annotated[str | None, typer.Option("--address", help="this node's Ray cluster; else a local Ray")] = None,
    retry: RetryOption = None,
    exploratory: ExploratoryOption = False,
) -> None:
    """Compute what is not in the ledger yet, then report. The same command resumes."""
    _check_retry(retry)
    with _one_line_errors():
        from orchestrator.verbs.run import run as run_verb

        study = _open(experiment, overrides, ledger)
        raise typer.Exit(run_verb(study, inline, address, retry == "failed", exploratory))


@app.command()
def submit(
    experiment: ExperimentArgument,
    overrides: Overrides = None,
    ledger: LedgerOption = None,
    address: DashboardOption = None,
    retry: RetryOption = None,
    exploratory: ExploratoryOption = False,
) -> None:
    """Run the study on a cluster from elsewhere: the driver runs on its head. Submitting again resumes."""
    _check_retry(retry)
    with _one_line_errors():
        from orchestrator.verbs.submit import submit as submit_verb

        raise typer.Exit(submit_verb(experiment, overrides or (), ledger, address, retry, exploratory))


@app.command()
def logs(job: JobArgument, address: DashboardOption = None, follow: FollowOption = False) -> None:
    """What a submitted job prints."""
    with _one_line_errors():
        from orchestrator.verbs.jobs import logs as logs_verb

        raise typer.Exit(logs_verb(job, address, follow))


@app.command()
def stop(job: JobArgument, address: DashboardOption = None) -> None:
    """Stop a submitted job once its checkpoints are saved, and say how to go on."""
    with _one_line_errors():
        from orchestrator.verbs.jobs import stop as stop_verb

        raise typer.Exit(stop_verb(job, address))


@app.command()
def doctor(
    experiment: ExperimentArgument,
    overrides: Overrides = None,
    ledger: LedgerOption = None,
    address: Annotated[str | None, typer.Option("--address", help="the Ray cluster of this node, such as auto")] = None,
    submitted: Annotated[
        bool, typer.Option("--submit", help="ask from the head, as a job; --address is the dashboard's URL then")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Is all there that the study needs, on every node? Each finding with its remedy; exit 3 when not."""
    with _one_line_errors():
        from orchestrator.verbs.doctor import doctor as doctor_verb

        raise typer.Exit(doctor_verb(experiment, overrides or (), ledger, address, submitted, as_json))


@app.command()
def plan(
    experiment: ExperimentArgument,
    overrides: Overrides = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
    everything: Annotated[bool, typer.Option("--all", help="name every cell that is not cached")] = False,
    show_config: Annotated[bool, typer.Option("--show-config", help="every key, its value and its origin")] = False,
) -> None:
    """Say of each cell whether it is cached, to do (and why) or blocked (by what)."""
    with _one_line_errors():
        from orchestrator.verbs.plan import plan as plan_verb

        _show(plan_verb(_open(experiment, overrides, ledger), as_json, everything, show_config))


@app.command()
def status(
    subject: Annotated[str, typer.Argument(help="an experiment's YAML file, or a job", metavar="EXPERIMENT|JOB")],
    overrides: Overrides = None,
    ledger: LedgerOption = None,
    address: DashboardOption = None,
    follow: FollowOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say where a study or a submitted job stands; --follow ends with it, and with the job's exit code."""
    with _one_line_errors():
        if not overrides and ledger is None and not subject.endswith((".yaml", ".yml")) and not Path(subject).exists():
            from orchestrator.verbs.jobs import status as job_verb

            raise typer.Exit(job_verb(subject, address, follow))
        from orchestrator.verbs.status import follow as follow_verb
        from orchestrator.verbs.status import status as status_verb

        study = _open(subject, overrides, ledger)
        if follow:
            raise typer.Exit(follow_verb(study, _show))
        _show(status_verb(study, as_json))


@app.command()
def report(experiment: ExperimentArgument, overrides: Overrides = None, ledger: LedgerOption = None) -> None:
    """Draw figures and tables from the ledger."""
    with _one_line_errors():
        from orchestrator.verbs.report import report as report_verb

        _show(report_verb(_open(experiment, overrides, ledger)))


@app.command()
def explain(
    signature: Annotated[str, typer.Argument(help="the first characters of a cell's signature", metavar="SIGNATURE")],
    ledger: LedgerRoot = "./results",
    as_json: JsonOption = False,
) -> None:
    """Walk from a result back to the recordings it was made of."""
    with _one_line_errors():
        from orchestrator.verbs.explain import explain as explain_verb

        _show(explain_verb(ledger, signature, as_json))


@app.command()
def surprisal(
    files: Annotated[list[str], typer.Argument(help="recordings, folders or s3:// prefixes", metavar="FILES...")],
    model: Annotated[
        str, typer.Option("--model", help="signature of a flow, or a file of published weights", metavar="SIG|FILE")
    ],
    autoencoder: Annotated[
        str | None, typer.Option("--autoencoder", help="for imported weights: whose latents", metavar="SIGNATURE")
    ] = None,
    noise_levels: Annotated[str, typer.Option("--noise-levels", help="comma-separated, each in [0, 1]")] = "0.0",
    definition: Annotated[
        str | None,
        typer.Option(help="which quantity", metavar="expectation|monte_carlo|probability_flow|expected"),
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="what a frame is predicted from", metavar="transformed|clean|none")
    ] = None,
    n_draws: Annotated[int | None, typer.Option(help="draws of noise, where the definition has any")] = None,
    solver: Annotated[
        str | None, typer.Option(help="of the likelihood's integral", metavar="euler|quadrature|exact")
    ] = None,
    n_steps: Annotated[int | None, typer.Option(help="of the solver euler")] = None,
    n_nodes: Annotated[int | None, typer.Option(help="of the solvers quadrature and exact")] = None,
    n_probes: Annotated[int | None, typer.Option(help="Rademacher probes of the divergence")] = None,
    order: Annotated[int | None, typer.Option(help="of the steps from node to node", metavar="2|3")] = None,
    precision: Annotated[
        str | None, typer.Option(help="of the Jacobian's products with probes", metavar="float32|bfloat16")
    ] = None,
    probes: Annotated[str | None, typer.Option(help="given probes", metavar="FILE.npy|exact")] = None,
    out: Annotated[str, typer.Option("--out", help="folder for the tables")] = ".",
    form: Annotated[str, typer.Option("--format", help="csv or parquet")] = "csv",
    stamp: Annotated[
        str, typer.Option("--stamp", help="time of a frame: its start, its end, or the published tool's rows")
    ] = "start",
    ledger: LedgerRoot = "./results",
) -> None:
    """Information content of recordings at noise levels, a table each: Time, IC_<level>, ... and a JSON beside it."""
    with _one_line_errors():
        from orchestrator.verbs.surprisal import Wish
        from orchestrator.verbs.surprisal import surprisal as surprisal_verb

        solved = {
            "definition": definition,
            "context": context,
            "n_draws": n_draws,
            "solver": solver,
            "n_steps": n_steps,
            "n_nodes": n_nodes,
            "n_probes": n_probes,
            "order": order,
            "precision": precision,
            "probes": probes,
        }
        wish = Wish(files, model, autoencoder, noise_levels, solved, out, form, stamp)
        raise typer.Exit(surprisal_verb(wish, ledger))


@app.command("import-weights")
def import_weights(
    file: Annotated[str, typer.Argument(help="a checkpoint, such as pa_rectflow.pt", metavar="FILE")],
    ledger: LedgerRoot = "./results",
) -> None:
    """Bring published weights into the ledger, as a model with a signature of its own."""
    with _one_line_errors():
        from orchestrator.verbs.import_weights import import_weights as import_verb

        raise typer.Exit(import_verb(file, ledger))


data_app = typer.Typer(no_args_is_help=True, help="Look at an EEG data set before a study uses it.")
app.add_typer(data_app, name="data")


@data_app.command("inspect")
def data_inspect(
    path: Annotated[str, typer.Argument(help="a folder in CND layout, BIDS, or of raw files", metavar="FOLDER")],
    events: Annotated[
        str | None, typer.Option("--events", help="for raw files: the table of what was heard when", metavar="TABLE")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="for BIDS: this task alone")] = None,
    sensor_type: Annotated[
        str | None, typer.Option("--sensor-type", help="eeg, mag or grad: which channels are wanted")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", help="picture of the montage", metavar="FILE.png")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is understood of a data set: subjects, pieces, durations, rates, channels, and what is missing."""
    with _one_line_errors():
        from orchestrator.verbs.data import inspect

        raise typer.Exit(inspect(path, events, task, sensor_type, out, as_json))


@data_app.command("check")
def data_check(
    path: Annotated[str, typer.Argument(help="a folder in CND layout, or BIDS", metavar="FOLDER")],
    audio: Annotated[str, typer.Option("--audio", help="folder of the stimuli: audio or MIDI", metavar="FOLDER")],
    trials: Annotated[
        str | None, typer.Option("--trials", help="as eeg.cnd.trials: which trial heard which", metavar="TABLE")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="for BIDS: this task alone")] = None,
    tolerance: Annotated[int, typer.Option(min=0, help="samples of the shipped envelope that lags may reach")] = 1,
) -> None:
    """Compare our envelope of each stimulus with the data set's; exit 1 when they are not aligned."""
    with _one_line_errors():
        from orchestrator.verbs.data_check import check

        raise typer.Exit(check(path, audio, trials, task, tolerance))


@app.command()
def ui(
    ledger: LedgerRoot = "./results",
    tracking_uri: Annotated[str | None, typer.Option("--tracking-uri", help="another MLflow store")] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 5000,
    serve: Annotated[bool, typer.Option("--serve", help="a server for drivers: $MLFLOW_BACKEND_STORE_URI")] = False,
    env_file: Annotated[
        str | None, typer.Option("--env-file", help="with --serve: settings as NAME=VALUE, mode 0600")
    ] = None,
    artifacts_destination: Annotated[
        str | None, typer.Option("--artifacts-destination", help="with --serve: folder or s3:// URL of artefacts")
    ] = None,
) -> None:
    """Open MLflow on the store of a ledger, or with --serve on a database, on this machine only (127.0.0.1)."""
    with _one_line_errors():
        if serve:
            from orchestrator.verbs.serve import serve as serve_verb

            raise typer.Exit(serve_verb(env_file, artifacts_destination, port))
        from orchestrator.verbs.ui import ui as ui_verb

        raise typer.Exit(ui_verb(ledger, tracking_uri, port))


def _check_retry(retry: str | None) -> None:
    if retry not in (None, "failed"):
        _refuse(f"--retry {retry!r}: allowed is 'failed'")


def _open(experiment: str, overrides: list[str] | None, ledger: str | None) -> Study:
    """The study of a command; a ledger that fails while it is read or written to refuses the command."""
    from orchestrator.opening import LedgerTrouble, open_study

    try:
        return open_study(experiment, overrides or (), ledger)
    except OSError as error:
        raise LedgerTrouble(f"{type(error).__name__}: {error}") from error


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """What a person can mend is one line: bad usage exits 2, a ledger that doesn't answer 3, Ctrl-C 130."""
    try:
        from orchestrator.opening import LedgerTrouble
        from orchestrator.reading import UsageError
        from orchestrator.trouble import StorageAway, StorageRefused, described

        try:
            yield
        except UsageError as error:
            _refuse(str(error))
        except LedgerTrouble as error:
            _refuse(str(error), 3)
        except (StorageAway, StorageRefused) as error:
            _refuse(described(error), 3)
    except KeyboardInterrupt:
        _refuse(f"stopped; nothing done is lost. To go on: {shlex.join(sys.argv)}", 130)


def _show(text: str) -> None:
    from orchestrator.redaction import redact

    typer.echo(redact(text))


def _refuse(sentence: str, code: int = 2) -> NoReturn:
    from orchestrator.redaction import redact

    typer.echo(f"orchestrator: {redact(sentence)}", err=True)
    raise SystemExit(code)


def main() -> None:
    """The console command; bad usage exits 2."""
    sys.exit(app())
