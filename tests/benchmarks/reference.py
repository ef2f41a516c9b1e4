"""The models of the study scripts, which are no package."""

import sys
from pathlib import Path

STUDIES = Path(__file__).parents[2] / "studies"
sys.path.append(str(STUDIES))

import mnist as mnist  # noqa: E402  found only now
import mnist_cnn as mnist_cnn  # noqa: E402
from mnist import build_model as build_model  # noqa: E402
