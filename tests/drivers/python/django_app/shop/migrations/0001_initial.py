"""Both tables."""
import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Creates customers and orders."""

    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Customer",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("email", models.EmailField(max_length=254, unique=True)),
                ("note", models.TextField(null=True)),
                ("tags", django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), default=list)),
            ],
            options={"db_table": "django_customer"},
        ),
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("amount", models.DecimalField(decimal_places=2, max_digits=12)),
                ("at", models.DateTimeField()),
                ("token", models.UUIDField(null=True)),
                ("scan", models.BinaryField(null=True)),
                ("customer", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="orders", to="shop.customer")),
            ],
            options={"db_table": "django_order"},
        ),
    ]
