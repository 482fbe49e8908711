"""YAML that people write: repeated keys are errors, because only the last one would count."""

from __future__ import annotations

from typing import Any

import yaml

from stedfm_hf.runs.errors import UserError


class _UniqueKeys(yaml.SafeLoader):
    """Loader of plain data that refuses a mapping with a repeated key."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping, and refuse a repeated key."""
        # Nodes are checked before `<<` merges others into them: overriding a merged key is allowed.
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                first = lines[key.value]
                raise UserError(f"line {line}: the key {key.value} appears twice (first on line {first}); merge them")
            lines[key.value] = line
        return node


def load_yaml(text: str) -> Any:
    r"""Read plain data from YAML.

    Args:
        text: YAML document.

    Returns:
        Its content: mappings, lists, texts, numbers and None.

    Raises:
        UserError: If it is not valid YAML, or a mapping has a key twice; the message names the lines.

    Example:
        >>> load_yaml("{title: Maps, trials: 4}")
        {'title': 'Maps', 'trials': 4}
        >>> try:
        ...     load_yaml("seed: 1\nseed: 2")
        ... except UserError as error:
        ...     print(error)
        line 2: the key seed appears twice (first on line 1); merge them
    """
    try:
        return yaml.load(text, Loader=_UniqueKeys)
    except UserError:
        raise
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"is not valid YAML ({' '.join(str(error).split())}); correct it there") from error
