"""What the server of workers' processes imports last: all that it has imported is kept for good.

The collector then writes to none of it, so that forks share its memory, nor does it go through it at the end.
"""

import gc

gc.freeze()
