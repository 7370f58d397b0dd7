"""`holdfast demo team` as a user runs it: four agents, real tools, one answer that a person releases."""

import json
import os
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path

from tests.cli.test_dev_once import ANY_PORT, HOLDFAST, PATIENCE_SECONDS, REPOSITORY


def test_a_team_answers_about_the_sample_shop_within_one_budget(tmp_path: Path) -> None:
    for name in ("config", "samples"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    ran = subprocess.run(
        [HOLDFAST, "demo", "team", "--json", *ANY_PORT],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert ran.returncode == 0, ran.stderr + ran.stdout
    document = json.loads(ran.stdout)
    request, delegates = document["request"], document["delegates"]
    assert request["status"] == "completed", request
    assert request["decided_by"] == "reviewer"
    assert [(found["agent"], found["status"]) for found in delegates] == [
        ("sql", "completed"),
        ("web", "completed"),
        ("synthesis", "completed"),
    ]
    text = request["answer"]["text"]
    assert "Trail lamp,battery empty after one night,3" in text, "the SQL agent asked the database"
    assert "Firmware 1.3 mends this." in text, "the web agent read the page"
    spent = sum(Decimal(found["usage"]["cost_usd"]) for found in delegates)
    assert Decimal(request["usage"]["cost_usd"]) > spent > 0, "what the delegates spent is in the team's usage"
    assert request["tainted"], "the team has read what others wrote"


def test_without_the_samples_it_says_where_to_run_it(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    ran = subprocess.run(
        [HOLDFAST, "demo", "team", *ANY_PORT], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert ran.returncode == 1
    assert "in a checkout of Holdfast" in ran.stderr
