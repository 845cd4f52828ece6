"""The page of a certificate, for people: self-contained, and the same bytes for the same certificate."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from butter_etl.errors import agreeing, counted
from butter_etl.upkeep.certificates import Certificate
from butter_etl.upkeep.likening import LIKENESSES, Compared
from butter_etl.upkeep.replaying import OUTCOMES, Replayed

_STYLE: Final = """
:root { color-scheme: light dark; --line: light-dark(#d0d7de, #444c56); --good: light-dark(#1a7f37, #57ab5a);
  --bad: light-dark(#cf222e, #f47067); --faint: light-dark(#57606a, #909dab); --back: light-dark(#ffffff, #1c2128); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  background: var(--back); }
h1 { font-size: 1.5rem; margin-bottom: 0.3rem; } h2 { font-size: 1.1rem; margin: 1.8rem 0 0.4rem; }
.verdict { border-left: 0.4rem solid; padding: 0.5rem 0.9rem; margin: 1rem 0; font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); }
table { border-collapse: collapse; width: 100%; } th { text-align: left; color: var(--faint); font-weight: 500; }
th, td { border-bottom: 1px solid var(--line); padding: 0.25rem 0.8rem 0.25rem 0; vertical-align: top; }
code { font: 12px ui-monospace, monospace; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } summary { cursor: pointer; color: var(--faint); } .faint { color: var(--faint); }
"""


def page_bytes(certificate: Certificate) -> bytes:
    """Return the page of a certificate, as UTF-8."""
    body = "\n".join(_parts(certificate))
    title = f"Audit of {certificate.data.study}"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{_text(title)}</title>'
    page = f'<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>{body}</body></html>'
    return f"<!doctype html>\n{page}\n".encode()


def _parts(one: Certificate) -> Iterator[str]:
    data, drawn = one.data, one.drawn
    yield f"<h1>Certificate of an audit: {_text(data.study)}</h1>"
    yield f'<div class="faint">{_text(one.began)} to {_text(one.ended)}</div>'
    yield _verdict(one)
    yield "<h2>What was drawn</h2>" + _facts(
        (
            ("from", f"{counted(data.rows, 'run')} of {'a store' if data.kind == 'store' else 'an export'}"),
            ("sample", f"{drawn.sample}: {counted(len(drawn.run_ids), 'run')}"),
            ("seed", str(drawn.seed)),
            ("rule", drawn.rule),
        )
    )
    meanings = {**OUTCOMES, **LIKENESSES}
    rows = [(name, number, meanings[name]) for name, number in one.counts.items()]
    yield "<h2>What was found</h2>" + _table(("outcome", "runs", "what it means"), rows)
    if one.faults:
        yield "<h2>Faults</h2>" + _runs(one.faults)
    yield f"<h2>Each run</h2><details><summary>{counted(len(one.runs), 'run')}</summary>{_runs(one.runs)}</details>"
    yield from _method(one)
    yield "<h2>What it was done with</h2>" + _facts((name, str(value)) for name, value in one.software.items())
    yield "<h2>What it speaks of</h2>" + _facts(
        (
            ("SHA-256 of the manifest", data.manifest_sha256 or "none: a store has no manifest"),
            ("SHA-256 of the names of all runs", data.names_sha256),
        )
    )
    files = [(file.path, file.bytes, file.sha256) for file in data.files]
    table = _table(("file", "bytes", "SHA-256"), files, code=(0, 2))
    yield f"<details><summary>{counted(len(files), 'file')} that the runs are in</summary>{table}</details>"


def _verdict(one: Certificate) -> str:
    faults, runs = len(one.faults), counted(len(one.runs), "run")
    if one.is_sound:
        return f'<div class="verdict good">Nothing is wrong with any of {runs} that {_was(len(one.runs))} drawn.</div>'
    return (
        f'<div class="verdict bad">Of {runs} that {_was(len(one.runs))} drawn, {faults:,} {_is(faults)} at fault.</div>'
    )


def _was(number: int) -> str:
    return agreeing(number, "was", "were")


def _is(number: int) -> str:
    return agreeing(number, "is", "are")


def _method(one: Certificate) -> Iterator[str]:
    """Yield how the runs were compared: ours by their bits, others by their ranks."""
    yield "<h2>How</h2>"
    if one.replayed:
        yield (
            "<p>Runs of this package were trained again from nothing but their rows. Where a row's environment is that "
            "of the machine, bits have to be equal; elsewhere runs have to be the same to rounding.</p>"
        )
    if one.method is not None:
        method = one.method
        yield f"<p>{_text(method.statement)}</p>" + _facts(
            (
                ("histories", ", ".join(method.histories)),
                ("repetitions", f"{method.repetitions:,} of each experiment"),
                ("level", f"{method.level:g}, corrected by {method.correction}"),
                ("least p-value of a rank", f"{method.least_p:.2g}"),
            )
        )
        yield "<ul>" + "".join(f"<li>{_text(source)}</li>" for source in method.sources) + "</ul>"


def _runs(runs: Iterable[Replayed | Compared]) -> str:
    rows = [(one.run_id, one.outcome, one.experiment, _said(one)) for one in runs]
    return _table(("run", "outcome", "experiment", "what is so"), rows, code=(0,))


def _said(one: Replayed | Compared) -> str:
    """Return what is so of a run, in a line."""
    if isinstance(one, Compared) and one.p_value is not None:
        return f"{one.detail}; p = {one.p_value:.2g}, corrected {one.corrected:.2g}"
    if isinstance(one, Replayed) and not one.detail:
        return "as was promised" if one.is_promised else f"not promised ({one.circumstances[0]})"
    return one.detail


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return _table((), facts, code=())


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], code: Sequence[int] = ()) -> str:
    """Return a table; columns of ``code`` are set in monospace, numbers have commas."""
    lines = ["<tr>" + "".join(f"<th>{_text(name)}</th>" for name in head) + "</tr>"] if head else []
    for row in rows:
        cells = (_cell(value, place in code, place == 0 and not head) for place, value in enumerate(row))
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _cell(value: object, is_code: bool, is_name: bool) -> str:
    if isinstance(value, int):
        return f"<td>{value:,}</td>"
    text = _text(str(value))
    if is_name:
        return f"<th>{text}</th>"
    return f"<td><code>{text}</code></td>" if is_code else f"<td>{text}</td>"


def _text(value: str) -> str:
    return html.escape(value)
