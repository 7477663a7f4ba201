"""What every declarable record shares, whatever room it stands in."""

#: Set as ``__pydantic_config__`` on the frozen dataclasses that a suite file can name: a misspelt key is an
#: error rather than ignored, and so is a number that is not finite.
FORBID_EXTRA = {"extra": "forbid", "allow_inf_nan": False}
