"""`holdfast temporal`: the server alone, ended in order."""

import json
import signal
import subprocess
import sys
from pathlib import Path


def test_the_server_alone_says_where_it_is_and_ends_with_zero(tmp_path: Path) -> None:
    words = ["temporal", "--port", "0", "--ui-port", "0", "--data", str(tmp_path), "--json"]
    code = "import sys; from cli.main import run; sys.argv[0] = 'holdfast'; run()"
    with subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("}"):
                break
        told = json.loads("".join(lines))
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert told["address"].startswith("127.0.0.1:")
    assert told["ui"].startswith("http://127.0.0.1:")
    assert (tmp_path / "temporal.db").is_file()
