"""Whatever the OpenAPI document allows, and what it does not: no answer is the server's own failure."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from serving import QUESTION, ask_for, served_here

ENDLESS = "/v1/studies/{study}/events"
"""A stream, which ends with its study."""


@pytest.mark.parametrize("examples", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_nothing_that_may_be_asked_makes_the_server_fail(tmp_path: Path, examples: int) -> None:
    """Half of the calls name a study, a trial and a lease that are there."""
    asked = 0
    with served_here(f"sqlite:///{tmp_path}/studies.db") as service:
        url = str(service.base_url)
        assert service.put("/v1/studies/there", json=QUESTION | {"lease_seconds": 600}).status_code == 201
        lease = ask_for(service, "/v1/studies/there", "one")["lease"]
        document = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operations = [found.ok() for found in document.get_all_operations()]
        for operation in operations:
            if operation.path == ENDLESS:
                continue
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

                @seed(0)
                @settings(
                    max_examples=examples,
                    database=None,
                    deadline=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                @given(case=operation.as_strategy(generation_mode=mode))
                def call(case: Any) -> None:
                    nonlocal asked
                    asked += 1
                    if asked % 2 and case.path_parameters:
                        case.path_parameters = {**case.path_parameters, "study": "there"}
                        case.path_parameters |= {"trial": 0} if "trial" in case.path_parameters else {}
                        case.headers = {**(case.headers or {}), "If-Match": lease}
                    answer = case.call(base_url=url, timeout=30)
                    assert answer.status_code < 500, case.as_curl_command()

                # Of what has no parameters nothing can be wrong.
                with suppress(Unsatisfiable):
                    call()
    assert len(operations) == 19 and asked > 30 * examples
