"""``python -m deepseek.cli``."""

import sys

from deepseek.cli import main

sys.exit(main())
