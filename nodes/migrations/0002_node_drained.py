from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('nodes', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='node',
            name='drained_at',
            field=models.DateTimeField(blank=True, editable=False, help_text='Time of the drain; a drained node starts no instance.', null=True),
        ),
        migrations.AddField(
            model_name='node',
            name='resumes',
            field=models.JSONField(blank=True, default=list, editable=False, help_text='Ids of the instances that the drain stopped; a resume starts them.'),
        ),
    ]
