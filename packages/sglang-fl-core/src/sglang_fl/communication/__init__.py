"""Communicators: which one a group should get (``selection``), what its ranks settle on (``exchange``, ``agreement``),
and its collectives, as the communicator offers them (``collectives``) and for any tensor (``served``)."""
