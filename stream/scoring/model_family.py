"""The kind of a model, by its id."""


def family_of(model_id: str) -> str:
    """Kind of a model, whose levels its successors inherit.

    >>> family_of("lstm-20110905-06b6c857"), family_of("seasonal-naive")
    ('lstm', 'seasonal')
    """
    return model_id.split("-", 1)[0]
