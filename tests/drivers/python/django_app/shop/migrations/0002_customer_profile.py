"""A column more."""
from django.db import migrations, models


class Migration(migrations.Migration):
    """Adds the profile, with an index."""

    dependencies = [("shop", "0001_initial")]
    operations = [
        migrations.AddField("customer", "profile", models.JSONField(default=dict)),
        migrations.AddIndex("order", models.Index(fields=["at"], name="django_order_at")),
    ]
