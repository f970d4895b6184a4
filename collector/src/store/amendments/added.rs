//! Amendments on their way in.
//!
//! Owns what one stands for: its statements or its session, and of a name that rests on a pod, what of them. The name of a pod goes where that
//! goes which it names: what another host told of a session may be taken back while its pod is looked up. In the order of the log
//! the answer is the same after every restart.

use proto::v1;

use super::{Entry, Inner, Stored};

impl Inner {
    pub(super) fn add(&mut self, one: Stored) {
        if self
            .list
            .last()
            .is_some_and(|last| (last.log_index, last.seq) >= (one.log_index, one.seq))
        {
            return;
        }
        let pid = one.attribution.process.as_ref().map_or(0, |process| process.pid);
        let named = Named::of(&one);
        if one.events.is_empty() {
            self.add_session(one, named, pid);
        } else {
            self.add_statements(one, named, pid);
        }
    }

    fn add_statements(&mut self, one: Stored, named: Named, pid: u32) {
        let place = self.list.len() as u32;
        let mut seqs: Vec<u64> = proto::json::summed(&one.events).collect();
        let mut upon = None;
        if matches!(named, Named::Amended) {
            // A name goes where that goes which it names, and nowhere else.
            let known = self.statements.get(one.agent.as_str());
            let mut newest: Option<(u32, bool)> = None;
            seqs.retain(|seq| {
                let Some(older) = known.and_then(|known| known.get(*seq)) else {
                    return false;
                };
                let fits = match newest {
                    Some((known, fits)) if known == older => fits,
                    _ => self.is_of_same_container(older, &one.attribution),
                };
                newest = Some((older, fits));
                if fits {
                    let root = self.list.get(older as usize).and_then(|entry| entry.upon);
                    let root = root.unwrap_or(older);
                    upon = Some(upon.map_or(root, |least: u32| least.min(root)));
                }
                fits
            });
            if seqs.is_empty() {
                return;
            }
        }
        let entry = Entry {
            log_index: one.log_index,
            seq: one.seq,
            face: self.face(one.attribution),
            pid,
            of_statements: true,
            before: None,
            only: None,
            upon,
            gone: false,
        };
        let statements = match self.statements.get_mut(one.agent.as_str()) {
            Some(statements) => statements,
            None => self.statements.entry(one.agent.into()).or_default(),
        };
        for seq in seqs {
            if let Some(older) = statements.insert(seq, place).filter(|older| *older != place) {
                self.replaced.insert((place, older));
            }
        }
        self.list.push(entry);
    }

    fn add_session(&mut self, one: Stored, named: Named, pid: u32) {
        let place = self.list.len() as u32;
        let sessions = self.newest.get(one.agent.as_str());
        let before = sessions.and_then(|sessions| sessions.get(&one.session)).copied();
        let goes_on = match named {
            Named::Otherwise | Named::Own(_) => true,
            // What another host told, and that it was taken back, is the better word, whichever comes first.
            Named::ByAddress => before.is_none_or(|before| {
                let shown = self.shown(before);
                shown.is_some_and(|shown| shown.method == attribution::POD_ADDRESS)
            }),
            Named::Amended => {
                before.is_some_and(|before| self.is_of_same_container(before, &one.attribution))
            }
        };
        if !goes_on {
            return;
        }
        if one.takes_back {
            let agent = self.taken_back.entry(one.agent.as_str().into()).or_default();
            agent.insert(one.session.clone(), place);
        }
        let only = match named {
            Named::Own(method) => Some(method),
            _ => None,
        };
        self.renames |= only.is_some();
        let face = self.face(one.attribution);
        let sessions = match self.newest.get_mut(one.agent.as_str()) {
            Some(sessions) => sessions,
            None => self.newest.entry(one.agent.into()).or_default(),
        };
        self.list.push(Entry {
            log_index: one.log_index,
            seq: one.seq,
            face,
            pid,
            of_statements: false,
            before: sessions.insert(one.session, place),
            only,
            upon: None,
            gone: false,
        });
    }

    /// Whether an amendment stands, and is of the same container of the same pod.
    fn is_of_same_container(&self, place: u32, attribution: &v1::Attribution) -> bool {
        let shown = self.shown(place).filter(|_| self.stands(place));
        shown.is_some_and(|shown| attribution::is_same_container(&shown, attribution))
    }
}

/// By what an amendment has its name.
#[derive(Clone, Copy, Debug)]
enum Named {
    /// By the uid of a pod: what the session's own host found, by this method.
    Own(&'static str),
    /// By the uid of a pod: what another amendment says.
    Amended,
    /// By the address of a pod.
    ByAddress,
    /// By none.
    Otherwise,
}

impl Named {
    fn of(one: &Stored) -> Self {
        let method = one.attribution.method.as_str();
        if one.names_pod {
            // Of statements: what an amendment says of them, also that they are the pooler's own.
            if !one.events.is_empty() {
                return Self::Amended;
            }
            let mut own = attribution::OWN_METHODS.into_iter();
            return own.find(|own| *own == method).map_or(Self::Amended, Self::Own);
        }
        if method == attribution::POD_ADDRESS {
            return Self::ByAddress;
        }
        Self::Otherwise
    }
}
