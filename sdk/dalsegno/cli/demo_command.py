"""``dalsegno demo``: the tour."""

from __future__ import annotations

from dalsegno.cli.options import Output
from dalsegno.cli.reporting import OutputFormat, Report
from dalsegno.errors import UsageError

_BROUGHT_BY_THE_EXTRA = frozenset({"numpy", "scipy", "sklearn"})


def demo(output: Output = OutputFormat.TEXT) -> None:
    """Take the tour: record a pipeline and a flow, and replay both, on the embedded engine."""
    from dalsegno.cli.session import without_address

    report = Report(output)
    if without_address():
        report.remark("The tour runs on the embedded engine; DALSEGNO_ADDRESS is not looked at.")
    try:
        from dalsegno.demo.tour import take_the_tour
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _BROUGHT_BY_THE_EXTRA:
            raise
        raise UsageError(
            f"the tour learns from the digits that scikit-learn brings along, and {error.name} is not installed; "
            "install both: pip install 'dalsegno[demo]'",
            reason="NOT_INSTALLED",
            fields={"extra": "demo"},
        ) from None
    report.document(take_the_tour(report))
