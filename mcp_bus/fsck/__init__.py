"""fsck: what is wrong with a bus on disk, what it means, and putting it right.

>>> from mcp_bus.fsck import check
>>> check(Path("/tmp/my-bus")).is_clean             # doctest: +SKIP
True
"""

from mcp_bus.fsck.check import Report, check
from mcp_bus.fsck.kinds import KINDS, Anomaly, Kind, Level
from mcp_bus.fsck.mend import Means, repair

__all__ = ["KINDS", "Anomaly", "Kind", "Level", "Means", "Report", "check", "repair"]
