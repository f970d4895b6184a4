//! One event of the evidence, as it was sent and as it is called by now.
//!
//! Owns what amendments do to it, in the words of the documentation, not of the store. No column is known here.

use super::*;

pub(in super::super) struct Seen {
    pub(super) agent: String,
    pub(super) entry: u64,
    pub(super) event: v1::Event,
    /// What stands for it: recorded, or amended.
    pub(super) stands: Option<v1::Attribution>,
}

impl Seen {
    /// What one kernel saw at both ends is what it is; else the newest word about the statement itself, unless names of its session's
    /// statements were taken back behind it; else the newest one about the session. What is said of another session than the one
    /// that was recorded is no observation of this.
    pub(super) fn amend(&mut self, said: &[(v1::Amendment, v1::Attribution)]) {
        let recorded = self.event.attribution.as_ref();
        if recorded.is_some_and(|who| who.confidence() == v1::Confidence::Observed) {
            return;
        }
        let Some(session) = self.client_session().or(self.session()) else {
            return;
        };
        let (mut of_session, mut of_statement) = (None, None);
        for (amendment, attribution) in said
            .iter()
            .filter(|(amendment, _)| amendment.agent_id == self.agent)
        {
            if amendment.events.is_empty() && amendment.session == session {
                of_session = Some(attribution);
                if amendment.r#match == attribution::POOLERS {
                    of_statement = None;
                }
            }
            let mut seq = 0;
            for step in &amendment.events {
                seq += step;
                if seq == self.event.seq {
                    of_statement = Some(attribution);
                }
            }
        }
        if let Some(stands) = of_statement.or(of_session) {
            let mut stands = stands.clone();
            if stands.confidence() == v1::Confidence::Observed {
                stands.confidence = v1::Confidence::Joined.into();
            }
            self.stands = Some(stands);
        }
    }

    pub(super) fn id(&self) -> String {
        format!("{}-{}", self.agent, self.event.seq)
    }

    pub(super) fn kind(&self) -> &'static str {
        json::kind_of(self.event.body.as_ref().unwrap())
    }

    pub(super) fn times(&self) -> (u64, u64) {
        let (began, ended) = (self.event.ts_start_ns, self.event.ts_end_ns);
        (began, if ended == 0 { began } else { ended })
    }

    pub(super) fn query(&self) -> Option<&v1::Query> {
        match self.event.body.as_ref()? {
            Body::Query(query) => Some(query),
            Body::Rollup(all) => all.query.as_ref(),
            _ => None,
        }
    }

    pub(super) fn executions(&self) -> u64 {
        match &self.event.body {
            Some(Body::Query(_)) => 1,
            Some(Body::Rollup(all)) => all.executions,
            _ => 0,
        }
    }

    pub(super) fn named(&self) -> Option<String> {
        let principal = &self.stands.as_ref()?.principal;
        (!principal.is_empty()).then(|| principal.clone())
    }

    pub(super) fn principal(&self) -> String {
        self.named().unwrap_or_else(|| "unknown".to_owned())
    }

    pub(super) fn confidence(&self) -> Option<String> {
        self.stands.as_ref().map(|who| {
            match who.confidence() {
                v1::Confidence::None => "none",
                v1::Confidence::Asserted => "asserted",
                v1::Confidence::Inferred => "inferred",
                v1::Confidence::Joined => "joined",
                v1::Confidence::Observed => "observed",
            }
            .to_owned()
        })
    }

    pub(super) fn is_unattributed(&self) -> bool {
        self.principal() == "unknown" || self.confidence().as_deref() == Some("none")
    }

    pub(super) fn session(&self) -> Option<String> {
        self.event.session.as_ref().map(|session| session.id.clone())
    }

    /// As recorded, unless an amendment says another.
    pub(super) fn client_session(&self) -> Option<String> {
        let of = |who: &v1::Attribution| {
            who.hops
                .last()
                .map(|hop| hop.session.clone())
                .filter(|id| !id.is_empty())
        };
        let stands = self.stands.as_ref().and_then(of);
        stands.or_else(|| self.event.attribution.as_ref().and_then(of))
    }

    pub(super) fn role(&self) -> Option<String> {
        let role = &self.event.session.as_ref()?.login_role;
        (!role.is_empty()).then(|| role.clone())
    }

    pub(super) fn meaning(&self) -> Option<&v1::Meaning> {
        self.query()?.meaning.as_ref()
    }

    pub(super) fn command(&self) -> Option<String> {
        let command = &self.meaning()?.command;
        (!command.is_empty()).then(|| command.clone())
    }

    pub(super) fn class(&self) -> Option<&'static str> {
        match self.meaning()?.class() {
            v1::Class::Unknown => None,
            v1::Class::Read => Some("READ"),
            v1::Class::Write => Some("WRITE"),
            v1::Class::Function => Some("FUNCTION"),
            v1::Class::Role => Some("ROLE"),
            v1::Class::Ddl => Some("DDL"),
            v1::Class::Misc => Some("MISC"),
            v1::Class::MiscSet => Some("MISC_SET"),
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        Some(self.query()?.statement.as_ref()?.text.as_str())
    }

    pub(super) fn result(&self) -> Option<&v1::Result> {
        self.query()?.result.as_ref()
    }

    pub(super) fn outcome(&self) -> Option<&'static str> {
        Some(match self.result()?.outcome() {
            v1::Outcome::Unknown => "unknown",
            v1::Outcome::Ok => "ok",
            v1::Outcome::Error => "error",
            v1::Outcome::Suspended => "suspended",
            v1::Outcome::Canceled => "canceled",
            v1::Outcome::Unanswered => "unanswered",
        })
    }

    /// A statement that did not get beyond its text.
    pub(super) fn never_ran(&self) -> bool {
        self.outcome() == Some("error")
            && self
                .result()
                .is_some_and(|result| result.phase() == v1::Phase::Parse)
    }

    /// Access and name of everything that it names.
    pub(super) fn objects(&self) -> Vec<(String, String)> {
        let objects = self.meaning().map_or(&[][..], |meaning| &meaning.objects);
        objects
            .iter()
            .map(|object| (access(object).to_owned(), name(object)))
            .collect()
    }

    pub(super) fn columns(&self, of_access: &str, of: &str, filtered: bool) -> Vec<String> {
        let objects = self.meaning().map_or(&[][..], |meaning| &meaning.objects);
        let writes = |object: &v1::Object| access(object) == "write";
        let mine = objects.iter().filter(|object| name(object) == of);
        let columns = mine.filter(|object| filtered || writes(object) == (of_access == "write"));
        columns
            .flat_map(|object| {
                if filtered {
                    &object.filtered
                } else {
                    &object.columns
                }
            })
            .cloned()
            .collect()
    }

    pub(super) fn columns_exact(&self) -> Option<bool> {
        let objects = &self.meaning()?.objects;
        let rows: Vec<_> = objects
            .iter()
            .filter(|object| ["read", "write"].contains(&access(object)))
            .collect();
        (!rows.is_empty()).then(|| rows.iter().all(|object| object.columns_exact))
    }

    /// Why it may have touched what it does not name.
    pub(super) fn hidden(&self) -> Option<&'static str> {
        let query = self.query()?;
        let is_parsed = self.meaning().is_some_and(|meaning| meaning.parsed);
        if self.class() == Some("FUNCTION") || query.protocol() == v1::Protocol::FunctionCall {
            Some("it ran what is not seen")
        } else if !query
            .statement
            .as_ref()
            .is_some_and(|statement| statement.text_known)
        {
            Some("its text is not known")
        } else if !is_parsed && matches!(self.class(), None | Some("READ" | "WRITE")) {
            Some("its text is not understood")
        } else {
            None
        }
    }

    pub(super) fn mark(&self) -> Option<String> {
        let what = match self.event.body.as_ref()? {
            Body::Gap(gap) => Some(format!("not seen: {}", gap.reason)),
            Body::OpaqueSession(opaque) => Some(format!("not readable: {}", opaque.reason)),
            Body::AgentPause(_) => Some("agent pause".to_owned()),
            Body::CollectorChange(_) => Some("collector change".to_owned()),
            Body::AuthFailure(_) => Some("refused".to_owned()),
            Body::SessionError(_) => Some("error".to_owned()),
            _ => self
                .outcome()
                .filter(|outcome| *outcome != "ok")
                .map(str::to_owned),
        };
        let end = self.query().and_then(|query| query.transaction.as_ref());
        let rolled_back = end.is_some_and(|end| end.r#final() == v1::Final::RolledBack);
        let marks: Vec<String> = [
            self.is_privileged().then(|| "privileged".to_owned()),
            what,
            rolled_back.then(|| "rolled back".to_owned()),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!marks.is_empty()).then(|| marks.join(", "))
    }
}

pub(super) fn name(object: &v1::Object) -> String {
    match object.schema.as_str() {
        "" => object.name.clone(),
        schema => format!("{schema}.{}", object.name),
    }
}

pub(super) fn access(object: &v1::Object) -> &'static str {
    match object.access() {
        v1::Access::Unknown => "unknown",
        v1::Access::Read => "read",
        v1::Access::Write => "write",
        v1::Access::Ddl => "ddl",
        v1::Access::Execute => "execute",
    }
}
