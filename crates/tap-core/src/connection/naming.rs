//! How a connection takes part in what is known of names: what it asks may change them, and what its own statements name is
//! looked up.

use std::sync::Arc;

use pg_wire::{Exchange, ExchangeKind, Nanos, Outcome, StatementResult};
use sql_meaning::{Class, Defines, class_of_tag, defines};

use super::{Connection, Recorder};
use crate::{
    assertions::{Assertions, Tracked},
    catalog::{Asking, Catalog, Definer, Known, Path, Resolution, Sight},
    event::{Query, SessionFacts},
};

/// How a session looks for names, kept while nothing changes.
pub(super) struct Looks {
    /// When the session began.
    opened: Nanos,
    /// The `search_path` that it began with, once that was sure.
    path: Option<Arc<str>>,
    kept: Option<(u64, Known, Option<Arc<Sight>>)>,
}

impl Looks {
    pub(super) fn new(opened: Nanos) -> Self {
        Self {
            opened,
            path: None,
            kept: None,
        }
    }

    /// How it looks from here on. `version` is that of what it asserts.
    fn sight(
        &mut self,
        facts: &SessionFacts,
        (assertions, version): (&Assertions, u64),
        known: &Known,
        names: &Tracked,
        catalog: &mut Catalog,
    ) -> Option<Arc<Sight>> {
        if let Some((kept, of, sight)) = &self.kept
            && *kept == version
            && Arc::ptr_eq(&of.names, &known.names)
        {
            return sight.clone();
        }
        let path = match assertions.path(names) {
            Path::Unknown => None,
            Path::Set(path) => Some(path),
            Path::Default => {
                // Settings count for sessions that begin later.
                if self.path.is_none() && catalog.settings_changed(facts.server_pid) < self.opened {
                    let path = facts
                        .login_role
                        .as_deref()
                        .and_then(|role| known.names.path_of(role));
                    self.path = path.map(Arc::from);
                }
                self.path.clone()
            }
        };
        let role = assertions.sure_role();
        let sight = path.and_then(|path| catalog.sight(known, &path, role.as_deref()));
        self.kept = Some((version, known.clone(), sight.clone()));
        sight
    }
}

/// What the statements of a unit are looked up with.
pub(crate) struct Naming<'a> {
    catalog: &'a mut Catalog,
    facts: &'a SessionFacts,
    definer: &'a Definer,
    /// Until something in the unit may have changed it.
    sight: Option<Arc<Sight>>,
    pub(super) learnt: Learnt,
}

/// What the statements of a unit may have done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Learnt {
    /// Those whose text nobody knows.
    pub(super) defined: Defines,
    /// Code ran that nobody sees.
    pub(super) unseen: bool,
    /// A stream in both directions began, which may last for weeks.
    pub(super) streams: bool,
}

impl Learnt {
    /// Whether an exchange only began.
    pub(super) fn streams(exchange: &Exchange) -> bool {
        let is_open = |result: &StatementResult| result.outcome == Outcome::Suspended;
        exchange.kind == ExchangeKind::Simple && exchange.results.iter().any(is_open)
    }
}

impl Naming<'_> {
    /// What the objects of a statement are. `parsed_now`: with this very request.
    pub(crate) fn resolve(&mut self, query: &Query, since: Nanos, parsed_now: bool) -> Option<Resolution> {
        let resolution = self.look_up(query, since, parsed_now);
        self.follow(query);
        resolution
    }

    fn look_up(&mut self, query: &Query, since: Nanos, parsed_now: bool) -> Option<Resolution> {
        let statement = query.statement.as_ref().filter(|_| query.text_is_whole())?;
        let database = self.facts.database.as_deref()?;
        if !self.definer.is_quiet() {
            return None;
        }
        let known = self
            .catalog
            .sure(self.facts.server_pid, database, self.facts.cookie, since)?;
        // A portal stays as it was when it was opened.
        let is_old = query.continues.is_some() || matches!(statement.command.as_str(), "FETCH" | "MOVE");
        let only_oids = is_old || self.learnt.unseen || !known.is_after(self.definer.own());
        let asking = Asking {
            server: self.facts.server_pid,
            database,
            session: self.facts.cookie,
            since,
            statement,
            source: query.source_statement.as_ref(),
            columns: &query.columns,
            ran: matches!(query.outcome, Outcome::Ok | Outcome::Suspended),
            only_oids,
            // What was prepared before is not looked for again where a nearer name was made since.
            sight: self
                .sight
                .as_ref()
                .filter(|_| parsed_now && query.source_statement.is_none()),
        };
        self.catalog.resolve(&asking)
    }

    /// What comes behind a statement in the same unit may see other names.
    fn follow(&mut self, query: &Query) {
        let statement = query.statement.as_deref().filter(|_| query.text_is_whole());
        let Some(statement) = statement else {
            self.sight = None;
            self.learnt.defined = self.learnt.defined.max(of_tag(query));
            self.learnt.unseen = true;
            return;
        };
        let begins = matches!(statement.command.as_str(), "BEGIN" | "START TRANSACTION");
        let queries = matches!(statement.class, Class::Read | Class::Write);
        let source = query.source_statement.as_ref();
        let runs = source.is_some_and(|source| source.effect.unseen);
        self.learnt.unseen |= statement.effect.unseen || runs;
        if statement.effect.settings || statement.effect.unseen || !(begins || queries) {
            self.sight = None;
        }
    }
}

/// What a statement whose text is not known may have defined.
fn of_tag(query: &Query) -> Defines {
    let tag = query.tag.as_deref().unwrap_or_default();
    match class_of_tag(tag) {
        Class::Role => Defines::Shared,
        Class::Ddl => Defines::Names,
        _ if matches!(tag, "DO" | "CALL") || query.function_oid.is_some() => Defines::Shared,
        // A SELECT INTO says SELECT.
        _ if tag.starts_with("SELECT") && query.text.is_none() => Defines::Names,
        _ => Defines::Nothing,
    }
}

/// [`Defines`] as a weight; a text that nobody knows is weighed when it is answered.
pub(super) fn weigh(text: Option<&[u8]>) -> u8 {
    let found = text.map_or(Defines::Nothing, defines);
    WEIGHTS
        .iter()
        .position(|one| *one == found)
        .map_or(0, |place| place as u8)
}

const WEIGHTS: [Defines; 4] = [
    Defines::Nothing,
    Defines::Temporary,
    Defines::Names,
    Defines::Shared,
];

impl Connection {
    /// The client asked for something.
    pub(super) fn asks(&mut self, recorder: &mut Recorder) {
        let Some(catalog) = &mut recorder.catalog else {
            return;
        };
        let asked = usize::from(self.session.take_asked());
        let asked = WEIGHTS.get(asked).copied().unwrap_or_default();
        let waits = !self.session.is_settled();
        let defines = self.definer.asks(asked) && waits;
        catalog.defining(self.facts.server_pid, self.facts.cookie, defines);
    }

    /// What the statements of a unit are looked up with, as the session is when it begins.
    pub(super) fn naming<'a>(
        facts: &'a SessionFacts,
        assertions: &mut Assertions,
        looks: &mut Looks,
        definer: &'a Definer,
        (catalog, names): (&'a mut Catalog, &Tracked),
        since: Nanos,
    ) -> Naming<'a> {
        let version = assertions.version(names);
        let database = facts.database.as_deref();
        let known = database
            .and_then(|database| catalog.sure(facts.server_pid, database, facts.cookie, since))
            .cloned();
        let sight = known.and_then(|known| looks.sight(facts, (assertions, version), &known, names, catalog));
        Naming {
            catalog,
            facts,
            definer,
            sight,
            learnt: Learnt::default(),
        }
    }

    /// A unit was answered, and this is the status behind it.
    pub(super) fn defined(&mut self, learnt: Learnt, status: Option<u8>, at: Nanos, recorder: &mut Recorder) {
        let Some(catalog) = &mut recorder.catalog else {
            return;
        };
        if learnt.unseen {
            self.definer.unseen(at);
        }
        let (server, cookie) = (self.facts.server_pid, self.facts.cookie);
        let settled = self.session.is_settled();
        let changed = self
            .definer
            .answered(learnt.defined, status, (settled, learnt.streams), at);
        catalog.doubt(server, self.facts.database.as_deref(), changed, at);
        let defines = !settled && self.definer.asks(Defines::Nothing);
        catalog.defining(server, cookie, defines);
    }

    /// The session is over.
    pub(super) fn stops_defining(&mut self, at: Nanos, recorder: &mut Recorder) {
        let Some(catalog) = &mut recorder.catalog else {
            return;
        };
        let (server, cookie) = (self.facts.server_pid, self.facts.cookie);
        catalog.defining(server, cookie, false);
        catalog.doubt(server, self.facts.database.as_deref(), self.definer.ends(), at);
    }
}
