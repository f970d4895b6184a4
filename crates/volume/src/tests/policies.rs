//! Which rule counts, and what no rule takes away.

use super::*;

fn verdict_of(
    policy: &str,
    change: impl FnOnce(&mut SessionFacts, &mut v1::Attribution, &mut Query),
) -> Verdict {
    let policy = Policy::parse(
        &format!("sensitive = [\"secret.salar*\"]\n{policy}"),
        &Classification::default(),
    )
    .expect("a policy");
    let (mut facts, mut who) = ((*facts(1)).clone(), (*who(v1::Confidence::Observed)).clone());
    let mut query = query("SELECT a FROM public.t WHERE b = 1", "SELECT 1");
    change(&mut facts, &mut who, &mut query);
    policy.verdict(&facts, Some(&who), &query)
}

fn said(query: &mut Query, text: &str) {
    query.statement = Some(Interpreter::new(1).interpret(text.as_bytes()));
    query.text = query
        .statement
        .as_ref()
        .map(|statement| Arc::clone(&statement.redacted));
}

const OFF: &str = "[[rule]]\nkeep = \"off\"\n";

#[test]
fn the_first_rule_that_fits_counts() {
    let rules = "[[rule]]\nkeep = \"full\"\nrole = \"admin\"\n\
                 [[rule]]\nkeep = \"off\"\nprincipal = \"spiffe://*/unit/shop.service\"\nobject = [\"t?\", \"public.t\"]\n\
                 [[rule]]\nkeep = \"rollup\"\ndatabase = \"shop\"\nclass = \"read\"\ncommand = \"sel*\"\n";
    assert_eq!(verdict_of(rules, |_, _, _| {}), Verdict::Off(1));
    assert_eq!(
        verdict_of(rules, |facts, _, _| facts.login_role = Some("admin".into())),
        Verdict::Full
    );
    assert_eq!(
        verdict_of(rules, |_, _, query| said(query, "SELECT 1 FROM other")),
        Verdict::Rollup(2)
    );
    assert_eq!(
        verdict_of(rules, |_, _, query| said(query, "SELECT 1 FROM public.t, other")),
        Verdict::Rollup(2),
        "not all are meant"
    );
    // The text does not say in which schema it is.
    assert_eq!(
        verdict_of(rules, |_, _, query| said(query, "SELECT 1 FROM t")),
        Verdict::Rollup(2)
    );
    assert_eq!(
        verdict_of(rules, |_, _, query| said(query, "DELETE FROM other")),
        Verdict::Full,
        "no rule fits"
    );
    let full = "[[rule]]\nkeep = \"full\"\nobject = \"hr.t\"\n[[rule]]\nkeep = \"off\"\n";
    assert_eq!(verdict_of(full, |_, _, _| {}), Verdict::Off(1));
    assert_eq!(
        verdict_of(full, |_, _, query| said(
            query,
            "SELECT 1 FROM other JOIN t ON true"
        )),
        Verdict::Full,
        "it may be hr's"
    );
}

#[test]
fn what_is_not_known_is_recorded_in_full() {
    let by_role = "[[rule]]\nkeep = \"off\"\nrole = \"app_*\"\n";
    assert_eq!(verdict_of(by_role, |_, _, _| {}), Verdict::Off(0));
    assert_eq!(
        verdict_of(by_role, |facts, _, _| facts.login_role = None),
        Verdict::Full
    );
    let not_first = "[[rule]]\nkeep = \"full\"\nrole = \"admin\"\n[[rule]]\nkeep = \"off\"\n";
    assert_eq!(
        verdict_of(not_first, |facts, _, _| facts.login_role = None),
        Verdict::Full
    );
    let role = |name: &str, possibly_stale| {
        Some(EffectiveRole {
            name: name.into(),
            possibly_stale,
        })
    };
    for (effective, expected) in [
        (role("app_user", false), Verdict::Off(1)),
        (role("admin", false), Verdict::Full),
        (role("app_user", true), Verdict::Full),
    ] {
        assert_eq!(
            verdict_of(not_first, |_, _, query| query.effective_role = effective),
            expected
        );
    }
    for level in [
        v1::Confidence::None,
        v1::Confidence::Inferred,
        v1::Confidence::Asserted,
    ] {
        assert_eq!(
            verdict_of(OFF, |_, who, _| who.confidence = level.into()),
            Verdict::Full
        );
    }
    assert_eq!(
        verdict_of(OFF, |_, who, _| who.principal = "unknown".into()),
        Verdict::Full
    );
    let policy = Policy::parse(OFF, &Classification::default()).expect("a policy");
    let query = query("SELECT 1", "SELECT 1");
    assert_eq!(policy.verdict(&facts(1), None, &query), Verdict::Full);
}

#[test]
fn what_went_wrong_or_goes_on_is_recorded_in_full() {
    let changes: [fn(&mut Query); 9] = [
        |query| query.outcome = Outcome::Error,
        |query| query.outcome = Outcome::Suspended,
        |query| query.outcome = Outcome::Unanswered,
        |query| query.outcome = Outcome::Unknown,
        |query| query.continues = Some(0),
        |query| query.replication = true,
        |query| query.function_oid = Some(1),
        |query| query.truncated = true,
        |query| query.text = None,
    ];
    for change in changes {
        assert_eq!(verdict_of(OFF, |_, _, query| change(query)), Verdict::Full);
    }
}

#[test]
fn no_rule_takes_away_what_is_privileged_or_sensitive() {
    for text in [
        "CREATE TABLE t (a int)",
        "GRANT SELECT ON t TO x",
        "ALTER ROLE x SUPERUSER",
        "ALTER SYSTEM SET work_mem = 1",
        "DO $$ BEGIN END $$",
        "CALL p()",
        "SELECT f(1)",
        "SET ROLE x",
        "SET LOCAL ROLE x",
        "RESET ROLE",
        "SET SESSION AUTHORIZATION x",
        "SET session_replication_role = replica",
        "SET row_security = off",
        "SET log_statement = 'none'",
        "SET pgaudit.log = 'none'",
        "SELECT set_config('role', 'x', false)",
        "COPY t TO PROGRAM 'cat'",
        "COPY t FROM '/etc/passwd'",
        "SELECT pg_read_file('x')",
        "SELECT PG_LS_DIR('x')",
        "SELECT \"pg_read_binary_file\"('x')",
        "SELECT U&\"pg_read\\005ffile\"('x')",
        "SELECT lo_import('x')",
        "SELECT pg_terminate_backend(1)",
        "SELECT pg_reload_conf()",
        "SELECT query_to_xml('select 1', true, true, '')",
        "SELECT rolpassword FROM pg_authid",
        "SELECT * FROM pg_catalog.pg_shadow",
        "LOAD 'x'",
        "CHECKPOINT",
        "EXECUTE s",
        "FETCH 1 FROM c",
        "SELECT a FROM secret.salaries",
        "SELECT a FROM t JOIN salary ON true",
        "SELECT a FROM (t",
    ] {
        assert_eq!(
            verdict_of(OFF, |_, _, query| said(query, text)),
            Verdict::Full,
            "{text}"
        );
    }
}

#[test]
fn the_rest_is_reduced() {
    for text in [
        "BEGIN",
        "START TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT s",
        "SET search_path = x",
        "SET application_name = 'x'",
        "SHOW server_version",
        "DISCARD ALL",
        "DEALLOCATE ALL",
        "SELECT count(*), max(a) FROM t",
        "INSERT INTO t VALUES (1, now())",
        "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = 2",
        "DELETE FROM t",
        "COPY t FROM STDIN",
        "COPY t TO STDOUT",
        "SELECT a FROM secret.t",
        "SELECT a FROM open.salaries",
    ] {
        assert_eq!(
            verdict_of(OFF, |_, _, query| said(query, text)),
            Verdict::Off(0),
            "{text}"
        );
    }
}

#[test]
fn what_an_execute_runs_is_looked_at_too() {
    let run = |text: &str| {
        verdict_of(OFF, |_, _, query| {
            said(query, "EXECUTE s");
            query.source_statement = Some(Interpreter::new(1).interpret(text.as_bytes()));
        })
    };
    assert_eq!(run("SELECT a FROM t"), Verdict::Off(0));
    assert_eq!(run("SELECT a FROM secret.salaries"), Verdict::Full);
    assert_eq!(run("SELECT pg_reload_conf()"), Verdict::Full);
}

#[test]
fn another_policy_counts_from_where_it_came() {
    let (facts, who) = (facts(1), who(v1::Confidence::Observed));
    let mut volume = volume(ROLL);
    let one = || {
        event(
            &facts,
            1,
            Body::Query(Box::new(query("SELECT a FROM t", "SELECT 1"))),
        )
    };
    assert!(volume.take(one(), Some(&who), 1).is_none());
    volume.change(Policy::default());
    assert_eq!(told(&mut volume).len(), 1, "by the former one");
    assert!(volume.take(one(), Some(&who), 1).is_some());
    volume.change(Policy::parse(OFF, &Classification::default()).expect("a policy"));
    assert!(volume.take(one(), Some(&who), 1).is_none() && volume.totals().left_out == 1);
}
