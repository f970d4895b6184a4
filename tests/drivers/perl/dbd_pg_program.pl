# DBD::Pg: with statements prepared on the server and without, COPY, large objects, savepoints, asynchronous queries.
use strict;
use warnings;
use utf8;
use FindBin;
use lib $FindBin::Bin;
use Journal qw(expect);

if (!eval { require DBI; require DBD::Pg; 1 }) {
    warn "cannot run here, because DBD::Pg is not there\n";
    exit 77;
}

my $journal = Journal->new('dbdpg');
# Without preparation on the server the driver writes the values into the text, and no parameter can be claimed.
my ($dbh, $pid, $bound);

for (1 .. Journal::rounds()) {
    for my $server_prepare (1, 0) {
        session($server_prepare);
    }
}

sub session {
    my ($server_prepare) = @_;
    $bound = $server_prepare;
    my $settings = { AutoCommit => 1, RaiseError => 1, PrintError => 0, PrintWarn => 0, pg_server_prepare => $server_prepare, pg_enable_utf8 => 1 };
    $dbh = DBI->connect('dbi:Pg:', '', '', $settings);
    $pid = $dbh->{pg_pid};
    run("SET /**/ TIME ZONE 'UTC'");
    run('CREATE TEMP TABLE dbdpg_t /**/ (id int8, name text, data bytea)');
    expect('insert', run('INSERT INTO dbdpg_t /**/ (id, name) VALUES (?, ?)', 1, "it's \\ \"one\" ümlaut"), 1);
    run('INSERT INTO dbdpg_t /**/ (id, name) VALUES ($1, $2)', 2, undef);
    run('INSERT INTO dbdpg_t /**/ (id, name) SELECT generate_series(10, 19), ? RETURNING id', 'many');
    expect('update', run('UPDATE dbdpg_t /**/ SET name = upper(name) WHERE id > ?', 5), 10);
    run('DELETE FROM dbdpg_t /**/ WHERE id = ?', -1);
    run("SELECT /**/ ?::$_->[0]", $_->[1])
        for ['int4', 7], ['float8', 1.5], ['numeric', '123.4560'], ['bool', 't'], ['text', ''], ['uuid', '00000000-0000-0000-1234-567890abcdef'],
        ['timestamptz', '2024-02-29 12:30:15.123456+00'], ['inet', '10.1.2.3'], ['int4[]', '{1,2,NULL}'], ['jsonb', '{"a": 1}'], ['text', undef];
    prepared();
    binary();
    failures();
    strings();
    cursors();
    copies();
    large_objects();
    run('SELECT /**/ length(?::text)', "abc'def " x (3 * 1024 * 1024 / 8));
    run("SELECT /**/ repeat('z', 3000000)");
    asynchronous();
    run('DROP TABLE /**/ dbdpg_t');
    $dbh->disconnect;
    return;
}

# Without values DBD::Pg sends a simple query, with values it binds; what it prepares is its own affair.
sub run {
    my ($text, @values) = @_;
    my $marked = $journal->mark($text);
    my $sth    = $dbh->prepare($marked);
    return executed($sth, $marked, @values);
}

sub executed {
    my ($sth, $marked, @values) = @_;
    my $count = $sth->execute(@values);
    my %claim = @values && $bound ? (params => \@values) : ();
    $claim{affected} = $count + 0 if $marked =~ /^(INSERT|UPDATE|DELETE)/;
    $claim{rows} = @{ $sth->fetchall_arrayref } if $sth->{NUM_OF_FIELDS};
    $journal->line($marked, $pid, %claim);
    return $claim{rows} // $count;
}

sub fails {
    my ($sqlstate, $text, @values) = @_;
    my $marked = $journal->mark($text);
    eval { my $sth = $dbh->prepare($marked); $sth->execute(@values); 1 } and die "$text did not fail\n";
    expect($text, $dbh->state, $sqlstate);
    $journal->line($marked, $pid, sqlstate => $sqlstate, $sqlstate =~ /^22/ && @values && $bound ? (params => \@values) : ());
    return;
}

sub prepared {
    my $marked = $journal->mark('SELECT /**/ g FROM generate_series(1, ?::int4) g');
    my $sth    = $dbh->prepare($marked);
    expect('prepared', executed($sth, $marked, $_), $_) for 1 .. 6;
    my $now = $journal->mark('SELECT /**/ ?::text');
    $sth = $dbh->prepare($now, { pg_prepare_now => 1 });
    executed($sth, $now, 'now');
    executed($sth, $now, undef);
    my $direct = $journal->mark("SELECT /**/ 'direct'");
    $sth = $dbh->prepare($direct, { pg_direct => 1 });
    executed($sth, $direct);
    my $done = $journal->mark("UPDATE dbdpg_t /**/ SET name = 'done' WHERE id = 1");
    expect('do', $dbh->do($done), 1);
    $journal->line($done, $pid, affected => 1);
    return;
}

sub binary {
    my $marked = $journal->mark('UPDATE dbdpg_t /**/ SET data = ? WHERE id = 1');
    my $sth    = $dbh->prepare($marked);
    $sth->bind_param(1, "\x00\x01\xff'\\", { pg_type => DBD::Pg::PG_BYTEA() });
    expect('bytea', $sth->execute, 1);
    $journal->line($marked, $pid, affected => 1, $bound ? (params => ['\\x0001ff275c']) : ());
    return;
}

sub failures {
    fails('22012', 'SELECT /**/ 1 / ?::int4', 0);
    fails('42P01', 'SELECT /**/ * FROM no_such_table');
    fails('42601', 'SELECT /**/ FROM WHERE');
    $dbh->begin_work;
    run('INSERT INTO dbdpg_t /**/ (id) VALUES (?)', 77);
    $dbh->pg_savepoint('s');
    fails('22012', 'SELECT /**/ 2 / 0');
    fails('25P02', "SELECT /**/ 'in a failed transaction'");
    $dbh->pg_rollback_to('s');
    $dbh->pg_release('s');
    run('SELECT /**/ id FROM dbdpg_t WHERE id = ?', 77);
    $dbh->rollback;
    return;
}

sub strings {
    my $marked = $journal->mark('SELECT /**/ 1; SELECT /**/ 2 UNION SELECT 3; UPDATE dbdpg_t /**/ SET name = name WHERE id = 1');
    $dbh->do($marked);
    # do() hands on the last result only.
    my @parts = split /;/, $marked;
    $journal->line($parts[0], $pid);
    $journal->line($parts[1], $pid);
    $journal->line($parts[2], $pid, affected => 1);
    my $bad = $journal->mark("SELECT /**/ 1; SELECT /**/ 1 / 0; SELECT /**/ 'never'");
    eval { $dbh->do($bad); 1 } and die "the string did not fail\n";
    @parts = split /;/, $bad;
    $journal->line($parts[0], $pid);
    $journal->line($parts[1], $pid, sqlstate => '22012');
    $dbh->do(';');
    return;
}

sub cursors {
    $dbh->begin_work;
    run('DECLARE dbdpg_c CURSOR /**/ FOR SELECT generate_series(1, 30)');
    expect('fetch', run('FETCH 12 /**/ FROM dbdpg_c'), 12);
    expect('fetch', run('FETCH ALL /**/ FROM dbdpg_c'), 18);
    run('CLOSE /**/ dbdpg_c');
    $dbh->commit;
    return;
}

sub copies {
    my $marked = $journal->mark('COPY dbdpg_t /**/ (id, name) FROM STDIN');
    $dbh->do($marked);
    my $bytes = 0;
    for my $number (1000 .. 1299) {
        my $line = "$number\tcopied\n";
        $bytes += length $line;
        $dbh->pg_putcopydata($line);
    }
    $dbh->pg_putcopyend;
    $journal->line($marked, $pid, affected => 300, copy_bytes => $bytes);
    for my $format ('text', 'csv') {
        $marked = $journal->mark("COPY (SELECT id, name FROM dbdpg_t WHERE name = 'copied') /**/ TO STDOUT (FORMAT $format)");
        $dbh->do($marked);
        my ($received, $row) = (0);
        $received += length $row while $dbh->pg_getcopydata($row) >= 0;
        $journal->line($marked, $pid, affected => 300, copy_bytes => $received);
    }
    return;
}

# libpq calls functions by their oid for these: FunctionCall messages, which have no text.
sub large_objects {
    $dbh->begin_work;
    my $oid = $dbh->pg_lo_creat($dbh->{pg_INV_READ} | $dbh->{pg_INV_WRITE});
    my $object = $dbh->pg_lo_open($oid, $dbh->{pg_INV_READ} | $dbh->{pg_INV_WRITE});
    expect('large object', $dbh->pg_lo_write($object, 'x' x 50_000, 50_000), 50_000);
    $dbh->pg_lo_lseek($object, 10, 0);
    my $back = '';
    expect('large object', $dbh->pg_lo_read($object, $back, 1000), 1000);
    $dbh->pg_lo_close($object);
    $dbh->pg_lo_unlink($oid);
    $dbh->commit;
    return;
}

sub asynchronous {
    my $marked = $journal->mark('SELECT /**/ pg_sleep(0.05), ?::text');
    my $sth    = $dbh->prepare($marked, { pg_async => DBD::Pg::PG_ASYNC() });
    $sth->execute('later');
    $sth->pg_result;
    my $rows = @{ $sth->fetchall_arrayref };
    expect('asynchronous', $rows, 1);
    $journal->line($marked, $pid, rows => 1, $bound ? (params => ['later']) : ());
    return;
}
