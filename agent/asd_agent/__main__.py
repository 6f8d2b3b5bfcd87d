import sys

from asd_agent.cli import main

sys.exit(main())
