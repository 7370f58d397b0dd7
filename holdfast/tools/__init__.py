"""Tools that models call: what they are and where they come from.

The steps around a call are in `holdfast.tools.equipment`, which is not imported here: it needs the ledger, and whoever
only reads configuration does not.
"""

from holdfast.tools.context import ToolContext
from holdfast.tools.function import FunctionTool, tool
from holdfast.tools.tool import PolicySettings, Tool
from holdfast.tools.toolset import Toolset, load_toolset

__all__ = [
    "FunctionTool",
    "PolicySettings",
    "Tool",
    "ToolContext",
    "Toolset",
    "load_toolset",
    "tool",
]
