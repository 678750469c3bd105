"""Alert packets of surveys (Rubin, ZTF) as stamp sets, in memory or in a repository."""

from ._alert import Alert, AlertError, SkippedAlert
from ._alert_stamps import AlertStamps, iterate_stamps, read_alerts, stack_alerts
from ._estimated_planes import estimate_planes
from ._ingest_alerts import AlertIngest, ingest_alerts
from ._packet_files import iterate_alerts
from ._write_alerts import write_alerts

__all__ = [
    "Alert",
    "AlertError",
    "AlertIngest",
    "AlertStamps",
    "SkippedAlert",
    "estimate_planes",
    "ingest_alerts",
    "iterate_alerts",
    "iterate_stamps",
    "read_alerts",
    "stack_alerts",
    "write_alerts",
]
