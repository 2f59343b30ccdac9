"""``dalsegno demo``: the tour."""

from __future__ import annotations

from dalsegno.cli.options import Output
from dalsegno.cli.reporting import OutputFormat, Report
from dalsegno.errors import UsageError

_BROUGHT_BY_THE_EXTRA = ("numpy", "sklearn")


def demo(output: Output = OutputFormat.TEXT) -> None:
    """Take the tour: record a pipeline and a flow, and replay both, on the embedded engine."""
    from concurrent.futures import ThreadPoolExecutor

    from dalsegno.cli.prose import Page
    from dalsegno.cli.session import Session, without_address

    _require_the_extra()
    report = Report(output)
    if without_address():
        report.remark("The tour runs on the embedded engine; DALSEGNO_ADDRESS is not looked at.")
    page = Page(report)
    page.say(
        "Dal Segno records what a run of your code did, and replays it from a sign that you choose: what comes "
        "before it is kept, you change what you like, and only what is affected runs again."
    )
    with Session() as session:
        with page.busy("starting the embedded engine, and loading scikit-learn"), ThreadPoolExecutor(1) as beside:
            opened = beside.submit(session.open)
            from dalsegno.demo.tour import take_the_tour

            opened.result()
        report.document(take_the_tour(page, session))


def _require_the_extra() -> None:
    from importlib.util import find_spec

    missing = [name for name in _BROUGHT_BY_THE_EXTRA if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the tour learns from the digits that scikit-learn brings along, and {' and '.join(missing)} cannot be "
            "imported; install what it needs: pip install 'dalsegno[demo]'",
            reason="NOT_INSTALLED",
            fields={"extra": "demo"},
        )
