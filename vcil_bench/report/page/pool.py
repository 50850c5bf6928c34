"""Pool of values that many records share: each is stored once on the page and referred to by number."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Pool:
    """Values that several runs share, each stored once."""

    values: list[Any] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)

    def add(self, value: Any) -> int:
        """Return the number under which the page finds a value."""
        text = json.dumps(value, sort_keys=True)
        if text not in self.places:
            self.places[text] = len(self.values)
            self.values.append(value)
        return self.places[text]

    def cost(self, value: Any) -> int:
        """Return how many characters of the page a value would take: none where it is there already."""
        text = json.dumps(value, sort_keys=True)
        return 0 if text in self.places else len(text)
