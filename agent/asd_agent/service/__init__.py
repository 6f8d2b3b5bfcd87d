from asd_agent import log as log  # before anything else that needs structlog
