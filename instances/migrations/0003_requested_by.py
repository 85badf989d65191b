from django.db import migrations, models


class Migration(migrations.Migration):
    """``wish_cause`` becomes ``requested_by`` in Django's state alone.

    The column keeps its name, so that processes of the release before go on working beside the new
    ones during an upgrade.
    """

    dependencies = [
        ("instances", "0002_capacity"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.RenameField("instance", "wish_cause", "requested_by"),
                migrations.AlterField(
                    model_name="instance",
                    name="requested_by",
                    field=models.CharField(
                        db_column="wish_cause",
                        default="",
                        editable=False,
                        help_text="Origin of the desired state: api, admin:<user>, "
                        "proxy:on_demand, supervisor:idle …",
                        max_length=200,
                    ),
                ),
                migrations.AlterField(
                    model_name="instance",
                    name="generation",
                    field=models.PositiveIntegerField(
                        default=0,
                        help_text="Number of the last requested process: each start or restart "
                        "adds 1.",
                    ),
                ),
                migrations.AlterField(
                    model_name="instance",
                    name="queue",
                    field=models.JSONField(
                        editable=False,
                        help_text="place, length, reason: while the start waits for capacity.",
                        null=True,
                    ),
                ),
            ],
        ),
    ]
