"""A run in the browser: a page on this machine alone, rendered from the store at each request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path

import numpy as np

from optbench.records.store import Store
from optbench.report import watch
from optbench.report.notebook import table_html
from optbench.report.text import TextTable, duration, number
from optbench.task import Metric

#: Served to this machine alone: a store may hold what must not reach a network.
HOST = "127.0.0.1"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(path: Path, metric: Metric, *, every: float) -> str:
    """Write the page of a run, which reloads itself every ``every`` seconds until all trials have ended.

    Parameters
    ----------
    path : Path
        The store.
    metric : Metric
        The primary one.
    every : float
        Seconds.
    """
    with Store(path) as store:
        standing = watch.look(store, metric=metric)
    done = sum(standing.counts.values())
    ended = done >= standing.planned
    refresh = "" if ended else f'<meta http-equiv="refresh" content="{max(1, round(every))}">'
    words = ", ".join(f"{count} {status}" for status, count in standing.counts.items()) or "no trial yet"
    left = standing.seconds_left
    time_left = f", about {duration(left)} left" if np.isfinite(left) and not ended else ""
    recent = "".join(
        f"<li>{escape(label)}: {escape(trial.status)}, loss "
        f"{watch.sparkline(trial.history.get('train_loss', np.empty(0)))} "
        f"{number(trial.metrics.get('train_loss', np.nan), 4)}</li>"
        for label, trial in standing.recent
    )
    style = (files("optbench.report") / "templates" / "report.css").read_text("utf-8")
    body = _answer(path) if ended else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">{refresh}
<title>{done} of {standing.planned}: {escape(standing.title)}</title>
<style>{style}</style></head>
<body><main id="main" style="max-width:70rem;margin:0 auto;padding:1.5rem">
<h1>{escape(standing.title)}</h1>
<p><progress max="{max(standing.planned, 1)}" value="{done}" style="width:100%"></progress></p>
<p id="state">{done} of {standing.planned} trials: {escape(words)}{time_left}</p>
{body}<ul class="notes">{recent}</ul>
<div class="scroll">{table_html(standing_text(standing, metric))}</div>
</main></body></html>
"""


def standing_text(standing: watch.Standing, metric: Metric) -> TextTable:
    """Means over whole blocks so far as a table."""
    title, columns, rows = watch.standing_cells(standing.ended, standing.optimizers, metric=metric)
    planned = f" of {standing.blocks_planned} planned"
    return TextTable(title=f"{title}{planned}, no test", columns=columns, rows=rows)


def _answer(path: Path) -> str:
    """The answer, once every trial has ended: a test before is a look."""
    from optbench.records.frames import load_results
    from optbench.report.analysis import analyse
    from optbench.report.declared import note_look
    from optbench.suite.report_spec import ReportSpec

    results = load_results(path)
    views = [meta["view"] for meta in results.meta if "view" in meta]
    if not views:
        return ""
    report = analyse(results, ReportSpec.from_json(views[0]))
    report.failures.attempt("note of this look", lambda: note_look(report))
    sentences = "".join(f'<li class="{s.kind}">{escape(s.text)}</li>' for s in report.answer.sentences)
    sentences += "".join(f"<li>{escape(text)}</li>" for text in report.declared.sentences)
    return f'<h2>In short</h2><ul class="answer">{sentences}</ul>'


def server(path: Path, metric: Metric, *, port: int = 0, every: float = 2.0) -> ThreadingHTTPServer:
    """Make a server of the page on this machine; ``serve_forever`` starts it.

    Parameters
    ----------
    path : Path
        The store.
    metric : Metric
        The primary one.
    port : int
        0 takes a free one; ``server_port`` says which.
    every : float
        Seconds between two looks of the page.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Host", "").rpartition(":")[0] not in (HOST, "localhost"):
                self.send_error(403, "only this machine may look")
                return
            if self.path != "/":
                self.send_error(404)
                return
            text = page(path, metric, every=every).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(text)))
            self.send_header("Content-Security-Policy", _POLICY)
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing of single requests."""

    return ThreadingHTTPServer((HOST, port), Handler)


def serve(path: Path, metric: Metric, *, port: int, every: float, say: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C, which ends the watching, not the run."""
    with server(path, metric, port=port, every=every) as made:
        say(f"http://{HOST}:{made.server_port}/ (Ctrl-C ends the watching, not the run)")
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(0.5)
        except KeyboardInterrupt:
            pass
        finally:
            made.shutdown()
