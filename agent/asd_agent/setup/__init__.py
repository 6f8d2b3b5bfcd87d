"""From answers to a running agent: the configuration, the unit, the credential, a level meter, a broker test.

`asd-agent init` and the local page use the same functions.
"""

from asd_agent.setup.answers import Answers as Answers
from asd_agent.setup.answers import configuration as configuration
from asd_agent.setup.install import Places as Places
from asd_agent.setup.install import install as install
