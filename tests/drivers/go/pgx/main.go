// pgx: its five ways to execute, batches, pipelines, COPY, and the simple protocol with several statements.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"pgwitness/tests/drivers/journal"
)

var (
	background = context.Background()
	book       *journal.Journal
)

type session struct {
	conn *pgx.Conn
	pid  uint32
	// bound says whether values travel as parameters; the simple protocol writes them into the text.
	bound bool
}

func main() {
	book = journal.Open("pgx")
	modes := []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
		pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	}
	for range journal.Rounds() {
		for _, mode := range modes {
			one(mode)
		}
	}
}

func one(mode pgx.QueryExecMode) {
	config, err := pgx.ParseConfig("")
	journal.Must(err)
	config.DefaultQueryExecMode = mode
	config.StatementCacheCapacity = 20
	conn, err := pgx.ConnectConfig(background, config)
	journal.Must(err)
	s := session{conn, conn.PgConn().PID(), mode != pgx.QueryExecModeSimpleProtocol}
	s.exec("SET /**/ TIME ZONE 'UTC'", -1)
	s.values()
	s.changes()
	s.failures()
	s.batches()
	if mode == pgx.QueryExecModeCacheStatement {
		s.prepared()
		s.pipelines()
		s.strings()
		s.copies()
		s.big()
	}
	s.exec("DROP TABLE /**/ pgx_t", -1)
	journal.Must(conn.Close(background))
}

func (s *session) claim(params []any) journal.Claim {
	return journal.Claim{Params: params, NoParams: !s.bound}
}

// query runs a marked text and counts its rows.
func (s *session) query(text string, wanted int, params ...any) {
	marked := book.Mark(text)
	rows, err := s.conn.Query(background, marked, params...)
	journal.Must(err)
	got := 0
	for rows.Next() {
		_, err := rows.Values()
		journal.Must(err)
		got++
	}
	journal.Must(rows.Err())
	journal.Expect(text, got, wanted)
	claim := s.claim(params)
	claim.Rows = &got
	book.Line(marked, s.pid, claim)
}

// exec runs a marked text that gives no rows; wanted below 0: none are counted.
func (s *session) exec(text string, wanted int, params ...any) {
	marked := book.Mark(text)
	tag, err := s.conn.Exec(background, marked, params...)
	journal.Must(err)
	claim := s.claim(params)
	if wanted >= 0 {
		journal.Expect(text, int(tag.RowsAffected()), wanted)
		claim.Affected = &wanted
	}
	book.Line(marked, s.pid, claim)
}

func (s *session) fails(sqlstate, text string, params ...any) {
	marked := book.Mark(text)
	_, err := s.conn.Exec(background, marked, params...)
	journal.Expect(text, state(err), sqlstate)
	claim := s.claim(params)
	claim.SQLState = sqlstate
	claim.NoParams = claim.NoParams || !strings.HasPrefix(sqlstate, "22")
	book.Line(marked, s.pid, claim)
}

func state(err error) string {
	var failed *pgconn.PgError
	if errors.As(err, &failed) {
		return failed.Code
	}
	return fmt.Sprint(err)
}

func (s *session) values() {
	for number := range 6 {
		s.query("SELECT /**/ $1::int4 + 1", 1, int32(number))
	}
	s.query("SELECT /**/ $1::int2, $2::int8, $3::float8, $4::bool, $5::bool", 1, int16(-3), int64(1)<<62, 1.5, true, false)
	s.query("SELECT /**/ $1::text, $2::text, $3::text", 1, "it's \"quoted\" \\ ümlaut", "", nil)
	s.query("SELECT /**/ $1::bytea", 1, []byte{0, 1, 255, '\\', '\''})
	s.query("SELECT /**/ $1::uuid, $2::numeric", 1, "00000000-0000-0000-1234-567890abcdef", "12345678901234567890.123456789")
	s.query("SELECT /**/ unnest($1::int4[])", 3, []int32{1, 2, 3})
	moment := time.Date(2024, 2, 29, 12, 30, 15, 123456000, time.UTC)
	marked := book.Mark("SELECT /**/ $1::timestamptz")
	var back time.Time
	journal.Must(s.conn.QueryRow(background, marked, moment).Scan(&back))
	journal.Expect("moment", back.Equal(moment), true)
	claim := s.claim([]any{"2024-02-29 12:30:15.123456+00"})
	claim.Rows = journal.N(1)
	book.Line(marked, s.pid, claim)
	s.query("SELECT /**/ $1::jsonb, $2::inet", 1, `{"a": 1, "b": [1, null]}`, "10.1.2.3")
	s.query("SELECT /**/ g FROM generate_series(1, $1::int4) g", 2000, int32(2000))
	s.query("SELECT /**/ g FROM generate_series(1, $1::int4) g WHERE g < 0", 0, int32(20))
}

func (s *session) changes() {
	s.exec("CREATE TEMP TABLE pgx_t /**/ (id int8, name text)", -1)
	s.exec("INSERT INTO pgx_t /**/ VALUES ($1, $2), ($3, $4)", 2, int64(1), "one", int64(2), nil)
	s.exec("INSERT INTO pgx_t /**/ SELECT generate_series(10, $1::int8)", 10, int64(19))
	s.exec("UPDATE pgx_t /**/ SET name = $1 WHERE id > $2", 10, "big", int64(5))
	s.exec("DELETE FROM pgx_t /**/ WHERE id = $1", 0, int64(-1))
}

func (s *session) failures() {
	s.fails("22012", "SELECT /**/ 1 / $1::int4", int32(0))
	s.fails("42P01", "SELECT /**/ * FROM no_such_table")
	s.fails("42601", "SELECT /**/ FROM WHERE")
	tx, err := s.conn.Begin(background)
	journal.Must(err)
	s.exec("INSERT INTO pgx_t /**/ VALUES ($1)", 1, int64(77))
	inner, err := tx.Begin(background)
	journal.Must(err)
	s.fails("22012", "SELECT /**/ 2 / $1::int4", int32(0))
	journal.Must(inner.Rollback(background))
	s.query("SELECT /**/ id FROM pgx_t WHERE id = $1", 1, int64(77))
	journal.Must(tx.Rollback(background))
}

// batches sends many statements before one Sync; behind an error nothing is executed.
func (s *session) batches() {
	batch := &pgx.Batch{}
	texts := []string{}
	for number := range 12 {
		text := book.Mark("SELECT /**/ g FROM generate_series(1, $1::int4) g")
		if number%3 == 1 {
			text = book.Mark("INSERT INTO pgx_t /**/ VALUES ($1::int8, 'batch')")
		}
		batch.Queue(text, int64(number))
		texts = append(texts, text)
	}
	results := s.conn.SendBatch(background, batch)
	for number, text := range texts {
		tag, err := results.Exec()
		journal.Must(err)
		claim := s.claim([]any{number})
		if number%3 == 1 {
			claim.Affected = journal.N(1)
		} else {
			claim.Rows = journal.N(number)
		}
		journal.Expect("batch", tag.RowsAffected() == int64(number) || number%3 == 1, true)
		book.Line(text, s.pid, claim)
	}
	journal.Must(results.Close())
	if !s.bound {
		return
	}
	good, bad, never := book.Mark("SELECT /**/ 'good', $1::int4"), book.Mark("SELECT /**/ 'bad', 1 / $1::int4"), book.Mark("SELECT /**/ 'never', $1::int4")
	batch = &pgx.Batch{}
	for _, text := range []string{good, bad, never} {
		batch.Queue(text, int32(0))
	}
	results = s.conn.SendBatch(background, batch)
	_, err := results.Exec()
	journal.Must(err)
	_, err = results.Exec()
	journal.Expect("batch", state(err), "22012")
	journal.Expect("batch", results.Close() != nil, true)
	book.Line(good, s.pid, journal.Claim{Rows: journal.N(1), Params: []any{0}})
	book.Line(bad, s.pid, journal.Claim{SQLState: "22012", Params: []any{0}})
}

// prepared uses a statement by its name, and lets the cache of twenty overflow.
func (s *session) prepared() {
	marked := book.Mark("SELECT /**/ $1::text || $2::text")
	_, err := s.conn.Prepare(background, "pgx_named", marked)
	journal.Must(err)
	for number := range 5 {
		var text string
		journal.Must(s.conn.QueryRow(background, "pgx_named", "a", fmt.Sprint(number)).Scan(&text))
		book.Line(marked, s.pid, journal.Claim{Rows: journal.N(1), Params: []any{"a", number}})
	}
	journal.Must(s.conn.Deallocate(background, "pgx_named"))
	for number := range 45 {
		s.query(fmt.Sprintf("SELECT /**/ $1::int4 + %d", number%30), 1, int32(number))
	}
}

// pipelines uses the connection below: Syncs where the program wants them, with an error among them.
func (s *session) pipelines() {
	good, bad, never := book.Mark("SELECT /**/ 'piped', $1::text"), book.Mark("SELECT /**/ 'piped', 1 / $1::int4"), book.Mark("SELECT /**/ 'never piped', $1::text")
	pipeline := s.conn.PgConn().StartPipeline(background)
	one := [][]byte{[]byte("0")}
	pipeline.SendQueryParams(good, one, nil, nil, nil)
	pipeline.SendPrepare("pgx_piped", good, nil)
	pipeline.SendQueryPrepared("pgx_piped", [][]byte{nil}, nil, []int16{1})
	journal.Must(pipeline.Sync())
	pipeline.SendQueryParams(bad, one, nil, nil, nil)
	pipeline.SendQueryParams(never, one, nil, nil, nil)
	journal.Must(pipeline.Sync())
	pipeline.SendQueryParams(good, one, nil, nil, nil)
	journal.Must(pipeline.Sync())
	var seen []string
	for {
		results, err := pipeline.GetResults()
		if err != nil {
			seen = append(seen, state(err))
			continue
		}
		if results == nil {
			break
		}
		switch results := results.(type) {
		case *pgconn.ResultReader:
			result := results.Read()
			if result.Err != nil {
				seen = append(seen, state(result.Err))
			} else {
				seen = append(seen, fmt.Sprint(len(result.Rows)))
			}
		case *pgconn.PipelineSync:
			seen = append(seen, "sync")
		default:
			seen = append(seen, "prepared")
		}
	}
	journal.Must(pipeline.Close())
	journal.Expect("pipeline", strings.Join(seen, " "), "1 prepared 1 sync 22012 sync 1 sync")
	book.Line(good, s.pid, journal.Claim{Rows: journal.N(1), Params: []any{"0"}})
	book.Line(good, s.pid, journal.Claim{Rows: journal.N(1), Params: []any{nil}})
	book.Line(bad, s.pid, journal.Claim{SQLState: "22012", Params: []any{"0"}})
	book.Line(good, s.pid, journal.Claim{Rows: journal.N(1), Params: []any{"0"}})
}

func (s *session) strings() {
	marked := book.Mark("SELECT /**/ 1; SELECT /**/ 2 UNION SELECT 3; UPDATE pgx_t /**/ SET name = name WHERE id = 1; ;")
	results, err := s.conn.PgConn().Exec(background, marked).ReadAll()
	journal.Must(err)
	parts := journal.Parts(marked)
	book.Line(parts[0], s.pid, journal.Claim{Rows: journal.N(len(results[0].Rows)), NoParams: true})
	book.Line(parts[1], s.pid, journal.Claim{Rows: journal.N(len(results[1].Rows)), NoParams: true})
	book.Line(parts[2], s.pid, journal.Claim{Affected: journal.N(int(results[2].CommandTag.RowsAffected())), NoParams: true})
	bad := book.Mark("SELECT /**/ 1; SELECT /**/ 1 / 0; SELECT /**/ 'never'")
	_, err = s.conn.PgConn().Exec(background, bad).ReadAll()
	journal.Expect("string", state(err), "22012")
	parts = journal.Parts(bad)
	book.Line(parts[0], s.pid, journal.Claim{NoParams: true})
	book.Line(parts[1], s.pid, journal.Claim{SQLState: "22012", NoParams: true})
	for _, empty := range []string{"", ";", "-- nothing"} {
		_, err = s.conn.PgConn().Exec(background, empty).ReadAll()
		journal.Must(err)
		_, err = s.conn.Exec(background, empty, pgx.QueryExecModeExec)
		journal.Must(err)
	}
}

func (s *session) copies() {
	// pgx writes this COPY itself, so it has no marker.
	source := pgx.CopyFromSlice(300, func(row int) ([]any, error) { return []any{int64(1000 + row), "copied"}, nil })
	copied, err := s.conn.CopyFrom(background, pgx.Identifier{"pgx_t"}, []string{"id", "name"}, source)
	journal.Must(err)
	journal.Expect("copied", copied, 300)
	text := strings.Repeat("5000\tcopied\n", 400)
	marked := book.Mark("COPY pgx_t /**/ FROM STDIN")
	tag, err := s.conn.PgConn().CopyFrom(background, strings.NewReader(text), marked)
	journal.Must(err)
	book.Line(marked, s.pid, journal.Claim{Affected: journal.N(int(tag.RowsAffected())), Copied: journal.N(len(text)), NoParams: true})
	for _, format := range []string{"text", "csv", "binary"} {
		marked := book.Mark("COPY (SELECT * FROM pgx_t WHERE name = 'copied') /**/ TO STDOUT (FORMAT " + format + ")")
		var received count
		tag, err := s.conn.PgConn().CopyTo(background, &received, marked)
		journal.Must(err)
		journal.Expect("copied", tag.RowsAffected(), 700)
		book.Line(marked, s.pid, journal.Claim{Affected: journal.N(700), Copied: journal.N(int(received)), NoParams: true})
	}
	marked = book.Mark("COPY pgx_t /**/ (id) FROM STDIN")
	_, err = s.conn.PgConn().CopyFrom(background, strings.NewReader("no number\n"), marked)
	journal.Expect("bad copy", state(err), "22P02")
	book.Line(marked, s.pid, journal.Claim{SQLState: "22P02", NoParams: true})
}

type count int

func (c *count) Write(block []byte) (int, error) {
	*c += count(len(block))
	return len(block), nil
}

var _ io.Writer = (*count)(nil)

func (s *session) big() {
	s.query("SELECT /**/ length($1::text)", 1, strings.Repeat("abc'def ", 3*1024*1024/8))
	s.query("SELECT /**/ repeat('z', 3000000)", 1)
	s.query("SELECT /**/ length('"+strings.Repeat("z", 3_000_000)+"')", 1)
}
