from prefloop.records import seed_for
from prefloop.sampling import draws_for


def test_a_seed_names_the_place_in_the_recipe() -> None:
    draws = draws_for("p0", (5, 6), num_samples=3, recipe_seed=7, step="samples", round_number=2, block=1)
    assert [draw.index for draw in draws] == [0, 1, 2]
    assert [draw.seed for draw in draws] == [seed_for(7, "samples", 2, 1, "p0", index) for index in range(3)]
    assert {draw.prompt_ids for draw in draws} == {(5, 6)}
