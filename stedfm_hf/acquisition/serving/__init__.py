"""Serve finders over HTTP, next to the microscope."""
