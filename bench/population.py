"""How do a database's many rows get there: ``python -m bench.population KEYS INSTANCES MODEL``.

Run with a llamactl's environment: adds keys that may use every instance, and stopped instances
with the options of the instance MODEL, as the management API would one by one in minutes. The
plain texts of the keys go to standard output, as a JSON list.
"""

from __future__ import annotations

import json
import os
import sys

import django

FIRST_PORT = 40000


def populate(keys: int, instances: int, model: str) -> list[str]:
    """Make the rows, and tell the web processes and the supervisor, as each change does."""
    from django.db import transaction

    from instances.models import Instance
    from keys.models import InferenceKey
    from keys.secrets import digest, new_inference_key
    from llamactl.core.events import announce
    from llamactl.models import Topic

    plain = [new_inference_key() for _ in range(keys)]
    like = Instance.objects.get(name=model)
    taken = set(Instance.objects.values_list("port", flat=True))
    ports = (port for port in range(FIRST_PORT, 65536) if port not in taken)
    with transaction.atomic():
        InferenceKey.objects.bulk_create(
            InferenceKey(name=f"key-{number}", digest=digest(key), hint=key[-4:])
            for number, key in enumerate(plain)
        )
        Instance.objects.bulk_create(
            Instance(name=f"idle-{number}", node=like.node, options=like.options, port=next(ports))
            for number in range(instances)
        )
        announce(Topic.KEYS, "")
        announce(Topic.INSTANCES, "")
    return plain


def main() -> None:
    """Fill the database that the environment names."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llamactl.settings")
    django.setup()
    keys, instances, model = sys.argv[1:]
    json.dump(populate(int(keys), int(instances), model), sys.stdout)


if __name__ == "__main__":
    main()
