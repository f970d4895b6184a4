"""SQLAlchemy over psycopg 3: core and object-relational statements, which the library writes.

The markers are put behind the first word by the library's own hook, just before the driver gets the text.
"""
import datetime
import decimal
import os
import sys

from journal import Journal, cannot_run, expect

try:
    import psycopg
    import sqlalchemy as sa
    from sqlalchemy import orm
except ImportError as missing:
    cannot_run(missing)

NAME = "sqlalchemy"
JOURNAL = Journal(NAME)


class Base(orm.DeclarativeBase):
    """What the mapped classes share."""


class Customer(Base):
    """A parent row."""

    __tablename__ = "sqlalchemy_customer"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    email: orm.Mapped[str | None]
    orders: orm.Mapped[list["Order"]] = orm.relationship(back_populates="customer", cascade="all, delete-orphan", order_by="Order.id")


class Order(Base):
    """A child row."""

    __tablename__ = "sqlalchemy_order"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    customer_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("sqlalchemy_customer.id"))
    amount: orm.Mapped[decimal.Decimal]
    at: orm.Mapped[datetime.datetime] = orm.mapped_column(sa.DateTime(timezone=True))
    customer: orm.Mapped[Customer] = orm.relationship(back_populates="orders")


def watch(engine):
    """Marks and journals each statement that the engine hands to its driver."""

    @sa.event.listens_for(engine, "before_cursor_execute", retval=True)
    def mark(_connection, _cursor, statement, parameters, _context, _many):
        return JOURNAL.mark_verb(statement), parameters

    @sa.event.listens_for(engine, "after_cursor_execute")
    def journal(connection, cursor, statement, parameters, context, many):
        pid = connection.connection.dbapi_connection.info.backend_pid
        named = isinstance(cursor, psycopg.ServerCursor)
        word = statement.split()[0]
        # Rows that were folded into one INSERT come as one set of values, though `many` was asked for.
        each = many and isinstance(parameters, list)
        changed = word in ("INSERT", "UPDATE", "DELETE")
        rows = cursor.rowcount if cursor.description and not each and not named else None
        for _ in range(len(parameters) if each else 1):
            # The order of named parameters on the wire is the driver's affair: no claim.
            JOURNAL.line(statement, pid, rows=rows, affected=(1 if each else cursor.rowcount) if changed else None)
        del context

    @sa.event.listens_for(engine, "handle_error")
    def failed(context):
        error = context.original_exception
        pid = context.connection.connection.dbapi_connection.info.backend_pid
        JOURNAL.line(context.statement, pid, sqlstate=error.sqlstate)


def core(engine):
    table = sa.Table("sqlalchemy_core", sa.MetaData(), sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("tags", sa.ARRAY(sa.Text)))
    with engine.begin() as connection:
        table.drop(connection, checkfirst=True)
        table.create(connection)
        connection.execute(table.insert(), [{"id": number, "tags": ["a", "b c"]} for number in range(1, 9)])
        expect("rows", len(connection.execute(sa.select(table).where(table.c.id > 3)).all()), 5)
        got = connection.execute(table.update().where(table.c.id.in_([1, 2, 99])).values(tags=None).returning(table.c.id)).all()
        expect("returning", sorted(got), [(1,), (2,)])
        expect("delete", connection.execute(table.delete().where(table.c.id == 8)).rowcount, 1)
        expect("bound", connection.execute(sa.text("SELECT :a + CAST(:b AS int)"), {"a": 1, "b": 2}).scalar(), 3)
    with engine.connect() as connection:
        for text, sqlstate in (("SELECT 1 / 0", "22012"), ("SELECT * FROM no_such_table", "42P01")):
            try:
                connection.execute(sa.text(text))
            except sa.exc.DBAPIError as error:
                expect(text, error.orig.sqlstate, sqlstate)
            connection.rollback()
        with connection.begin_nested():
            connection.execute(table.insert(), {"id": 100, "tags": []})
        connection.rollback()
        streamed = connection.execution_options(stream_results=True, max_row_buffer=50).execute(sa.text("SELECT generate_series(1, 300)"))
        expect("streamed", len(streamed.all()), 300)
        connection.rollback()
    with engine.begin() as connection:
        table.drop(connection)


def mapped(engine):
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    at = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc)
    with orm.Session(engine) as session:
        for number in range(5):
            orders = [Order(amount=decimal.Decimal(f"{number}.{cents:02}"), at=at) for cents in range(4)]
            session.add(Customer(email=f"c{number}@example.org" if number else None, orders=orders))
        session.commit()
        expect("joined", len(session.scalars(sa.select(Order).join(Customer).where(Customer.email.like("c%"))).all()), 16)
        loaded = session.scalars(sa.select(Customer).options(orm.selectinload(Customer.orders)).order_by(Customer.id)).all()
        expect("loaded", sum(len(customer.orders) for customer in loaded), 20)
        loaded[0].email = "changed"
        loaded[1].orders.pop()
        session.delete(loaded[2])
        session.flush()
        session.rollback()
        expect("rolled back", session.get(Customer, loaded[0].id).email, None)
        summed = sa.select(Order.customer_id, sa.func.sum(Order.amount).label("total")).group_by(Order.customer_id).cte("summed")
        expect("cte", len(session.execute(sa.select(Customer.id, summed.c.total).join(summed, summed.c.customer_id == Customer.id)).all()), 5)
        ranked = sa.select(Order.id, sa.func.row_number().over(partition_by=Order.customer_id, order_by=Order.id).label("place")).subquery()
        expect("window", len(session.execute(sa.select(ranked).where(ranked.c.place == 1)).all()), 5)
        other = orm.aliased(Customer)
        both = sa.select(Customer.id, other.id).join(other, Customer.id < other.id).where(sa.exists().where(Order.customer_id == other.id))
        expect("self join", len(session.execute(both).all()), 10)
        expect("locked", len(session.scalars(sa.select(Customer).with_for_update(skip_locked=True)).all()), 5)
        for number in range(7):
            session.scalars(sa.select(Order).where(Order.id == number)).all()
        expect("count", session.scalar(sa.select(sa.func.count()).select_from(Order)), 20)
        session.rollback()
    Base.metadata.drop_all(engine)


def main():
    for _ in range(JOURNAL.rounds):
        engine = sa.create_engine("postgresql+psycopg://", connect_args={"host": os.environ["PGHOST"]})
        watch(engine)
        core(engine)
        mapped(engine)
        engine.dispose()


sys.exit(main())
