"""What people see in a browser: templates, their data, and the files beside them."""

from gateway.pages.rendering import Pages

__all__ = ["Pages"]
