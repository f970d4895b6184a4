//! Every question against a brute-force scan of the evidence log, on made-up data: the same answer, however much of it is
//! sealed or compacted, whatever was amended in between, and also when a part of it was erased.

use std::{collections::BTreeSet, path::Path};

use futures::StreamExt as _;
use rand::{Rng, SeedableRng, rngs::StdRng};

use self::naive::{Evidence, Row};
use super::*;
use crate::{
    ask,
    custody::tests::Running,
    export::{Export, Format},
    log::read_batches,
    report,
    store::{
        edges::NewEdges,
        page::{MAX_ROWS, Page},
        question::{Question, Span},
        selection::Selection,
        timeline::Timeline,
        unattributed::Unattributed,
        what::What,
        who::{Asked, Sought},
    },
};
use record::Decoder;

mod made;
mod naive;

/// From which seed on, and how many, as in `PGWITNESS_ORACLE=7,1`: a failure names the seed, which can then be run alone. Each takes some
/// fifteen seconds.
fn seeds() -> std::ops::Range<u64> {
    let Ok(asked) = std::env::var("PGWITNESS_ORACLE") else {
        return 0..2;
    };
    let (from, count) = asked.split_once(',').unwrap_or(("0", &asked));
    let (from, count): (u64, u64) = (from.parse().unwrap(), count.parse().unwrap());
    from..from + count
}

#[tokio::test]
async fn every_question_is_answered_as_a_scan_of_the_evidence_answers_it() {
    for seed in seeds() {
        let data = tempfile::tempdir().unwrap();
        let own = made::log(data.path(), seed).await;
        compared(data.path(), &own, seed).await;
        erased(data.path(), &own, seed).await;
    }
}

/// Erases at random, then removes what is old, and compares: what the collector that did it answers, and one that makes its store anew.
async fn erased(data: &Path, own: &str, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed ^ 0xe7a5_ed00);
    let (evidence, root) = (data.join("evidence"), data.join("store"));
    for round in 0..4 {
        let running = Running::with(data, options(seed)).await.unwrap();
        running.store.put_uses_together().await.unwrap();
        assert!(running.store.status().rows_in_uses > 0, "days were put together");
        let events: Vec<(String, u64)> = Evidence::read(&evidence, own, u64::MAX).ids().collect();
        let selected = match round {
            0 => Some(made::names_to_erase(&mut random, &events, own)),
            3 => None,
            _ => Some(made::to_erase(&mut random, &events)),
        };
        match selected {
            Some(selected) => drop(running.erase(selected).await.unwrap()),
            None => assert!(running.remove_older(made::SECOND_HALF).await > 0),
        }
        let (newest, _) = read_batches(&evidence, 0).last().unwrap().unwrap();
        while running.store.status().entries <= newest {
            tokio::task::yield_now().await;
        }
        let scanned = Evidence::read(&evidence, own, u64::MAX);
        answers_are_equal(&running.store, &scanned, &mut random, seed).await;
        running.stop().await;
    }
    std::fs::remove_dir_all(&root).unwrap();
    let store = open(&root, &evidence, own, seed).await;
    crate::rebuild::hand_over(&evidence, &store, |_| {})
        .await
        .unwrap();
    let scanned = Evidence::read(&evidence, own, u64::MAX);
    answers_are_equal(&store, &scanned, &mut random, seed).await;
}

/// Appends the log's entries, seals and compacts at random, opens the store anew at random, and compares some times on the way.
async fn compared(data: &Path, own: &str, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed ^ 0x0bad_5eed);
    let (evidence, root) = (data.join("evidence"), data.join("store"));
    let entries = read_batches(&evidence, 0).count();
    let midway = random.gen_range(entries / 3..entries);
    let mut store = open(&root, &evidence, own, seed).await;
    let mut decoder = Decoder::default();
    for (place, read) in (1..).zip(read_batches(&evidence, 0)) {
        let (log_index, batch) = read.unwrap();
        store.append(log_index, decoder.decode(&batch).unwrap()).await;
        if random.gen_ratio(1, 9) {
            store.seal().await.unwrap();
            if random.gen_ratio(1, 4) {
                store.compact().await.unwrap();
                store.sweep().await.unwrap();
            }
            if random.gen_ratio(1, 2) {
                store.put_uses_together().await.unwrap();
            }
            if random.gen_ratio(1, 3) {
                drop(store);
                store = open(&root, &evidence, own, seed).await;
            }
        }
        if place == midway {
            let scanned = Evidence::read(&evidence, own, log_index);
            answers_are_equal(&store, &scanned, &mut random, seed).await;
        }
    }
    store.seal().await.unwrap();
    store.put_uses_together().await.unwrap();
    // What days have in common is of files that go now.
    store.compact().await.unwrap();
    assert!(
        store.status().sealed_files < entries,
        "something was put together"
    );
    let scanned = Evidence::read(&evidence, own, u64::MAX);
    answers_are_equal(&store, &scanned, &mut random, seed).await;
    store.put_uses_together().await.unwrap();
    assert!(store.status().rows_in_uses > 0, "days were put together");
    answers_are_equal(&store, &scanned, &mut random, seed).await;
}

/// Some hours of the day are over, or all of it.
fn options(seed: u64) -> StoreOptions {
    StoreOptions {
        now: if seed.is_multiple_of(2) { amid } else { later },
        ..by_hand()
    }
}

async fn open(root: &Path, evidence: &Path, own: &str, seed: u64) -> Arc<Store> {
    let store = Store::open(root, options(seed)).await.unwrap();
    store.show_events_of(Arc::new(crate::log::Places::new(evidence)));
    store.believe(own).await.unwrap();
    store
}

async fn answers_are_equal(store: &Store, scanned: &Evidence, random: &mut StdRng, seed: u64) {
    let at = |what: &str| format!("{what}, seed {seed}, {} events", scanned.events.len());
    let page = store.query("SELECT * FROM principals", MAX_ROWS).await.unwrap();
    same(&page, scanned.principals(), &at("principals"));
    let span = made::span(random);
    let principal = made::pattern(random);
    let object = made::object_asked(random);

    for span in [span, Span::default()] {
        let asked = made::asked(random, span);
        let answer = store.who(&asked).await.unwrap();
        let expected = scanned.who(&asked);
        same(
            &answer.touched,
            expected.touched,
            &at(&format!("touched of {asked:?}")),
        );
        same(
            &answer.not_excluded,
            expected.not_excluded,
            &at(&format!("not excluded of {asked:?}")),
        );
        assert_eq!(
            [
                answer.gaps,
                answer.opaque_sessions,
                answer.left_out,
                answer.moved,
                answer.removals
            ],
            expected.missing,
            "{}",
            at("not seen")
        );
    }

    for question in [
        What {
            principal: Some(principal.clone()),
            object: None,
            span,
        },
        What {
            principal: None,
            object: Some(object),
            span,
        },
    ] {
        let page = question.answer(store).await.unwrap();
        same(&page, scanned.what(&question), &at(&format!("{question:?}")));
    }

    let which = Selection {
        kind: random.gen_ratio(1, 3).then(|| "query".to_owned()),
        principal: random.gen_bool(0.5).then(|| principal.clone()),
        span,
        ..Selection::default()
    };
    assert_eq!(
        exported(store, &which).await,
        scanned.exported(&which),
        "{}",
        at(&format!("{which:?}"))
    );

    let question = NewEdges {
        since_ns: made::moment(random),
        until_ns: random.gen_bool(0.5).then(|| made::moment(random)),
    };
    let page = question.answer(store).await.unwrap();
    same(&page, scanned.new_edges(question), &at(&format!("{question:?}")));

    let question = Unattributed { span };
    let page = question.answer(store).await.unwrap();
    same(
        &page,
        scanned.unattributed(question),
        &at(&format!("{question:?}")),
    );

    figures_are_equal(store, scanned, random, seed).await;

    let whose = if random.gen_bool(0.5) {
        (Some(made::session(random)), None)
    } else {
        (None, Some(principal))
    };
    let question = Timeline {
        session: whose.0,
        principal: whose.1,
        span,
        after: None,
        limit: random.gen_range(20..60),
    };
    let expected = scanned.timeline(&question);
    assert_eq!(
        paged(store, question.clone()).await,
        expected,
        "{}",
        at(&format!("{question:?}"))
    );
}

/// What the page shows, what reports count, and what `ask` answers.
async fn figures_are_equal(store: &Store, scanned: &Evidence, random: &mut StdRng, seed: u64) {
    let at = |what: &str| format!("{what}, seed {seed}, {} events", scanned.events.len());
    let since = made::moment(random);
    let overview: Value = store.overview(since).await.unwrap().into();
    for (figure, expected) in scanned.overview(since) {
        assert_eq!(overview[figure], expected, "{figure} of {}", at("overview"));
    }
    let begins = store.begins().await.unwrap();
    let begins = begins.map(|time| time.parse::<jiff::Timestamp>().unwrap().as_nanosecond() as u64);
    assert_eq!(begins, scanned.begins(), "{}", at("the beginning"));
    let page = store.principals(since).await.unwrap();
    let column = |name: &str| page.columns.iter().position(|column| column == name).unwrap();
    let (principal, statements) = (column("principal"), column("statements"));
    let found = page
        .rows
        .iter()
        .map(|row| (row[principal].clone(), row[statements].clone()));
    assert_eq!(
        found.collect::<Vec<_>>(),
        scanned.busiest(since),
        "{}",
        at("the busiest")
    );
    let kind = random.gen_bool(0.5).then(|| "query".to_owned());
    let filter = Filter {
        kind: kind.clone(),
        ..Filter::default()
    };
    let limit = random.gen_range(1..80);
    let found = store.newest(&filter, Some(since), limit).await.unwrap();
    let found = found
        .iter()
        .map(|event| event["event_id"].as_str().unwrap().to_owned());
    let expected = scanned.newest(kind.as_deref(), since, limit);
    assert_eq!(found.collect::<Vec<_>>(), expected, "{}", at("the newest"));

    let span = made::span(random);
    for (asked, expected) in [
        (report::Asked::Coverage(span), scanned.coverage(span)),
        (report::Asked::AccessReview(span), scanned.access_review(span)),
    ] {
        let report = asked.answer(store).await.unwrap();
        for (title, expected) in expected {
            let section = report.sections.iter().find(|section| section.title == title);
            let table = section.unwrap().table.clone().unwrap_or_default();
            same(&table, expected, &at(&format!("{title} of {asked:?}")));
        }
    }

    let [counts] = store.pages(span, &[report::evidence_pack::COUNTS]).await.unwrap();
    let (expected, by_kind) = scanned.evidence_pack(span);
    same(
        &counts,
        vec![expected],
        &at(&format!("evidence pack of {span:?}")),
    );
    let pack = report::Asked::EvidencePack(span).answer(store).await.unwrap();
    let section = pack
        .sections
        .iter()
        .find(|section| section.title == "Events of the period");
    let table = section.unwrap().table.clone().unwrap_or_default();
    same(&table, by_kind, &at(&format!("kinds of {span:?}")));

    let asked = made::asked(random, span);
    let named = naive::dsar_of(&asked, true).answer(store).await.unwrap();
    let numbered = naive::dsar_of(&asked, false).answer(store).await.unwrap();
    for (place, (title, expected)) in scanned.dsar(&asked).into_iter().enumerate() {
        let [named, numbered] = [&named, &numbered].map(|report| {
            let section = &report.sections[place];
            assert_eq!(section.title, title);
            section.table.clone().unwrap_or_default()
        });
        assert_eq!(named.rows.len(), numbered.rows.len(), "{}", at(title));
        same(&named, expected, &at(&format!("{title} of {asked:?}")));
    }
    let text = format!("{:?}", numbered.sections);
    assert!(
        !text.contains("spiffe://"),
        "{}: {text}",
        at("actors have numbers")
    );

    let when = ask::When {
        since,
        quiet: 3600,
        now: since,
        expires: since,
        rotated: since,
    };
    use ask::Question::{Dormant, NewPrincipals, NewWorkloads, SharedRoles};
    for question in [SharedRoles, NewPrincipals, NewWorkloads, Dormant] {
        let page = store.query(&question.sql(&when), MAX_ROWS).await.unwrap();
        same(
            &page,
            scanned.asked(question, &when),
            &at(&format!("{question:?} since {since}")),
        );
    }
}

/// Ids and principals of an export.
async fn exported(store: &Store, which: &Selection) -> BTreeSet<(String, String)> {
    let export = Export {
        format: Format::Jsonl,
        which: which.clone(),
    };
    let mut pieces = export.of(store).await.unwrap();
    let mut text = Vec::new();
    while let Some(piece) = pieces.next().await {
        text.extend_from_slice(&piece.unwrap().bytes);
    }
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let named = |event: &Value| {
        let text = |place: &str| {
            event
                .pointer(place)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        (text("/event_id"), text("/attribution/principal"))
    };
    let events: BTreeSet<_> = lines.iter().map(named).collect();
    assert_eq!(events.len(), lines.len(), "an event is there twice");
    events
}

/// All pages of a timeline, one behind the other.
async fn paged(store: &Store, mut question: Timeline) -> Vec<Row> {
    let mut rows = Vec::new();
    loop {
        let page = question.answer(store).await.unwrap();
        assert!(page.rows.len() <= question.limit);
        rows.extend(naive::rows(&page, naive::TIMELINE));
        match Timeline::next(&page) {
            Some(next) => question.after = Some(next.to_owned()),
            None => return rows,
        }
    }
}

/// The page has these rows, in whatever order; of columns those that the rows name.
#[track_caller]
fn same(page: &Page, mut expected: Vec<Row>, what: &str) {
    assert!(!page.truncated, "{what}");
    let Some(first) = expected.first() else {
        assert!(page.rows.is_empty(), "{what}: {:?}", page.rows);
        return;
    };
    let columns: Vec<&'static str> = first.keys().copied().collect();
    let mut found = naive::rows(page, &columns);
    let by_text = |row: &Row| format!("{row:?}");
    found.sort_by_key(by_text);
    expected.sort_by_key(by_text);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "{what}");
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}
