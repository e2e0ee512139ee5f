"""The family of a model, by its id."""


def family_of(model_id: str) -> str:
    """Family of a model; a model inherits the levels of its predecessor in the family.

    >>> family_of("lstm-20110905-06b6c857"), family_of("seasonal-naive")
    ('lstm', 'seasonal')
    """
    return model_id.split("-", 1)[0]
