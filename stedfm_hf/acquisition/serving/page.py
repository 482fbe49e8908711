"""Page of the routes of a server, made of its OpenAPI description; it loads nothing from other hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

_TEMPLATE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 50em; padding: 0 1em; }
table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid #ccc; padding: .3em .6em .3em 0; text-align: left; vertical-align: top; }
</style>
<h1>{{ title }}</h1>
<p>{{ about }} The description for programs is <a href="openapi.json">openapi.json</a>.</p>
{% for path, methods in paths.items() %}{% for method, route in methods.items() %}
<h2><code>{{ method | upper }} {{ path }}</code></h2>
<p>{{ route.description }}</p>
{% if route.parameters %}
<table>
<tr><th>parameter</th><th>in</th><th>meaning</th></tr>
{% for each in route.parameters %}
<tr><td><code>{{ each.name }}</code></td><td>{{ each["in"] }}</td><td>{{ each.description }}</td></tr>
{% endfor %}
</table>
{% endif %}
{% endfor %}{% endfor %}
"""


def routes_page(openapi: Mapping[str, Any]) -> str:
    """Return the page as HTML.

    Args:
        openapi: OpenAPI description of the server.
    """
    info = openapi["info"]
    template = jinja2.Environment(autoescape=True).from_string(_TEMPLATE)
    return template.render(title=info["title"], about=info.get("description", ""), paths=openapi["paths"])
