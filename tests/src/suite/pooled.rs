//! What the clients of the pooler suite say: units of work, and their bytes.
//!
//! Pure, and shared by the client program (`truth-pooled`) and the suite. Separate from the suite, which judges.

use std::str::FromStr;

use anyhow::bail;

/// In a text or parameter: where the client puts its mark.
pub const MARK: &str = "@MARK@";
/// The first ticket that the server hands out. No other answer is a number as large.
pub const FIRST_TICKET: u64 = 1_000_000_000;
/// What every client says most of the time.
pub const SAME: &str = "SELECT v FROM same WHERE id = 1";
/// The same request of everybody, an answer that no other gets.
pub const TICKET: &str = "SELECT ticket()";

/// How the pooler lends its connections, and so what may be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Transaction mode of a pooler that knows nothing of prepared statements.
    Transaction,
    /// Session mode: everything.
    Session,
    /// Statement mode: no transactions.
    Statement,
    /// Transaction mode of a pooler that renames and shares prepared statements.
    Prepared,
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Ok(match text {
            "transaction" => Self::Transaction,
            "session" => Self::Session,
            "statement" => Self::Statement,
            "prepared" => Self::Prepared,
            _ => bail!("there is no kind {text}"),
        })
    }
}

impl Kind {
    /// As in the environment.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Session => "session",
            Self::Statement => "statement",
            Self::Prepared => "prepared",
        }
    }
}

/// One Execute of a group.
#[derive(Clone, Debug)]
pub struct Step {
    /// Of the statement.
    pub text: String,
    /// As text.
    pub params: Vec<String>,
    /// Prepared under this name, once a connection.
    pub name: Option<String>,
}

/// What one `ReadyForQuery` answers.
#[derive(Clone, Debug)]
pub enum Group {
    /// A Query message.
    Simple(String),
    /// Executes before one Sync.
    Extended(Vec<Step>),
}

impl Group {
    /// The statements that the server logs of it, if all goes well.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let (simple, extended) = match self {
            Self::Simple(text) => (Some(text.as_str()), [].as_slice()),
            Self::Extended(steps) => (None, steps.as_slice()),
        };
        simple
            .into_iter()
            .chain(extended.iter().map(|step| step.text.as_str()))
    }

    /// The messages. `prepared` are the names that the connection has already.
    pub fn encode(&self, mark: &str, prepared: &mut Vec<String>, bytes: &mut Vec<u8>) {
        let steps = match self {
            Self::Simple(text) => return message(bytes, b'Q', &[text.replace(MARK, mark).as_bytes(), b"\0"]),
            Self::Extended(steps) => steps,
        };
        for step in steps {
            let text = step.text.replace(MARK, mark);
            let name = step.name.as_deref().unwrap_or_default();
            if name.is_empty() || !prepared.iter().any(|known| known == name) {
                message(bytes, b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"]);
                if !name.is_empty() {
                    prepared.push(name.to_owned());
                }
            }
            let mut values = Vec::new();
            for value in &step.params {
                let value = value.replace(MARK, mark);
                values.extend(u32::try_from(value.len()).unwrap_or_default().to_be_bytes());
                values.extend(value.as_bytes());
            }
            let count = u16::try_from(step.params.len()).unwrap_or_default().to_be_bytes();
            message(
                bytes,
                b'B',
                &[b"\0", name.as_bytes(), b"\0\0\0", &count, &values, b"\0\0"],
            );
            message(bytes, b'D', &[b"P\0"]);
            message(bytes, b'E', &[b"\0\0\0\0\0"]);
        }
        message(bytes, b'S', &[]);
    }
}

/// Groups that are sent without waiting for an answer in between.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In order.
    pub groups: Vec<Group>,
    /// A cancel request follows.
    pub cancel: bool,
    /// The answer is read slowly.
    pub slow: bool,
}

impl Batch {
    fn simple(text: impl Into<String>) -> Self {
        Self::of([Group::Simple(text.into())])
    }

    fn of(groups: impl IntoIterator<Item = Group>) -> Self {
        Self {
            groups: groups.into_iter().collect(),
            ..Self::default()
        }
    }
}

/// What is copied in, with its end.
#[must_use]
pub fn copied() -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in 0..40 {
        message(&mut bytes, b'd', &[format!("{line}\tcopied\n").as_bytes()]);
    }
    message(&mut bytes, b'c', &[]);
    bytes
}

fn message(bytes: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
    bytes.push(kind);
    bytes.extend(u32::try_from(length).unwrap_or_default().to_be_bytes());
    bytes.extend(parts.concat());
}

fn step(text: &str, params: &[&str]) -> Step {
    Step {
        text: text.to_owned(),
        params: params.iter().map(|&value| value.to_owned()).collect(),
        name: None,
    }
}

/// A generator that gives the same to the same seed (xorshift64*).
#[derive(Debug)]
pub struct Random {
    state: u64,
    /// Clients call the same statements by different names, and different ones by the same.
    salt: u64,
}

impl Random {
    /// Zero is no seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self {
            state,
            salt: (state >> 40) % 3,
        }
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % limit.max(1)
    }

    /// One unit of work: in transaction mode everything of it has one lease, unless it says otherwise.
    pub fn unit(&mut self, kind: Kind, program: &str) -> Vec<Batch> {
        let choice = self.below(100);
        if kind == Kind::Statement && matches!(choice, 28..=61 | 84..=86) {
            return self.alone(kind);
        }
        match choice {
            0..=27 => self.alone(kind),
            28..=49 => self.transaction(kind),
            50..=55 => vec![
                Batch::simple("BEGIN"),
                Batch::simple(TICKET),
                Batch::simple("SELECT 1/0"),
                Batch::simple(SAME),
                Batch::simple("ROLLBACK"),
            ],
            56..=58 => vec![
                Batch::simple("BEGIN"),
                Batch::simple(format!("SET LOCAL app.end_user = '{program}' /* {MARK} */")),
                Batch::simple(SAME),
                Batch::simple("COMMIT"),
            ],
            59..=61 => vec![Batch::simple(format!(
                "SET app.end_user = '{program}' /* {MARK} */"
            ))],
            // Several Executes before one Sync.
            62..=66 => {
                let mut steps = vec![step(TICKET, &[])];
                steps.extend((0..=self.below(5)).map(|_| step(BOUND, &["1"])));
                vec![Batch::of([Group::Extended(steps)])]
            }
            // Several Syncs without waiting.
            67..=70 => {
                let mut groups = vec![Group::Simple(TICKET.to_owned())];
                groups.extend((0..=self.below(4)).map(|number| match number % 2 {
                    0 => Group::Simple(SAME.to_owned()),
                    _ => Group::Extended(vec![step(BOUND, &["1"])]),
                }));
                vec![Batch::of(groups)]
            }
            // One of several fails.
            71..=72 => vec![Batch::of([Group::Extended(vec![
                step(TICKET, &[]),
                step("SELECT 1/$1::int", &["0"]),
                step(BOUND, &["1"]),
            ])])],
            73 => vec![Batch::simple("SELECT nothing FROM nowhere")],
            74..=75 => vec![Batch::simple(format!("SELECT 1/0 /* {MARK} */"))],
            76..=78 => vec![Batch::simple(
                "COPY (SELECT id, v FROM same ORDER BY id) TO STDOUT",
            )],
            79..=80 => vec![Batch::simple("COPY sink FROM STDIN")],
            81..=82 => vec![Batch {
                slow: self.below(3) == 0,
                ..Batch::simple("SELECT repeat('x', 20000) FROM generate_series(1, 4)")
            }],
            83 => vec![Batch::simple(format!("SELECT length('{}')", "y".repeat(30_000)))],
            84..=85 => vec![
                Batch::simple("BEGIN"),
                Batch::simple(TICKET),
                Batch::simple("COPY sink FROM STDIN"),
                Batch::simple("SELECT repeat('x', 20000) FROM generate_series(1, 4)"),
                Batch::simple("COMMIT"),
            ],
            86 if self.below(8) == 0 => vec![Batch {
                cancel: true,
                ..Batch::simple(format!("SELECT pg_sleep(5) /* {MARK} */"))
            }],
            86..=92 => vec![Batch::simple(format!("{SAME} /* {MARK} */"))],
            _ => vec![Batch::of([Group::Extended(vec![step(
                "SELECT $1::text",
                &[MARK],
            )])])],
        }
    }

    /// A statement that stays prepared.
    fn named(&mut self) -> Step {
        let which = self.below(3);
        let text = match which {
            0 => BOUND.to_owned(),
            _ => format!("{BOUND} AND {which} = {which}"),
        };
        Step {
            name: Some(format!("s{}", (which + self.salt) % 3)),
            ..step(&text, &["1"])
        }
    }

    /// A statement of its own, the same of everybody, answered alike.
    fn alone(&mut self, kind: Kind) -> Vec<Batch> {
        match (self.below(10), kind) {
            (0..=4, _) => vec![Batch::simple(SAME)],
            (5..=6, Kind::Prepared | Kind::Session) => vec![Batch::of([Group::Extended(vec![self.named()])])],
            (9, _) => vec![Batch::simple(TICKET)],
            _ => vec![Batch::of([Group::Extended(vec![step(BOUND, &["1"])])])],
        }
    }

    fn transaction(&mut self, kind: Kind) -> Vec<Batch> {
        let mut unit = vec![Batch::simple("BEGIN"), Batch::simple(TICKET)];
        for _ in 0..=self.below(6) {
            unit.push(match self.below(4) {
                0..=1 => Batch::simple(SAME),
                2 if matches!(kind, Kind::Prepared | Kind::Session) => {
                    Batch::of([Group::Extended(vec![self.named()])])
                }
                2 => Batch::of([Group::Extended(vec![step(BOUND, &["1"]), step(BOUND, &["1"])])]),
                _ => Batch::simple("UPDATE same SET v = v WHERE id = -1"),
            });
        }
        unit.push(Batch::simple("COMMIT"));
        unit
    }
}

const BOUND: &str = "SELECT v FROM same WHERE id = $1::int";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_half_is_the_same_of_everybody() {
        for kind in [Kind::Transaction, Kind::Session, Kind::Statement, Kind::Prepared] {
            let mut random = Random::new(7);
            let (mut same, mut all) = (0, 0);
            for _ in 0..2_000 {
                for group in random.unit(kind, "p").iter().flat_map(|batch| &batch.groups) {
                    let texts: Vec<&str> = group.texts().collect();
                    all += texts.len();
                    same += texts
                        .iter()
                        .filter(|text| !text.contains(MARK) && **text != TICKET)
                        .count();
                }
            }
            assert!(same * 2 > all, "{kind:?}: {same} of {all}");
        }
    }

    #[test]
    fn a_name_is_prepared_once() {
        let step = Step {
            name: Some("s".to_owned()),
            ..step(BOUND, &["1"])
        };
        let group = Group::Extended(vec![step.clone(), step]);
        let (mut names, mut bytes) = (Vec::new(), Vec::new());
        group.encode("m", &mut names, &mut bytes);
        assert_eq!(
            bytes.iter().filter(|byte| **byte == b'P').count(),
            3,
            "one Parse, two Describes"
        );
        assert_eq!(names, ["s"]);
    }
}
