# Ruby's pg: simple, parameterised and prepared statements, binary both ways, pipelines, single-row mode, COPY, large objects.
require_relative "journal"
begin
  require "pg"
rescue LoadError => missing
  warn "cannot run here, because #{missing}"
  exit 77
end

class Session
  CHANGES = %w[INSERT UPDATE DELETE MERGE COPY].freeze

  def initialize(journal, connection)
    @journal = journal
    @connection = connection
    @pid = connection.backend_pid
  end

  def round
    run("SET /**/ TIME ZONE 'UTC'")
    values
    changes
    prepared
    failures
    strings
    pipelines if @connection.respond_to?(:enter_pipeline_mode)
    single_rows
    copies
    large_objects
    big
    run("DROP TABLE /**/ rubypg_t")
  end

  private

  def claim(result, params)
    tag = result.cmd_status.split
    affected = CHANGES.include?(tag.first) ? result.cmd_tuples : nil
    { rows: result.result_status == PG::PGRES_TUPLES_OK ? result.ntuples : nil, affected:, params: }
  end

  # Without values a simple query, with them an unnamed statement.
  def run(text, params = nil, format: 0)
    marked = @journal.mark(text)
    result = params ? @connection.exec_params(marked, params, format) : @connection.exec(marked)
    @journal.line(marked, @pid, **claim(result, params&.map { |value| shown(value) }))
    result
  end

  def shown(value)
    return value if value.nil? || value.is_a?(String)
    return value[:shown] || value[:value] if value.is_a?(Hash)
    value.to_s
  end

  def fails(sqlstate, text, params = nil)
    marked = @journal.mark(text)
    begin
      params ? @connection.exec_params(marked, params) : @connection.exec(marked)
    rescue PG::Error => error
      state = error.result.error_field(PG::PG_DIAG_SQLSTATE)
      Journal.expect(text, state, sqlstate)
      @journal.line(marked, @pid, sqlstate:, params: sqlstate.start_with?("22") ? params&.map { |value| shown(value) } : nil)
      return
    end
    abort("#{text} did not fail")
  end

  def values
    [["int4", "7"], ["float8", "1.5"], ["numeric", "123.4560"], ["bool", "t"], ["text", "it's \"quoted\" \\ ümlaut"], ["text", ""], ["text", nil],
     ["uuid", "00000000-0000-0000-1234-567890abcdef"], ["timestamptz", "2024-02-29 12:30:15.123456+00"], ["inet", "10.1.2.3"],
     ["int4[]", "{1,2,NULL}"], ["jsonb", '{"a": 1}']].each do |type, value|
      2.times { |format| run("SELECT /**/ $1::#{type}, #{format}", [value], format:) }
    end
    binary = { value: [70_000].pack("N"), type: 23, format: 1, shown: "70000" }
    bytes = { value: "\x00\x01\xFF'".b, type: 17, format: 1, shown: "\\x0001ff27" }
    Journal.expect("binary", run("SELECT /**/ $1 + 1, length($2)", [binary, bytes]).values, [%w[70001 4]])
  end

  def changes
    run("CREATE TEMP TABLE rubypg_t /**/ (id int8, name text)")
    Journal.expect("insert", run("INSERT INTO rubypg_t /**/ VALUES ($1, $2)", ["1", nil]).cmd_tuples, 1)
    Journal.expect("returning", run("INSERT INTO rubypg_t /**/ SELECT generate_series(10, 19) RETURNING id").ntuples, 10)
    Journal.expect("update", run("UPDATE rubypg_t /**/ SET name = $1 WHERE id > 5", ["big"]).cmd_tuples, 10)
    Journal.expect("delete", run("DELETE FROM rubypg_t /**/ WHERE id = -1").cmd_tuples, 0)
    @connection.transaction { run("SELECT /**/ count(*) FROM rubypg_t") }
  end

  def prepared
    marked = @journal.mark("SELECT /**/ generate_series(1, $1::int4)")
    @connection.prepare("rubypg_named", marked)
    6.times do |number|
      result = @connection.exec_prepared("rubypg_named", [number.to_s])
      Journal.expect("prepared", result.ntuples, number)
      @journal.line(marked, @pid, rows: number, params: [number.to_s])
    end
    @connection.describe_prepared("rubypg_named")
    run("PREPARE rubypg_sql /**/ AS SELECT $1::int4 + 1")
    run("EXECUTE rubypg_sql(41) /**/")
    run("DEALLOCATE /**/ rubypg_sql")
  end

  def failures
    fails("22012", "SELECT /**/ 1 / $1::int4", ["0"])
    fails("42P01", "SELECT /**/ * FROM no_such_table")
    fails("42601", "SELECT /**/ FROM WHERE")
    @connection.exec("BEGIN")
    fails("22012", "SELECT /**/ 2 / 0")
    fails("25P02", "SELECT /**/ 'in a failed transaction'")
    @connection.exec("ROLLBACK")
  end

  def strings
    marked = @journal.mark("SELECT /**/ 1; SELECT /**/ 2 UNION SELECT 3; UPDATE rubypg_t /**/ SET name = name WHERE id = 1")
    @connection.send_query(marked)
    marked.split(";").each { |part| @journal.line(part, @pid, **claim(@connection.get_result, nil)) }
    Journal.expect("end of a string", @connection.get_result, nil)
    bad = @journal.mark("SELECT /**/ 1; SELECT /**/ 1 / 0; SELECT /**/ 'never'").split(";")
    @connection.send_query(bad.join(";"))
    @journal.line(bad[0], @pid, **claim(@connection.get_result, nil))
    state = @connection.get_result.error_field(PG::PG_DIAG_SQLSTATE)
    @journal.line(bad[1], @pid, sqlstate: state)
    Journal.expect("end of a string", @connection.get_result, nil)
    ["", ";", "-- nothing"].each { |empty| @connection.exec(empty) }
    @connection.exec_params("", [])
  end

  def pipelines
    good = @journal.mark("SELECT /**/ 'piped', $1::text")
    bad = @journal.mark("SELECT /**/ 'piped', 1 / $1::int4")
    never = @journal.mark("SELECT /**/ 'never piped', $1::text")
    @connection.enter_pipeline_mode
    [good, good, bad, never].each { |text| @connection.send_query_params(text, ["0"]) }
    @connection.pipeline_sync
    @connection.send_query_params(good, [nil])
    @connection.pipeline_sync
    statuses = []
    until statuses.count(PG::PGRES_PIPELINE_SYNC) == 2
      result = @connection.get_result
      statuses << result.result_status if result
    end
    @connection.exit_pipeline_mode
    wanted = [PG::PGRES_TUPLES_OK, PG::PGRES_TUPLES_OK, PG::PGRES_FATAL_ERROR, PG::PGRES_PIPELINE_ABORTED, PG::PGRES_PIPELINE_SYNC]
    Journal.expect("pipeline", statuses, [*wanted, PG::PGRES_TUPLES_OK, PG::PGRES_PIPELINE_SYNC])
    2.times { @journal.line(good, @pid, rows: 1, params: ["0"]) }
    @journal.line(bad, @pid, sqlstate: "22012", params: ["0"])
    @journal.line(good, @pid, rows: 1, params: [nil])
  end

  def single_rows
    marked = @journal.mark("SELECT /**/ generate_series(1, $1::int4), 'one by one'")
    @connection.send_query_params(marked, ["200"])
    @connection.set_single_row_mode
    rows = 0
    while (result = @connection.get_result)
      rows += result.ntuples
    end
    Journal.expect("one by one", rows, 200)
    @journal.line(marked, @pid, rows:, params: ["200"])
  end

  def copies
    marked = @journal.mark("COPY rubypg_t /**/ FROM STDIN")
    lines = (1000..1299).map { |number| "#{number}\tcopied\n" }
    result = @connection.copy_data(marked) { lines.each { |line| @connection.put_copy_data(line) } }
    @journal.line(marked, @pid, affected: result.cmd_tuples, copied: lines.sum(&:bytesize))
    %w[text csv binary].each do |format|
      marked = @journal.mark("COPY (SELECT * FROM rubypg_t WHERE name = 'copied') /**/ TO STDOUT (FORMAT #{format})")
      copied = 0
      @connection.copy_data(marked) do
        while (block = @connection.get_copy_data)
          copied += block.bytesize
        end
      end
      @journal.line(marked, @pid, affected: 300, copied:)
    end
  end

  # libpq calls functions by their oid for these: FunctionCall messages, which have no text.
  def large_objects
    @connection.transaction do
      oid = @connection.lo_creat
      object = @connection.lo_open(oid, PG::INV_READ | PG::INV_WRITE)
      @connection.lo_write(object, "x" * 50_000)
      @connection.lo_lseek(object, 10, PG::SEEK_SET)
      Journal.expect("large object", @connection.lo_read(object, 1000).bytesize, 1000)
      @connection.lo_close(object)
      @connection.lo_unlink(oid)
    end
  end

  def big
    run("SELECT /**/ length($1::text)", ["abc'def " * (3 * 1024 * 1024 / 8)])
    run("SELECT /**/ repeat('z', 3000000)")
    run("SELECT /**/ length('#{"z" * 3_000_000}')")
  end
end

journal = Journal.new("rubypg")
Journal.rounds.times do
  connection = PG.connect
  Session.new(journal, connection).round
  connection.close
end
