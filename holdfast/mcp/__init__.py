"""Tools from servers of the Model Context Protocol: found, bounded, pinned and called.

A server is somebody else's program. What it says of itself and what it returns is data from outside; how long it may
take, how much it may send and what it may see of this process is decided here. Importing this package is cheap: the
protocol's own package is loaded with the first connection.
"""

from holdfast.mcp.listing import SERVER_NAME, check_server_name
from holdfast.mcp.results import McpResult
from holdfast.mcp.servers import McpServers
from holdfast.mcp.settings import McpServerSettings

__all__ = ["SERVER_NAME", "McpResult", "McpServerSettings", "McpServers", "check_server_name"]
