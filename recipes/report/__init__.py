"""The page that a run ends with."""

from recipes.report.contents import Contents
from recipes.report.page import write_report

__all__ = ["Contents", "write_report"]
