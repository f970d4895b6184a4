"""The shop's tables."""
from django.contrib.postgres.fields import ArrayField
from django.db import models


class Customer(models.Model):
    """Who buys."""

    email = models.EmailField(unique=True)
    note = models.TextField(null=True)
    tags = ArrayField(models.TextField(), default=list)
    profile = models.JSONField(default=dict)

    class Meta:
        """A table name of this program's own."""

        db_table = "django_customer"


class Order(models.Model):
    """What was bought."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="orders")
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    at = models.DateTimeField()
    token = models.UUIDField(null=True)
    scan = models.BinaryField(null=True)

    class Meta:
        """A table name of this program's own."""

        db_table = "django_order"
