import pytest

from seqhash import sizes


@pytest.mark.parametrize(
    ("value", "power", "multiple", "eighths"),
    [
        (0, 1, 0, 0),
        (1, 1, 3, 1),
        (3, 4, 3, 3),
        (16, 16, 18, 16),
        (17, 32, 18, 18),
        (33, 64, 33, 36),
    ],
)
def test_sizes_by_hand(value, power, multiple, eighths):
    assert sizes.power_of_two(value) == power
    assert sizes.round_up(value, 3) == multiple
    assert sizes.by_eighths(value) == eighths


def test_few_sizes_serve_all_values_and_waste_an_eighth():
    values = range(16, 2**14)
    found = [sizes.by_eighths(value) for value in values]
    assert all(value <= size <= 1.125 * value for value, size in zip(values, found, strict=True))
    assert len(set(found)) == 8 * 10 + 1
    assert sizes.by_eighths(100, multiple=64) == 128
