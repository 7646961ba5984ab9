from prefloop.records import seed_for
from prefloop.sampling import Draw, draws_for, waves


def draws_of(*counts: int) -> list[Draw]:
    return [
        Draw(prompt_id=f"p{number}", index=index, seed=0, prompt_ids=(number,))
        for number, count in enumerate(counts)
        for index in range(count)
    ]


def test_a_seed_names_the_place_in_the_recipe() -> None:
    draws = draws_for("p0", (5, 6), num_samples=3, recipe_seed=7, step="samples", round_number=2, block=1)
    assert [draw.index for draw in draws] == [0, 1, 2]
    assert [draw.seed for draw in draws] == [seed_for(7, "samples", 2, 1, "p0", index) for index in range(3)]
    assert {draw.prompt_ids for draw in draws} == {(5, 6)}


def test_a_wave_holds_whole_prompts_up_to_its_size() -> None:
    draws = draws_of(4, 4, 4, 1)
    sizes = [[len([d for d in wave if d.prompt_id == f"p{n}"]) for n in range(4)] for wave in waves(draws, 9)]
    assert sizes == [[4, 4, 0, 0], [0, 0, 4, 1]]


def test_waves_lose_and_repeat_nothing() -> None:
    draws = draws_of(3, 1, 5, 2, 2)
    assert sorted((d for wave in waves(draws, 4) for d in wave), key=draws.index) == draws


def test_a_prompt_with_more_draws_than_the_size_has_its_own_wave() -> None:
    assert [len(wave) for wave in waves(draws_of(1, 6, 1), 4)] == [1, 6, 1]


def test_draws_of_a_prompt_that_are_apart_come_together() -> None:
    first, second = draws_of(2, 2)[:2], draws_of(2, 2)[2:]
    mixed = [first[0], second[0], first[1], second[1]]
    assert list(waves(mixed, 2)) == [tuple(first), tuple(second)]


def test_no_draws_make_no_wave() -> None:
    assert list(waves([], 4)) == []
