"""The faults that a benchmark injects are still faults of the code as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from _faults import FAULTS, Fault

_ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.path}: {fault.right[:40]}")
def test_a_fault_can_be_injected_and_its_tests_exist(fault: Fault) -> None:
    text = (_ROOT / fault.path).read_text()
    assert text.count(fault.right) == 1, "let benchmarks/_faults.py follow the code"
    assert fault.wrong != fault.right and fault.tests
    for test in fault.tests:
        assert (_ROOT / "tests" / test).is_file(), test
