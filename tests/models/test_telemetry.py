"""A self-hosted server tells nobody that it runs."""

import subprocess
import sys

LOOK = """
import penstock.models.compiled, openvino.tools.ovc as ovc
print(type(ovc.telemetry).__module__)
"""


def test_openvino_reports_nothing() -> None:
    said = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
