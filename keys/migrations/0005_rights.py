import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Rights of a key on an instance, as columns of the table that joins the two.

    Keys of before keep what they could do: start the instance, and evict another one for it. The
    defaults are the database's, so that the release before can go on writing rows.
    """

    dependencies = [
        ('keys', '0004_request_record'),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.CreateModel(
                    name='KeyPermission',
                    fields=[
                        ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                        ('key', models.ForeignKey(db_column='inferencekey_id', on_delete=django.db.models.deletion.CASCADE, related_name='permissions', to='keys.inferencekey')),
                        ('instance', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='instances.instance')),
                    ],
                    options={
                        'db_table': 'keys_inferencekey_instances',
                        'unique_together': {('key', 'instance')},
                    },
                ),
                migrations.AlterField(
                    model_name='inferencekey',
                    name='instances',
                    field=models.ManyToManyField(blank=True, related_name='keys', through='keys.KeyPermission', to='instances.instance'),
                ),
            ],
        ),
        migrations.AddField(
            model_name='keypermission',
            name='can_start',
            field=models.BooleanField(db_default=True),
        ),
        migrations.AddField(
            model_name='keypermission',
            name='can_evict',
            field=models.BooleanField(db_default=True),
        ),
        migrations.AddField(
            model_name='keypermission',
            name='can_stop',
            field=models.BooleanField(db_default=False),
        ),
    ]
