"""`python -m asd_train`: the same as `asd-train`, for accelerate launch and torchrun."""

import sys

from asd_train.cli import main

sys.exit(main())
