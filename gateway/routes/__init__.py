"""The gateway's addresses, one module a resource."""
