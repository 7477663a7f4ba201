"""The root of all errors that a user can mend: the message is for them, and no traceback is shown."""


class UserError(Exception):
    """Something that the user can put right; ``exit_code`` is the command line's."""

    exit_code = 2
