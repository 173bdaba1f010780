"""Settings: one frozen object, read by one reader, in which every value remembers where it came from.

    environment (SGLANG_FL_*)  >  YAML file (SGLANG_FL_CONFIG)  >  the platform's defaults  >  code

Only the form of a value is checked here. Whether an op, a vendor or a plugin of that name exists is known only
after the plugins are loaded.
"""

from sglang_fl.settings.documents import json_schema, sample_yaml
from sglang_fl.settings.forms import FrozenMapping
from sglang_fl.settings.loading import early_settings, load_settings
from sglang_fl.settings.model import Origin, Row, Settings

__all__ = [
    "FrozenMapping",
    "Origin",
    "Row",
    "Settings",
    "early_settings",
    "json_schema",
    "load_settings",
    "sample_yaml",
]
