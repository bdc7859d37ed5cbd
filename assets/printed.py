"""What `nightloom check` found, as tables with colours.

Belongs here: layout. Does not: what is found (``pipelines.survey``).
"""

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.survey import FileReport, Survey

FILES, EVENTS, DAYS = 40, 12, 14  # lines of each table


def print_survey(found: Survey, console: Console) -> None:
    """Print a survey; the problems last, where people look first."""
    console.print(_files(found))
    console.print(_columns(found))
    for table in (_events(found), _days(found), _items(found)):
        if table.row_count:
            console.print(table)
    if found.unread:
        shown = ", ".join(found.unread[:5]) + (", ..." if len(found.unread) > 5 else "")
        console.print(f"[yellow]{len(found.unread)} files that nothing reads:[/] {escape(shown)}")
    work = ", ".join(f"{n:,} {m}" for m, n in found.to_encode.items() if n)
    time = f", about {max(1, round(found.minutes))} min on two cores without a GPU" if work else ""
    disk = f"{max(1, round(found.disk_mb)):,} MB on disk"
    console.print(f"a first night encodes {work or 'nothing'}{time}; {disk}; a later one what is new")
    for remark in found.remarks:
        console.print(f"[yellow]remark:[/] {escape(remark)}")
    for problem in found.problems:
        console.print(f"[red]problem:[/] {escape(problem)}")
    console.print("[green]a night would run[/]" if not found.problems else f"[red]{len(found.problems)} problem(s)[/]")


def _table(title: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in ("rows", "usable", "share", "weight") else "left")
    return table


def _files(found: Survey) -> Table:
    table = _table("files", ("file", "format", "found", "rows", "usable", "what is wrong"))
    for f in found.files[:FILES]:
        rows = f"{f.rows:,}" if f.looked_at >= f.rows else f"~{f.rows:,}"
        usable = f"{f.usable:.1%}" if f.format else "refused"
        colour = "green" if f.usable > 0.99 else "yellow" if f.usable > 0.5 else "red"
        share, said = f"[{colour}]{usable}[/]", escape(", ".join(f.said))
        table.add_row(escape(f.source), f.format or "-", said, rows, share, escape(_wrong(f)))
    hidden = sum(found.many.values()) - min(FILES, len(found.files))
    if hidden > 0:
        table.add_row(f"... {hidden} more", "", "", "", "", "")
    return table


def _wrong(f: FileReport) -> str:
    lines = [
        f"{n} {reason}, line {at}: {detail}" if at else f"{reason}: {detail}" for n, reason, at, detail in f.reasons
    ]
    lines += f.notes
    lines += [f"lacks {', '.join(f.lacks)}"] if f.lacks else []
    return "\n".join(line[:160] for line in lines)


def _columns(found: Survey) -> Table:
    table = _table("our columns: share of rows that have them", ("kind", "columns"))
    for kind, shares in found.columns.items():
        cells = [f"{c} {'[green]' if s > 0.99 else '[yellow]' if s else '[dim]'}{s:.0%}[/]" for c, s in shares.items()]
        unused = sorted({u for f in found.files if f.kind == kind for u in f.unused})
        rest = f"\n[dim]not read: {escape(', '.join(unused[:20]))}[/]" if unused else ""
        if cells:
            table.add_row(kind, "  ".join(cells) + rest)
    return table


def _events(found: Survey) -> Table:
    table = _table("events", ("event", "share", "weight", ""))
    for name, (share, weight, known) in list(found.events.items())[:EVENTS]:
        note = "" if known else "[yellow]no weight is set for this name[/]"
        table.add_row(escape(name), f"{share:.1%}", f"{weight:g}", note)
    return table


def _days(found: Survey) -> Table:
    table = _table("days of the events looked at", ("day", "share"))
    days = list(found.days.items())
    cut = days if len(days) <= DAYS else [*days[: DAYS // 2], *days[-DAYS // 2 :]]
    for n, (day, share) in enumerate(cut):
        if len(days) > DAYS and n == DAYS // 2:
            table.add_row(f"... {len(days) - DAYS} more", "")
        table.add_row(day, f"{share:.1%}")
    return table


def _items(found: Survey) -> Table:
    table = _table("items", ("", "share"))
    if found.known_items is not None:
        colour = "green" if found.known_items > 0.8 else "red"
        table.add_row("events whose item is in the catalogue", f"[{colour}]{found.known_items:.1%}[/]")
        for how, share in found.spellings.items():
            if share > found.known_items:
                table.add_row(f"  {how}", f"[yellow]{share:.1%}[/]")
    for modality, share in found.modalities.items():
        unheard = "" if modality in found.to_encode or not share else ", [yellow]which no encoder reads[/]"
        table.add_row(f"items with {modality}{unheard}", f"{share:.1%}")
    return table
