"""What the shorter runs choose of the tests, and the record that they choose by."""

import json

from parity_tests.budget import HERE, LEAST, LONGEST, RECORDED, row, sample, times

NAMES = [f"test_x.py::test_y[{i}]" for i in range(40)]


def test_a_sample_is_as_long_as_its_budget():
    assert len(sample(NAMES, 0.25, 2)) == 8
    assert set(sample(NAMES, 0.5, 2)) < set(sample(NAMES, 0.25, 2)) < set(NAMES)
    assert sample(NAMES[::-1], 0.25, 2) == sample(NAMES, 0.25, 2)


def test_tests_of_one_table_draw_the_same_rows():
    others = [name.replace("test_y", "test_z") for name in NAMES]
    drawn = (sample(names, 0.25, 2, by=row) for names in (NAMES, others))
    assert len({tuple(map(row, names)) for names in drawn}) == 1


def test_there_is_one_at_least_unless_it_takes_far_too_long():
    assert len(sample(NAMES, 2.0 * LONGEST, 2)) == 1
    assert sample(NAMES, 2.1 * LONGEST, 2) == []


def test_what_is_not_recorded_runs_whole():
    assert sorted(sample(NAMES, 0.0, 2)) == sorted(NAMES)


def test_a_file_takes_what_its_cases_do():
    names = ["parity_tests/a.py::test_x[1]", "parity_tests/a.py::test_x[2]", "parity_tests/b.py::y"]
    assert times(names, {"a.py::test_x": 2.0}) == {"a.py": 4.0, "b.py": LEAST / 10}


def test_the_record_is_of_tests_that_there_are():
    texts = {}
    for test in json.loads(RECORDED.read_text(encoding="utf-8")):
        file, name = test.split("::")
        text = texts.setdefault(file, (HERE / file).read_text(encoding="utf-8"))
        assert f"def {name}(" in text, test
