from django.db import migrations


def make_rows(apps, schema_editor):
    revision = apps.get_model("llamactl", "Revision")
    for topic in ("instances", "keys"):
        revision.objects.get_or_create(topic=topic)


class Migration(migrations.Migration):
    dependencies = [("llamactl", "0001_initial")]
    operations = [migrations.RunPython(make_rows, migrations.RunPython.noop)]
