"""Which tokens count as sent while all streams were open."""

from bench.token_latency import Token, while_all_are_open


def test_tokens_before_the_last_beginning_and_after_the_first_end_do_not_count() -> None:
    early = [Token(0, 9.0), Token(10, 0.1), Token(20, 0.2)]
    late = [Token(10, 0.3), Token(20, 0.4), Token(30, 9.0)]
    assert sorted(while_all_are_open([early, late])) == [0.1, 0.2, 0.3, 0.4]


def test_without_a_moment_at_which_all_are_open_no_token_counts() -> None:
    assert while_all_are_open([[Token(0, 1.0)], [Token(10, 1.0)]]) == []
    assert while_all_are_open([[Token(0, 1.0)], []]) == []
