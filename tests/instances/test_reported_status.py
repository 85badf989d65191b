"""The database condition and the property agree on what a reported status is."""

from __future__ import annotations

from itertools import product

import pytest

from instances import lifecycle
from instances.models import Instance
from instances.reported_status import with_reported_status
from instances.states import DesiredState, Status

pytestmark = pytest.mark.django_db


def test_every_row_is_selected_by_its_reported_status_and_by_no_other() -> None:
    for number, (status, desired, seen) in enumerate(product(Status, DesiredState, (0, 1))):
        name = f"i{number}"
        lifecycle.create(name, {"backend_type": "llama_cpp"}, cause="test")
        Instance.objects.filter(name=name).update(
            status=status, desired_state=desired, generation=1, observed_generation=seen
        )
    for status in Status:
        selected = set(Instance.objects.filter(with_reported_status(status)))
        expected = {row for row in Instance.objects.all() if row.reported_status is status}
        assert selected == expected, status
