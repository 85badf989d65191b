from django.db import migrations, models


class Migration(migrations.Migration):
    """``launch_id``, with a default of the database for inserts by the release before."""

    dependencies = [
        ("instances", "0004_activation_hold"),
    ]

    operations = [
        migrations.AddField(
            model_name="instance",
            name="launch_id",
            field=models.CharField(
                db_default="",
                default="",
                editable=False,
                help_text="Id of the process: a part of the derivation of its key.",
                max_length=50,
            ),
        ),
    ]
