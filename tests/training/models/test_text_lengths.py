from training.models.text_lengths import TEXT_LENGTHS, padded_length


def test_text_is_padded_to_few_lengths_that_hold_it() -> None:
    found = {longest: padded_length(longest) for longest in range(1, 1000)}
    assert all(length >= longest for longest, length in found.items())
    assert {padded_length(longest) for longest in range(1, 121)} == {16, 32, 48, 72, 96, 120}
    assert {padded_length(longest) for longest in range(1, 305)} == set(TEXT_LENGTHS)


def test_no_length_is_one_that_a_kernel_stumbles_over() -> None:
    for length in {padded_length(longest) for longest in range(1, 1000)}:
        assert length % 8 == 0
        assert length % 128 != 64
