from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('keys', '0005_rights'),
    ]

    operations = [
        migrations.AddField(
            model_name='inferencekey',
            name='is_blocked',
            field=models.BooleanField(db_default=False, help_text='A blocked key opens nothing until it is unblocked.'),
        ),
        migrations.AddField(
            model_name='inferencekey',
            name='old_digest',
            field=models.BinaryField(editable=False, max_length=32, null=True),
        ),
        migrations.AddField(
            model_name='inferencekey',
            name='old_valid_until',
            field=models.DateTimeField(editable=False, null=True),
        ),
    ]
