-- The tables that the statements of columns.tsv are about.
CREATE TABLE customers (id integer PRIMARY KEY, email text UNIQUE, name text, region text, age integer, active boolean, tags text[], data jsonb);
CREATE TABLE orders (id bigint PRIMARY KEY, customer_id integer, total numeric, status text, created timestamptz, day date);
CREATE TABLE items (order_id bigint, product_id uuid, qty integer, note text, PRIMARY KEY (order_id, product_id));
CREATE TABLE products (product_id uuid PRIMARY KEY, sku text, price numeric);
CREATE SCHEMA s;
CREATE TABLE s.customers (id integer PRIMARY KEY, secret text);
CREATE TABLE "Odd" ("Id" integer, "select" text, plain text);
CREATE TABLE tree (node integer PRIMARY KEY, parent integer, label text);
