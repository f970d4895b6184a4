"""Django over psycopg 3: migrations forth and back, the object-relational mapper, transactions.

With the values bound by the client (Django's default) and by the server. The markers are put behind the first word by
Django's own hook, just before the driver gets the text.
"""
import datetime
import decimal
import os
import sys
import uuid
from pathlib import Path

from journal import Journal, cannot_run, expect

try:
    import django
    import psycopg
    from django.conf import settings
except ImportError as missing:
    cannot_run(missing)

NAME = "django"
JOURNAL = Journal(NAME)
sys.path.insert(0, str(Path(__file__).parent / "django_app"))


def database(**options):
    """The settings of one connection."""
    place = {"HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"], "USER": os.environ["PGUSER"], "PASSWORD": os.environ["PGPASSWORD"]}
    return {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], **place, "OPTIONS": options}


def configure():
    databases = {"default": database(), "bound": database(server_side_binding=True)}
    apps = ["django.contrib.postgres", "shop"]
    settings.configure(DATABASES=databases, INSTALLED_APPS=apps, USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField")
    django.setup()


def journal(execute, sql, params, many, context):
    """Django's hook around each execution: marks the text, and journals what came of it."""
    marked = JOURNAL.mark_verb(str(sql) if isinstance(sql, str) else sql.as_string(context["cursor"].connection))
    pid = context["connection"].connection.info.backend_pid
    try:
        result = execute(marked, params, many, context)
    except django.db.Error as error:
        JOURNAL.line(marked, pid, sqlstate=error.__cause__.sqlstate)
        raise
    cursor = context["cursor"]
    changed = marked.split()[0] in ("INSERT", "UPDATE", "DELETE")
    fetched = cursor.description and not isinstance(cursor.cursor, psycopg.ServerCursor)
    if many:
        for _ in params:
            JOURNAL.line(marked, pid, affected=1 if changed else None)
    else:
        JOURNAL.line(marked, pid, rows=cursor.rowcount if fetched else None, affected=cursor.rowcount if changed else None)
    return result


def shop(using):
    """One round of the application on one connection."""
    from django.db import IntegrityError, connections, transaction
    from django.db.models import Count, Exists, F, OuterRef, Subquery, Sum, Window
    from django.db.models.functions import RowNumber
    from shop.models import Customer, Order

    customers, orders = Customer.objects.using(using), Order.objects.using(using)
    at = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc)
    with transaction.atomic(using):
        many = [Customer(email=f"c{number}@example.org", tags=["a", "b c"], profile={"n": number}) for number in range(10)]
        customers.bulk_create(many)
        for customer in customers.order_by("id"):
            Order(customer=customer, amount=decimal.Decimal("12.50"), at=at, token=uuid.UUID(int=7), scan=b"\x00\xff").save(using=using)
    expect("filter", customers.filter(email__startswith="c", note=None).count(), 10)
    expect("join", len(orders.select_related("customer").filter(customer__email__in=["c1@example.org", "c2@example.org"])), 2)
    expect("prefetch", sum(len(one.orders.all()) for one in customers.prefetch_related("orders")), 10)
    expect("json", customers.filter(profile__n__gt=4).count(), 5)
    expect("array", customers.filter(tags__contains=["b c"]).count(), 10)
    expect("update", orders.filter(amount__gt=1).update(amount=F("amount") * 2), 10)
    expect("sum", orders.aggregate(total=Sum("amount"))["total"], decimal.Decimal("250.00"))
    expect("group", len(customers.annotate(many=Count("orders")).filter(many=1).values_list("email", "many")), 10)
    expect("raw", len(list(customers.raw("SELECT id, email FROM django_customer WHERE email LIKE %s", ["c%"]))), 10)
    latest = orders.filter(customer=OuterRef("pk")).order_by("-at").values("amount")[:1]
    expect("subquery", customers.annotate(latest=Subquery(latest)).filter(latest__gt=1).count(), 10)
    expect("exists", customers.filter(Exists(orders.filter(customer=OuterRef("pk")))).count(), 10)
    ranked = orders.annotate(place=Window(RowNumber(), order_by=F("id").asc()))
    expect("window", max(order.place for order in ranked), 10)
    expect("union", customers.filter(email="c1@example.org").union(customers.filter(email="c2@example.org")).count(), 2)
    expect("distinct", orders.values("amount").distinct().count(), 1)
    expect("get", customers.get_or_create(email="c3@example.org")[1], False)
    expect("create", customers.update_or_create(email="new@example.org", defaults={"note": "it's new"})[1], True)
    try:
        with transaction.atomic(using):
            customers.create(email="c1@example.org")
    except IntegrityError:
        pass
    with transaction.atomic(using):
        customers.select_for_update().get(email="c1@example.org")
        try:
            with transaction.atomic(using):
                customers.filter(email="c1@example.org").delete()
                raise KeyError
        except KeyError:
            pass
    expect("iterator", sum(1 for _ in orders.order_by("id").iterator(chunk_size=3)), 10)
    with connections[using].cursor() as cursor:
        cursor.executemany("UPDATE django_customer SET note = %s WHERE email = %s", [(f"n{number}", f"c{number}@example.org") for number in range(4)])
        cursor.execute("SELECT %s::text", ["raw"])
        expect("raw", cursor.fetchone(), ("raw",))
    expect("delete", customers.filter(email="new@example.org").delete()[0], 1)
    customers.all().delete()


def main():
    configure()
    from django.core.management import call_command
    from django.db import connections

    for _ in range(JOURNAL.rounds):
        for using in ("default", "bound"):
            connection = connections[using]
            with connection.execute_wrapper(journal):
                try:
                    connection.ensure_connection()
                except django.db.NotSupportedError as refused:
                    cannot_run(refused)
                call_command("migrate", database=using, verbosity=0)
                shop(using)
                call_command("migrate", "shop", "zero", database=using, verbosity=0)
                with connection.cursor() as cursor:
                    for table in ("django_migrations",):
                        cursor.execute(f"DROP TABLE IF EXISTS {table} CASCADE")
            connection.close()


main()
