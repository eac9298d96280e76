"""Tests of the built images; collected only where RFT_IMAGES names the folder that `make images` wrote."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("RFT_IMAGES") else ["test_built_images.py"]
