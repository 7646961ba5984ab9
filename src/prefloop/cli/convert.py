"""`prefloop convert`."""

from pathlib import Path
from typing import Any

from prefloop.cli.console import rows, say
from prefloop.data.convert import convert
from prefloop.data.forms import Form
from prefloop.data.source import find_source


def convert_command(data: str, out: Path, to: Form, format_name: str | None) -> dict[str, Any]:
    """Writes a data set in another form, and says what was read and what was left out."""
    done = convert(find_source(data), out, to=to, format=format_name)
    report = done.report
    lines = [f"{report.source}: {report.says}, {rows(report.rows)}"]
    if report.unread:
        lines.append(f"columns that are not read, and not written: {', '.join(report.unread)}")
    if (problems := report.line()) is not None:
        lines.append(problems)
    lines.append(f"{out}: {rows(done.written)} in the form {to}")
    say(lines)
    return {"out": str(out), "to": to, "written": done.written, **report.as_json()}
