"""Whether a store is sound, and whether everything that is under way in it has something that will end its wait.

`durably doctor` is the command; `examine` is the same from code, and `find_stuck` the part that any store can be asked.
"""

from durably.doctor.doctor import examine as examine
from durably.doctor.findings import Finding as Finding
from durably.doctor.findings import Report as Report
from durably.doctor.findings import Severity as Severity
from durably.doctor.stuck import find_stuck as find_stuck

__all__ = ["Finding", "Report", "Severity", "examine", "find_stuck"]
