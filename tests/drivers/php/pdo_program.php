<?php

declare(strict_types=1);

/**
 * PDO_pgsql: with values written into the text (emulated), bound without a name, and with statements prepared on the
 * server; scrollable cursors, COPY, large objects, transactions.
 */

require __DIR__ . '/Journal.php';

if (!extension_loaded('pdo_pgsql')) {
    fwrite(STDERR, "cannot run here, because PHP has no pdo_pgsql\n");
    exit(77);
}

final class Session
{
    private int $pid;

    public function __construct(private Journal $journal, private PDO $pdo, private bool $bound)
    {
        $this->pid = $pdo->pgsqlGetPid();
    }

    public function round(): void
    {
        $this->run("SET /**/ TIME ZONE 'UTC'");
        $this->run('CREATE TEMP TABLE pdo_t /**/ (id int8, name text, data bytea)');
        Journal::expect('insert', $this->run('INSERT INTO pdo_t /**/ (id, name) VALUES (?, ?)', ['1', "it's \"one\" ümlaut"]), 1);
        $this->run('INSERT INTO pdo_t /**/ (id, name) VALUES (:id, :name)', ['id' => '2', 'name' => null]);
        $this->run('INSERT INTO pdo_t /**/ (id, name) SELECT generate_series(10, 19), ? RETURNING id', ['many']);
        Journal::expect('update', $this->run('UPDATE pdo_t /**/ SET name = upper(name) WHERE id > ?', ['5']), 10);
        $this->run('DELETE FROM pdo_t /**/ WHERE id = ?', ['-1']);
        $values = [['int4', '7'], ['float8', '1.5'], ['numeric', '123.4560'], ['bool', 't'], ['text', ''], ['text', null],
            ['uuid', '00000000-0000-0000-1234-567890abcdef'], ['timestamptz', '2024-02-29 12:30:15.123456+00'],
            ['inet', '10.1.2.3'], ['int4[]', '{1,2,NULL}'], ['jsonb', '{"a": 1}']];
        foreach ($values as [$type, $value]) {
            $this->run("SELECT /**/ CAST(? AS $type)", [$value]);
        }
        $this->prepared();
        $this->failures();
        $this->strings();
        $this->cursors();
        $this->copies();
        $this->largeObjects();
        $this->run('SELECT /**/ length(CAST(? AS text))', [str_repeat("abc'def ", intdiv(3 * 1024 * 1024, 8))]);
        $this->run("SELECT /**/ repeat('z', 3000000)");
        $this->run('DROP TABLE /**/ pdo_t');
    }

    /** Runs a marked text; gives the rows received or changed. */
    private function run(string $text, array $values = []): int
    {
        $marked = $this->journal->mark($text);
        return $this->executed($this->pdo->prepare($marked), $marked, $values);
    }

    private function executed(PDOStatement $statement, string $marked, array $values): int
    {
        $statement->execute($values);
        $rows = $statement->columnCount() > 0 ? count($statement->fetchAll(PDO::FETCH_NUM)) : null;
        $affected = preg_match('/^(INSERT|UPDATE|DELETE)/', $marked) ? $statement->rowCount() : null;
        $this->journal->line($marked, $this->pid, $rows, $affected, null, null, $this->claimed($values));
        return $rows ?? $affected ?? 0;
    }

    private function claimed(array $values): ?array
    {
        return $this->bound && $values ? array_values($values) : null;
    }

    private function fails(string $sqlstate, string $text, array $values = []): void
    {
        $marked = $this->journal->mark($text);
        try {
            $this->pdo->prepare($marked)->execute($values);
        } catch (PDOException $failed) {
            Journal::expect($text, $failed->errorInfo[0], $sqlstate);
            $params = str_starts_with($sqlstate, '22') ? $this->claimed($values) : null;
            $this->journal->line($marked, $this->pid, null, null, $sqlstate, null, $params);
            return;
        }
        Journal::expect($text, 'no failure', $sqlstate);
    }

    private function prepared(): void
    {
        $marked = $this->journal->mark('SELECT /**/ generate_series(1, CAST(? AS int4))');
        $statement = $this->pdo->prepare($marked);
        for ($number = 0; $number < 6; $number++) {
            Journal::expect('prepared', $this->executed($statement, $marked, [(string) $number]), $number);
        }
        $marked = $this->journal->mark('UPDATE pdo_t /**/ SET data = ? WHERE id = 1');
        $statement = $this->pdo->prepare($marked);
        $statement->bindValue(1, "\x00\x01\xff'\\", PDO::PARAM_LOB);
        $statement->execute();
        $this->journal->line($marked, $this->pid, null, $statement->rowCount(), null, null, $this->bound ? ['\x0001ff275c'] : null);
        $marked = $this->journal->mark('SELECT /**/ CAST(? AS bool), CAST(? AS int4)');
        $statement = $this->pdo->prepare($marked);
        $statement->bindValue(1, true, PDO::PARAM_BOOL);
        $statement->bindValue(2, 42, PDO::PARAM_INT);
        $statement->execute();
        $this->journal->line($marked, $this->pid, count($statement->fetchAll()), null, null, null, $this->bound ? ['t', '42'] : null);
        $marked = $this->journal->mark("UPDATE pdo_t /**/ SET name = 'exec' WHERE id = 1");
        $this->journal->line($marked, $this->pid, null, $this->pdo->exec($marked));
    }

    private function failures(): void
    {
        $this->fails('22012', 'SELECT /**/ 1 / CAST(? AS int4)', ['0']);
        $this->fails('42P01', 'SELECT /**/ * FROM no_such_table');
        $this->fails('42601', 'SELECT /**/ FROM WHERE');
        $this->pdo->beginTransaction();
        $this->run('INSERT INTO pdo_t /**/ (id) VALUES (?)', ['77']);
        $this->fails('22012', 'SELECT /**/ 2 / 0');
        $this->fails('25P02', "SELECT /**/ 'in a failed transaction'");
        $this->pdo->rollBack();
        Journal::expect('rolled back', $this->run('SELECT /**/ id FROM pdo_t WHERE id = ?', ['77']), 0);
    }

    private function strings(): void
    {
        $marked = $this->journal->mark('SELECT /**/ 1; SELECT /**/ 2 UNION SELECT 3; UPDATE pdo_t /**/ SET name = name WHERE id = 1');
        $affected = $this->pdo->exec($marked);
        // exec() hands on the last result only.
        [$first, $second, $third] = explode(';', $marked);
        $this->journal->line($first, $this->pid);
        $this->journal->line($second, $this->pid);
        $this->journal->line($third, $this->pid, null, $affected);
        $bad = $this->journal->mark("SELECT /**/ 1; SELECT /**/ 1 / 0; SELECT /**/ 'never'");
        [$first, $second] = explode(';', $bad);
        try {
            $this->pdo->exec($bad);
            Journal::expect('string', 'no failure', '22012');
        } catch (PDOException $failed) {
            $this->journal->line($first, $this->pid);
            $this->journal->line($second, $this->pid, null, null, $failed->errorInfo[0]);
        }
    }

    private function cursors(): void
    {
        $this->pdo->beginTransaction();
        $marked = $this->journal->mark('SELECT /**/ generate_series(1, 30)');
        $statement = $this->pdo->prepare($marked, [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
        $statement->execute();
        $got = 0;
        while ($statement->fetch(PDO::FETCH_NUM)) {
            $got++;
        }
        Journal::expect('cursor', $got, 30);
        $statement->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_ABS, 5);
        // The driver declares the cursor and fetches row by row with statements of its own.
        $this->journal->line($marked, $this->pid, 31);
        $statement->closeCursor();
        $this->pdo->commit();
    }

    private function copies(): void
    {
        // PDO writes these COPY statements itself, so they have no marker.
        $lines = array_map(fn (int $number) => "$number\tcopied\t\\N", range(1000, 1299));
        Journal::expect('copy', $this->pdo->pgsqlCopyFromArray('pdo_t', $lines), true);
        Journal::expect('copy', count($this->pdo->pgsqlCopyToArray('pdo_t')), 312);
        Journal::expect('copied', $this->run("SELECT /**/ id FROM pdo_t WHERE name = 'copied'"), 300);
    }

    /** libpq calls functions by their oid for these: FunctionCall messages, which have no text. */
    private function largeObjects(): void
    {
        $this->pdo->beginTransaction();
        $oid = $this->pdo->pgsqlLOBCreate();
        $stream = $this->pdo->pgsqlLOBOpen($oid, 'w');
        fwrite($stream, str_repeat('x', 20000));
        rewind($stream);
        Journal::expect('large object', strlen(fread($stream, 1000)), 1000);
        $stream = null;
        $this->pdo->pgsqlLOBUnlink($oid);
        $this->pdo->commit();
    }
}

$journal = new Journal('pdo');
$place = 'pgsql:host=' . getenv('PGHOST') . ';port=' . getenv('PGPORT') . ';dbname=' . getenv('PGDATABASE') . ';sslmode=' . getenv('PGSSLMODE');
$kinds = [
    [[PDO::ATTR_EMULATE_PREPARES => false], true],
    [[PDO::PGSQL_ATTR_DISABLE_PREPARES => true], true],
    [[PDO::ATTR_EMULATE_PREPARES => true], false],
];
for ($round = 0; $round < Journal::rounds(); $round++) {
    foreach ($kinds as [$kind, $bound]) {
        $settings = $kind + [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION];
        $pdo = new PDO($place, getenv('PGUSER'), getenv('PGPASSWORD'), $settings);
        (new Session($journal, $pdo, $bound))->round();
        $pdo = null;
    }
}
