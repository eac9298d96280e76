"""The price catalogue on disk, read again when it changes (a ConfigMap volume is swapped by the kubelet).

Invariant: a file that cannot be read keeps the last good prices; a run is never priced from half a file.
"""

from __future__ import annotations

import logging
from pathlib import Path

from rft_operator.domain.prices import PriceCatalogue
from rft_operator.errors import PriceCatalogueError
from rft_operator.metrics import Metrics

log = logging.getLogger(__name__)


class PriceFile:
    """Holds the current catalogue."""

    def __init__(self, path: Path | None, metrics: Metrics) -> None:
        self._path = path
        self._metrics = metrics
        self._text: str | None = None
        self._lost = False
        self.catalogue = PriceCatalogue()

    def reload(self) -> bool:
        """Read the file if it changed; return whether the catalogue is another now."""
        if self._path is None:
            return False
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            if not self._lost:  # looked at every few seconds: it is told once
                log.warning("cannot read the price catalogue", extra={"path": str(self._path), "error": str(error)})
            self._lost, self._text = True, None
            self._metrics.price_problems.set(1)
            return False
        if text == self._text:
            return False
        self._lost, self._text = False, text
        try:
            catalogue, problems = PriceCatalogue.parse(text)
        except PriceCatalogueError as error:
            self._metrics.price_problems.set(1)
            log.warning("the price catalogue cannot be used; the former one holds", extra={"error": str(error)})
            return False
        self._metrics.price_problems.set(len(problems))
        for problem in problems:
            log.error("a part of the price catalogue cannot be used", extra={"problem": problem})
        changed = catalogue != self.catalogue
        self.catalogue = catalogue
        log.info("read the price catalogue", extra={"entries": len(catalogue.entries)})
        return changed
