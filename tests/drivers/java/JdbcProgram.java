import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.sql.Array;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.util.Properties;
import java.util.UUID;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;

/**
 * JDBC in each of its query modes: batches, fetch sizes (portals executed in parts), server-side preparation after five
 * executions, generated keys, COPY, large objects (function calls), savepoints and errors.
 */
final class JdbcProgram {
    private static final String NAME = "jdbc";
    private final Journal journal;
    private final Connection connection;
    private final boolean extended;
    /** Whether statements without parameters are sent with the extended protocol too. */
    private final boolean plainExtended;
    private final int pid;

    private JdbcProgram(Journal journal, Connection connection, String mode) {
        this.journal = journal;
        this.connection = connection;
        this.extended = !mode.equals("simple");
        this.plainExtended = extended && !mode.equals("extendedForPrepared");
        this.pid = ((PGConnection) connection).getBackendPID();
    }

    public static void main(String[] arguments) throws Exception {
        Journal journal = new Journal(NAME);
        String[] modes = {"extended", "simple", "extendedForPrepared", "extendedCacheEverything"};
        for (int round = 0; round < Journal.rounds(); round++) {
            for (String mode : modes) {
                try (Connection connection = connect(mode, "false")) {
                    new JdbcProgram(journal, connection, mode).session();
                }
            }
            try (Connection connection = connect("extended", "true")) {
                new JdbcProgram(journal, connection, "extended").rewrittenBatch();
            }
        }
    }

    private static Connection connect(String mode, String rewrite) throws SQLException {
        Properties settings = new Properties();
        settings.setProperty("user", System.getenv("PGUSER"));
        settings.setProperty("password", System.getenv("PGPASSWORD"));
        settings.setProperty("preferQueryMode", mode);
        settings.setProperty("reWriteBatchedInserts", rewrite);
        String sslMode = System.getenv("PGSSLMODE");
        settings.setProperty("sslmode", sslMode);
        if (!sslMode.equals("disable")) {
            settings.setProperty("sslrootcert", System.getenv("PGSSLROOTCERT"));
        }
        settings.setProperty("gssEncMode", "disable");
        String host = System.getenv("PGHOST");
        if (host.startsWith("/")) {
            System.err.println("cannot run here, because this driver has no Unix sockets of its own");
            System.exit(77);
        }
        String place = host + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
        return DriverManager.getConnection("jdbc:postgresql://" + place, settings);
    }

    private void session() throws Exception {
        query("SELECT /**/ set_config('TimeZone', 'UTC', false)", 1);
        values();
        changes();
        afterFive();
        batches();
        fetchSizes();
        keys();
        failures();
        strings();
        copies();
        largeObjects();
        big();
        change("DROP TABLE /**/ jdbc_t", null);
    }

    private void values() throws Exception {
        Object[] values = {
            7, (short) 3, 1L << 62, -5, 1.5, -0.25f, new BigDecimal("12345678901234567890.123456789"), true, false,
            "it's \"quoted\" \\ ümlaut", "", new byte[] {0, 1, -1, '\\', '\''}, UUID.fromString("00000000-0000-0000-1234-567890abcdef"),
            java.sql.Date.valueOf("2024-02-29"),
        };
        String[] types = {
            "int4", "int2", "int8", "int4", "float8", "float4", "numeric", "bool", "bool", "text", "text", "bytea", "uuid", "date",
        };
        for (int i = 0; i < values.length; i++) {
            query("SELECT /**/ ?::" + types[i] + " AS v, " + i, 1, values[i]);
        }
        query("SELECT /**/ ?::timestamptz AS v", 1, java.time.OffsetDateTime.parse("2024-02-29T12:30:15.123456Z"));
        query("SELECT /**/ ?::text, ?::int4", 1, null, null);
        query("SELECT /**/ ?::jsonb ->> 'a', ?::inet", 1, "{\"a\": 1}", "10.1.2.3");
        String text = journal.mark("SELECT /**/ unnest(?::int4[])");
        try (PreparedStatement statement = connection.prepareStatement(text)) {
            Array array = connection.createArrayOf("int4", new Integer[] {1, 2, 3});
            statement.setArray(1, array);
            received(text, statement.executeQuery(), 3, new Object[] {new Integer[] {1, 2, 3}});
        }
    }

    private void changes() throws Exception {
        change("CREATE TEMP TABLE jdbc_t /**/ (id serial PRIMARY KEY, n int8, name text)", null);
        change("INSERT INTO jdbc_t /**/ (n, name) VALUES (?, ?)", 1, 1L, "one");
        change("INSERT INTO jdbc_t /**/ (n, name) SELECT g, NULL FROM generate_series(1, ?) g", 30, 30);
        change("UPDATE jdbc_t /**/ SET name = ? WHERE n > ?", 10, "big", 20L);
        change("DELETE FROM jdbc_t /**/ WHERE n = ?", 0, -1L);
    }

    private void afterFive() throws Exception {
        String text = journal.mark("SELECT /**/ id, name FROM jdbc_t WHERE n <= ? ORDER BY id");
        try (PreparedStatement statement = connection.prepareStatement(text)) {
            for (int i = 1; i <= 9; i++) {
                statement.setLong(1, i % 3);
                received(text, statement.executeQuery(), i % 3 == 0 ? 0 : i % 3 + 1, new Object[] {i % 3});
            }
        }
        for (int i = 0; i < 7; i++) {
            query("SELECT /**/ ?::int4 + 5", 1, i);
        }
    }

    private void batches() throws Exception {
        String text = journal.mark("INSERT INTO jdbc_t /**/ (n, name) VALUES (?, 'batch')");
        try (PreparedStatement statement = connection.prepareStatement(text)) {
            for (int i = 0; i < 25; i++) {
                statement.setLong(1, 1000 + i);
                statement.addBatch();
            }
            Journal.expect("batch", statement.executeBatch().length, 25);
            for (int i = 0; i < 25; i++) {
                line(text, null, 1, null, 1000 + i);
            }
        }
        String divide = journal.mark("UPDATE jdbc_t /**/ SET n = n / ? WHERE id = 1");
        try (PreparedStatement statement = connection.prepareStatement(divide)) {
            for (int by : new int[] {1, 1, 0, 1, 1}) {
                statement.setInt(1, by);
                statement.addBatch();
            }
            try {
                statement.executeBatch();
                throw new IllegalStateException("the batch did not fail");
            } catch (BatchUpdateException failed) {
                Journal.expect("batch", failed.getSQLState(), "22012");
            }
            line(divide, null, 1, null, 1);
            line(divide, null, 1, null, 1);
            line(divide, null, null, "22012", 0);
            if (!extended) {
                // As one string each: what is behind the error is sent and executed all the same.
                line(divide, null, 1, null, 1);
                line(divide, null, 1, null, 1);
            }
        }
        try (Statement statement = connection.createStatement()) {
            String[] texts = new String[6];
            for (int i = 0; i < texts.length; i++) {
                texts[i] = journal.mark("UPDATE jdbc_t /**/ SET name = 'b" + i + "' WHERE n = " + (1000 + i));
                statement.addBatch(texts[i]);
            }
            Journal.expect("batch", statement.executeBatch()[5], 1);
            for (String one : texts) {
                journal.line(one, pid, null, 1, null, null, null);
            }
        }
    }

    /** Four rows in one statement: the driver folds powers of two. */
    private void rewrittenBatch() throws Exception {
        change("CREATE TEMP TABLE jdbc_r /**/ (n int8, name text)", null);
        String text = journal.mark("INSERT INTO jdbc_r /**/ (n, name) VALUES (?, ?)");
        try (PreparedStatement statement = connection.prepareStatement(text)) {
            for (int i = 0; i < 4; i++) {
                statement.setLong(1, i);
                statement.setString(2, "r" + i);
                statement.addBatch();
            }
            statement.executeBatch();
        }
        line(text, null, 4, null, 0, "r0", 1, "r1", 2, "r2", 3, "r3");
        query("SELECT /**/ * FROM jdbc_r", 4);
    }

    private void fetchSizes() throws Exception {
        connection.setAutoCommit(false);
        String text = journal.mark("SELECT /**/ g, repeat('x', 50) FROM generate_series(1, ?) g");
        for (int size : new int[] {10, 7, 1000}) {
            try (PreparedStatement statement = connection.prepareStatement(text)) {
                statement.setFetchSize(size);
                statement.setInt(1, 60);
                received(text, statement.executeQuery(), 60, new Object[] {60});
            }
        }
        String left = journal.mark("SELECT /**/ g FROM generate_series(1, 100) g");
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(10);
            ResultSet rows = statement.executeQuery(left);
            for (int i = 0; i < 25; i++) {
                rows.next();
            }
        }
        // Three parts of ten were received when the program left; in the simple mode there are no parts.
        journal.line(left, pid, plainExtended ? 30 : 100, null, null, null, null);
        String limited = journal.mark("SELECT /**/ g, 'limited' FROM generate_series(1, 100) g");
        try (Statement statement = connection.createStatement()) {
            statement.setMaxRows(5);
            int got = 0;
            for (ResultSet rows = statement.executeQuery(limited); rows.next(); ) {
                got++;
            }
            Journal.expect("limited", got, plainExtended ? 5 : 100);
        }
        // The simple mode knows no limit.
        journal.line(limited, pid, plainExtended ? 5 : 100, null, null, null, null);
        connection.commit();
        connection.setAutoCommit(true);
    }

    private void keys() throws Exception {
        String text = journal.mark("INSERT INTO jdbc_t /**/ (n, name) VALUES (?, 'keys')");
        try (PreparedStatement statement = connection.prepareStatement(text, new String[] {"id"})) {
            statement.setLong(1, 77);
            Journal.expect("keys", statement.executeUpdate(), 1);
            Journal.expect("keys", statement.getGeneratedKeys().next(), true);
            line(text, 1, 1, null, 77);
        }
        String all = journal.mark("UPDATE jdbc_t /**/ SET n = 78 WHERE name = 'keys'");
        try (Statement statement = connection.createStatement()) {
            Journal.expect("keys", statement.executeUpdate(all, Statement.RETURN_GENERATED_KEYS), 1);
            journal.line(all, pid, 1, 1, null, null, null);
        }
    }

    private void failures() throws Exception {
        fails("42P01", "SELECT /**/ * FROM no_such_table");
        fails("22012", "SELECT /**/ 1 / 0");
        fails("42601", "SELECT /**/ FROM WHERE");
        connection.setAutoCommit(false);
        Savepoint savepoint = connection.setSavepoint("jdbc_s");
        fails("22012", "SELECT /**/ 2 / 0");
        fails("25P02", "SELECT /**/ 'in a failed transaction'");
        connection.rollback(savepoint);
        query("SELECT /**/ ?::text", 1, "goes on");
        connection.rollback();
        connection.setAutoCommit(true);
    }

    private void strings() throws Exception {
        String text = journal.mark("SELECT /**/ 1; SELECT /**/ 2 UNION SELECT 3; UPDATE jdbc_t /**/ SET n = n WHERE id = 1");
        String[] parts = text.split(";");
        try (Statement statement = connection.createStatement()) {
            Journal.expect("string", statement.execute(text), true);
            Journal.expect("string", statement.getMoreResults(), true);
            Journal.expect("string", statement.getMoreResults(), false);
            Journal.expect("string", statement.getUpdateCount(), 1);
            statement.execute("");
            statement.execute(" ; ");
        }
        journal.line(parts[0], pid, 1, null, null, null, null);
        journal.line(parts[1], pid, 2, null, null, null, null);
        journal.line(parts[2], pid, null, 1, null, null, null);
    }

    private void copies() throws Exception {
        CopyManager copy = ((PGConnection) connection).getCopyAPI();
        StringBuilder lines = new StringBuilder();
        for (int i = 0; i < 500; i++) {
            lines.append(5000 + i).append("\tcopied\n");
        }
        String in = journal.mark("COPY jdbc_t /**/ (n, name) FROM STDIN");
        Journal.expect("copy", copy.copyIn(in, new StringReader(lines.toString())), 500L);
        journal.line(in, pid, null, 500, null, (long) lines.length(), null);
        for (String format : new String[] {"text", "csv", "binary"}) {
            String out = journal.mark("COPY (SELECT n, name FROM jdbc_t WHERE name = 'copied') /**/ TO STDOUT (FORMAT " + format + ")");
            ByteArrayOutputStream received = new ByteArrayOutputStream();
            Journal.expect("copy", copy.copyOut(out, received), 500L);
            journal.line(out, pid, null, 500, null, (long) received.size(), null);
        }
        String bad = journal.mark("COPY jdbc_t /**/ (n) FROM STDIN");
        try {
            copy.copyIn(bad, new StringReader("no number\n"));
            throw new IllegalStateException("bad COPY data was taken");
        } catch (SQLException failed) {
            journal.line(bad, pid, null, null, failed.getSQLState(), null, null);
        }
    }

    /** The driver calls functions by oid: FunctionCall messages, which have no text. */
    private void largeObjects() throws Exception {
        connection.setAutoCommit(false);
        LargeObjectManager manager = ((PGConnection) connection).getLargeObjectAPI();
        long oid = manager.createLO(LargeObjectManager.READWRITE);
        LargeObject object = manager.open(oid, LargeObjectManager.READWRITE);
        object.write(new byte[100_000]);
        object.seek(10);
        Journal.expect("large object", object.read(1000).length, 1000);
        Journal.expect("large object", object.size64(), 100_000L);
        object.close();
        manager.delete(oid);
        connection.commit();
        connection.setAutoCommit(true);
    }

    private void big() throws Exception {
        query("SELECT /**/ length(?)", 1, "abc'def ".repeat(3 * 1024 * 1024 / 8));
        query("SELECT /**/ repeat('z', 3000000)", 1);
        query("SELECT /**/ g, g::text FROM generate_series(1, 5000) g", 5000);
    }

    private void query(String text, int wanted, Object... params) throws Exception {
        String marked = journal.mark(text);
        try (PreparedStatement statement = connection.prepareStatement(marked)) {
            bind(statement, params);
            received(marked, statement.executeQuery(), wanted, claimable(params));
        }
    }

    private void change(String text, Integer wanted, Object... params) throws Exception {
        String marked = journal.mark(text);
        try (PreparedStatement statement = connection.prepareStatement(marked)) {
            bind(statement, params);
            int changed = statement.executeUpdate();
            if (wanted != null) {
                Journal.expect(text, changed, wanted);
            }
            line(marked, null, wanted, null, claimable(params));
        }
    }

    private void fails(String sqlstate, String text) throws Exception {
        String marked = journal.mark(text);
        try (Statement statement = connection.createStatement()) {
            statement.execute(marked);
        } catch (SQLException failed) {
            Journal.expect(text, failed.getSQLState(), sqlstate);
            journal.line(marked, pid, null, null, sqlstate, null, null);
            return;
        }
        throw new IllegalStateException(text + " did not fail");
    }

    private void received(String marked, ResultSet rows, int wanted, Object[] params) throws Exception {
        int got = 0;
        while (rows.next()) {
            got++;
        }
        Journal.expect(marked.substring(0, Math.min(marked.length(), 80)), got, wanted);
        line(marked, got, null, null, params);
    }

    /** In the simple mode the driver writes the values into the text: there are no parameters to claim. */
    private void line(String marked, Integer rows, Integer affected, String sqlstate, Object... params) throws Exception {
        journal.line(marked, pid, rows, affected, sqlstate, null, extended ? params : null);
    }

    private static Object[] claimable(Object[] params) {
        Object[] claimed = params.clone();
        for (int i = 0; i < claimed.length; i++) {
            if (claimed[i] instanceof java.time.OffsetDateTime moment) {
                claimed[i] = moment.toString().replace('T', ' ').replace("Z", "+00");
            } else if (claimed[i] instanceof Double number) {
                claimed[i] = new BigDecimal(number.toString());
            }
        }
        return claimed;
    }

    private static void bind(PreparedStatement statement, Object[] params) throws SQLException {
        for (int i = 0; i < params.length; i++) {
            if (params[i] == null) {
                statement.setNull(i + 1, Types.VARCHAR);
            } else if (params[i] instanceof byte[] bytes) {
                statement.setBytes(i + 1, bytes);
            } else {
                statement.setObject(i + 1, params[i]);
            }
        }
    }
}
