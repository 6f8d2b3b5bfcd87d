"""Configuration: frozen typed structs, read from YAML; a mistake names the file and the key."""

from asd_agent.config.load import load as load
from asd_agent.config.load import locate as locate
from asd_agent.config.load import parse as parse
from asd_agent.config.model import *  # noqa: F403
