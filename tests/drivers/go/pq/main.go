// lib/pq through database/sql: statements with and without parameters, prepared ones, transactions, COPY.
package main

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/lib/pq"

	"pgwitness/tests/drivers/journal"
)

var book *journal.Journal

type session struct {
	db  *sql.DB
	pid uint32
}

func main() {
	book = journal.Open("pq")
	for range journal.Rounds() {
		for _, settings := range []string{"", "binary_parameters=yes"} {
			db, err := sql.Open("postgres", settings)
			journal.Must(err)
			db.SetMaxOpenConns(1)
			s := session{db: db}
			journal.Must(db.QueryRow("SELECT pg_backend_pid()").Scan(&s.pid))
			s.round()
			journal.Must(db.Close())
		}
	}
}

func (s *session) round() {
	s.exec("SET /**/ TIME ZONE 'UTC'", -1)
	s.exec("CREATE TEMP TABLE pq_t /**/ (id int8, name text, data bytea)", -1)
	s.exec("INSERT INTO pq_t /**/ VALUES ($1, $2, $3)", 1, int64(1), "it's \"one\" \\", []byte{0, 1, 255})
	s.exec("INSERT INTO pq_t /**/ VALUES ($1, $2)", 1, int64(2), nil)
	s.exec("UPDATE pq_t /**/ SET name = $1", 2, "two")
	s.exec("DELETE FROM pq_t /**/ WHERE id = $1", 0, int64(-1))
	for number := range 5 {
		s.query("SELECT /**/ generate_series(1, $1::int4)", number, int64(number))
	}
	s.query("SELECT /**/ $1::float8, $2::bool, $3::numeric, $4::uuid", 1, 1.5, true, "123.4560", "00000000-0000-0000-1234-567890abcdef")
	s.query("SELECT /**/ 1 UNION SELECT 2", 2)
	s.query("INSERT INTO pq_t /**/ VALUES (3, 'three') RETURNING id", 1)
	marked := book.Mark("SELECT /**/ unnest($1::int4[])")
	rows, err := s.db.Query(marked, pq.Array([]int32{1, 2, 3}))
	journal.Must(err)
	book.Line(marked, s.pid, journal.Claim{Rows: journal.N(count(rows)), Params: []any{[]int32{1, 2, 3}}})
	s.prepared()
	s.transaction()
	s.strings()
	s.copies()
	s.query("SELECT /**/ length($1::text)", 1, strings.Repeat("abc'def ", 3*1024*1024/8))
	s.query("SELECT /**/ repeat('z', 3000000)", 1)
	s.fails("42P01", "SELECT /**/ * FROM no_such_table")
	s.fails("42601", "SELECT /**/ FROM WHERE")
	s.fails("22012", "SELECT /**/ 1 / $1::int4", int64(0))
	s.exec("DROP TABLE /**/ pq_t", -1)
}

func (s *session) query(text string, wanted int, params ...any) {
	marked := book.Mark(text)
	rows, err := s.db.Query(marked, params...)
	journal.Must(err)
	got := count(rows)
	journal.Expect(text, got, wanted)
	claim := journal.Claim{Rows: &got, Params: params}
	if strings.HasPrefix(text, "INSERT") {
		claim.Affected = &got
	}
	book.Line(marked, s.pid, claim)
}

func count(rows *sql.Rows) int {
	got := 0
	for rows.Next() {
		got++
	}
	journal.Must(rows.Err())
	journal.Must(rows.Close())
	return got
}

func (s *session) exec(text string, wanted int, params ...any) {
	marked := book.Mark(text)
	result, err := s.db.Exec(marked, params...)
	journal.Must(err)
	claim := journal.Claim{Params: params}
	if wanted >= 0 {
		changed, err := result.RowsAffected()
		journal.Must(err)
		journal.Expect(text, int(changed), wanted)
		claim.Affected = &wanted
	}
	book.Line(marked, s.pid, claim)
}

func (s *session) fails(sqlstate, text string, params ...any) {
	marked := book.Mark(text)
	_, err := s.db.Exec(marked, params...)
	journal.Expect(text, state(err), sqlstate)
	claim := journal.Claim{SQLState: sqlstate, Params: params, NoParams: !strings.HasPrefix(sqlstate, "22")}
	book.Line(marked, s.pid, claim)
}

func state(err error) string {
	var failed *pq.Error
	if errors.As(err, &failed) {
		return string(failed.Code)
	}
	return fmt.Sprint(err)
}

func (s *session) prepared() {
	marked := book.Mark("SELECT /**/ $1::text || 'prepared', generate_series(1, $2::int8)")
	statement, err := s.db.Prepare(marked)
	journal.Must(err)
	for number := range 6 {
		rows, err := statement.Query("x", int64(number))
		journal.Must(err)
		journal.Expect("prepared", count(rows), number)
		book.Line(marked, s.pid, journal.Claim{Rows: journal.N(number), Params: []any{"x", number}})
	}
	journal.Must(statement.Close())
}

func (s *session) transaction() {
	tx, err := s.db.Begin()
	journal.Must(err)
	insert := book.Mark("INSERT INTO pq_t /**/ VALUES ($1, 'rolled back')")
	_, err = tx.Exec(insert, int64(77))
	journal.Must(err)
	book.Line(insert, s.pid, journal.Claim{Affected: journal.N(1), Params: []any{77}})
	bad := book.Mark("SELECT /**/ 1 / $1::int4, 'in a transaction'")
	_, err = tx.Exec(bad, int64(0))
	journal.Expect("transaction", state(err), "22012")
	book.Line(bad, s.pid, journal.Claim{SQLState: "22012", Params: []any{0}})
	failed := book.Mark("SELECT /**/ 'in a failed transaction'")
	_, err = tx.Exec(failed)
	journal.Expect("transaction", state(err), "25P02")
	book.Line(failed, s.pid, journal.Claim{SQLState: "25P02", NoParams: true})
	journal.Must(tx.Rollback())
	s.query("SELECT /**/ id FROM pq_t WHERE id = 77", 0)
}

func (s *session) strings() {
	marked := book.Mark("SELECT /**/ 1; SELECT /**/ 2 UNION SELECT 3; UPDATE pq_t /**/ SET name = name WHERE id = 1")
	rows, err := s.db.Query(marked)
	journal.Must(err)
	parts := journal.Parts(marked)
	for index, wanted := range []int{1, 2} {
		got := 0
		for rows.Next() {
			got++
		}
		journal.Expect("string", got, wanted)
		book.Line(parts[index], s.pid, journal.Claim{Rows: &got, NoParams: true})
		rows.NextResultSet()
	}
	journal.Must(rows.Close())
	book.Line(parts[2], s.pid, journal.Claim{NoParams: true})
	_, err = s.db.Exec("")
	journal.Must(err)
	_, err = s.db.Exec(" -- nothing")
	journal.Must(err)
}

func (s *session) copies() {
	tx, err := s.db.Begin()
	journal.Must(err)
	marked := book.Mark("COPY pq_t /**/ (id, name) FROM STDIN")
	statement, err := tx.Prepare(marked)
	journal.Must(err)
	bytes := 0
	for number := range 300 {
		_, err = statement.Exec(int64(1000+number), "copied")
		journal.Must(err)
		bytes += len(fmt.Sprintf("%d\tcopied\n", 1000+number))
	}
	result, err := statement.Exec()
	journal.Must(err)
	changed, err := result.RowsAffected()
	journal.Must(err)
	journal.Must(statement.Close())
	journal.Must(tx.Commit())
	book.Line(marked, s.pid, journal.Claim{Affected: journal.N(int(changed)), Copied: &bytes, NoParams: true})
	s.query("SELECT /**/ id FROM pq_t WHERE name = 'copied'", 300)
}
