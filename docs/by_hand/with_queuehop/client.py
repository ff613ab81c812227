import sys

import telemetry
from telemetry.requests import traced_session

telemetry.setup("client")
traced_session().get(sys.argv[1]).raise_for_status()
