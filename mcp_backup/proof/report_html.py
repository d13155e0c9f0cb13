"""The report in HTML: one file, no script, nothing from elsewhere; light and dark, and on paper."""

from collections.abc import Iterator, Sequence
from html import escape
from string import Template

from mcp_backup.drill_facts import DrilledSource, DrillReport
from mcp_backup.proof.objectives import METHOD, Recovery
from mcp_backup.proof.report_style import PAGE, STYLE
from mcp_backup.proof.report_wording import (
    Facts,
    Tone,
    duration,
    hours,
    size,
    state,
    verdict,
    when,
    worst,
)
from mcp_backup.proof.walks import WalkOnRecord

_PHASES = ("open", "find", "restore", "examine", "checks", "place")


def page(facts: Facts) -> str:
    """Return the report."""
    said, recovery = verdict(facts), facts.recovery
    return Template(PAGE).substitute(
        style=STYLE,
        tone=said.tone,
        title=escape(said.title),
        text=escape(said.text),
        host=escape(facts.hostname),
        repository=escape(facts.repository),
        made=when(facts.made),
        program=escape(facts.program),
        objectives=_objectives(facts),
        waterfall=_waterfall(recovery),
        sources="".join(_sources(recovery)),
        drill=_drill(facts.last) if facts.last else "",
        walks=_walks(facts.walks),
        record=_record(facts),
        method=escape(METHOD),
    )


def _objectives(facts: Facts) -> str:
    recovery, loss = facts.recovery, worst(facts)
    seconds = recovery.seconds
    taken = None if seconds is None else seconds / 3600
    return _gauge(
        "Data that would be lost",
        "RPO, worst on record",
        hours(loss),
        loss,
        recovery.target_rpo_hours,
    ) + _gauge(
        "Time to get everything back",
        "RTO, whole system",
        duration(seconds),
        taken,
        recovery.target_rto_hours,
    )


def _gauge(title: str, small: str, shown: str, value: float | None, target: float) -> str:
    tone: Tone = "unknown" if value is None else "good" if value <= target else "bad"
    share = 0.0 if value is None else min(100.0, max(1.0, 100 * value / target))
    return (
        f'<section class="card {tone}"><h2>{title}</h2><p class="small">{small}</p>'
        f'<p class="big">{shown}</p><div class="bar"><i style="width:{share:.1f}%"></i></div>'
        f'<p class="small">target {hours(target)}</p></section>'
    )


def _waterfall(recovery: Recovery) -> str:
    """Draw how a recovery of everything goes, one source after the other."""
    steps = [("open and find", recovery.opening_seconds)]
    steps += [(each.key, each.seconds) for each in recovery.sources if each.seconds is not None]
    total = sum(seconds for _, seconds in steps) or 1.0
    rows, begun = [], 0.0
    for name, seconds in steps:
        left, width = 100 * begun / total, max(0.4, 100 * seconds / total)
        begun += seconds
        rows.append(
            f'<div class="row"><span>{escape(name)}</span><div class="lane">'
            f'<i style="margin-left:{min(left, 99.6):.2f}%;width:{width:.2f}%"></i></div>'
            f"<b>{duration(seconds)}</b></div>"
        )
    if recovery.unplaced:
        names = escape(", ".join(recovery.unplaced))
        rows.append(f'<p class="small">Without putting in place, which needs a server: {names}</p>')
    missing = [each.key for each in recovery.sources if each.seconds is None]
    if missing:
        rows.append(f'<p class="small">Without a time: {escape(", ".join(missing))}</p>')
    return "".join(rows)


def _sources(recovery: Recovery) -> Iterator[str]:
    for each in recovery.sources:
        tone, word = state(each)
        last = each.last
        late = each.rpo_hours is None or each.rpo_hours > recovery.target_rpo_hours
        yield _row(
            f"<b>{escape(each.source)}</b><br><small>{escape(each.component)}</small>",
            f'<span class="chip {tone}">{word}</span>',
            duration(each.seconds),
            size(last.size) if last else "unknown",
            f'<span class="{"late" if late else ""}">{hours(each.rpo_hours)}</span>',
            hours(each.worst_rpo_hours),
            when(each.drilled),
        )


def _drill(drill: DrillReport) -> str:
    tone = {"proven": "good", "failed": "bad"}.get(drill.outcome, "unknown")
    about = f", scenario {escape(drill.scenario)}" if drill.scenario else ""
    head = (
        f'<h2>Last drill <span class="chip {tone}">{drill.outcome}</span></h2>'
        f'<p class="small">{escape(drill.drill_id)}, {when(drill.started)}, '
        f"{duration(drill.duration_seconds)}{about}</p>"
    )
    findings = "".join(
        f"<li><b>{escape(each.source)}</b> <code>{escape(each.code)}</code> "
        f"{escape(each.subject)}: {escape(each.message)}</li>"
        for each in drill.every_finding()
    )
    legend = "".join(f'<span><i class="{name}"></i>{name}</span>' for name in _PHASES[2:])
    longest = max((each.seconds for each in drill.results), default=0.0) or 1.0
    rows = "".join(_result(each, longest) for each in drill.results)
    return (
        f'<section class="card wide">{head}'
        + (f'<ul class="findings">{findings}</ul>' if findings else "")
        + f'<p class="legend">{legend}</p><table>{rows}</table></section>'
    )


def _result(each: DrilledSource, longest: float) -> str:
    tone = {"proven": "good", "failed": "bad"}.get(each.outcome, "unknown")
    bars = "".join(
        f'<i class="{escape(phase.name)}" style="width:{100 * phase.seconds / longest:.2f}%" '
        f'title="{escape(phase.name)} {duration(phase.seconds)}"></i>'
        for phase in each.phases
    )
    checks = _checks(each.checks)
    return _row(
        f"<b>{escape(each.source)}</b><br><small>{escape(each.pick)}, {escape(each.backup_id)}"
        "</small>",
        f'<span class="chip {tone}">{each.outcome}</span>',
        f'<div class="stack">{bars}</div>',
        f"{duration(each.seconds)}<br><small>{size(each.size)}</small>",
        f"<small>{'; '.join(filter(None, (checks, escape(each.reason))))}</small>",
    )


def _checks(number: int) -> str:
    if not number:
        return ""
    return "1 check passed" if number == 1 else f"{number} checks passed"


def _walks(walks: Sequence[WalkOnRecord]) -> str:
    if not walks:
        return ""
    rows = "".join(
        _row(
            f"<b>{escape(each.page)}</b>",
            escape(each.mode),
            when(each.started),
            f"{each.steps} steps",
            duration(each.seconds),
            f'<span class="chip {"good" if each.complete else "bad"}">'
            f"{'as printed' if each.complete else 'not to its end'}</span>",
        )
        for each in reversed(walks[-8:])
    )
    return f'<section class="card wide"><h2>Runbook, walked</h2><table>{rows}</table></section>'


def _record(facts: Facts) -> str:
    problems = facts.evidence.problems
    said = "".join(f"<li>{escape(each)}</li>" for each in problems)
    head = (
        f'<ul class="findings">{said}</ul>'
        if problems
        else '<p class="small">The chain holds: no record was changed, left out or moved.</p>'
    )
    rows = "".join(
        _row(
            str(record.number),
            when(record.drill.started),
            record.drill.outcome,
            f"{len(record.drill.results)} copies",
            f"{len(list(record.drill.every_finding()))} findings",
            f"<code>{record.seal[:16]}</code>",
        )
        for record in reversed(facts.evidence.records[-12:])
    )
    return f"{head}<table>{rows}</table>"


def _row(*cells: str) -> str:
    return f"<tr>{_cells(cells)}</tr>"


def _cells(cells: Sequence[str]) -> str:
    return "".join(f"<td>{cell}</td>" for cell in cells)
