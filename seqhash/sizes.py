"""Sizes that few compiled programs serve: what is padded to one of them shares a program."""


def power_of_two(value: int) -> int:
    """The smallest power of two that is not less than a value of at least 1; 1 for 0."""
    return 1 << max(0, value - 1).bit_length()


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple that is not less."""
    return -(-value // multiple) * multiple


def by_eighths(value: int, *, multiple: int = 1) -> int:
    """The smallest of eight sizes from one power of two to the next that is not less: an eighth
    more at most, but for what ``multiple``, a power of two that divides it, costs.
    """
    return round_up(value, max(multiple, power_of_two(value) // 16))
