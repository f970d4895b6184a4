//! Random programs: statements that change settings and roles, that fail, and that undo, in every way in which they can
//! be sent. Between any two of them the server is asked what holds.

use crate::session::{Message, Parameter};

/// Roles, and what programs call.
pub(crate) const SCHEMA: &str = "CREATE ROLE alice; CREATE ROLE bob; GRANT alice TO bob;
    CREATE TABLE once (i int UNIQUE DEFERRABLE INITIALLY DEFERRED); GRANT ALL ON once TO public;
    CREATE FUNCTION login(who text) RETURNS text LANGUAGE plpgsql AS
      $$ BEGIN PERFORM set_config('app.end_user', who, false); RETURN who; END $$;
    CREATE FUNCTION visit(who text) RETURNS text LANGUAGE plpgsql AS
      $$ BEGIN PERFORM set_config('app.end_user', who, true); SET LOCAL ROLE alice; RETURN who; END $$;
    CREATE PROCEDURE register(who text) LANGUAGE plpgsql AS
      $$ BEGIN PERFORM set_config('app.end_user', who, false); COMMIT;
         PERFORM set_config('app.tenant', who, false); SET ROLE bob; END $$;
    CREATE PROCEDURE spoil(who text) LANGUAGE plpgsql AS
      $$ BEGIN PERFORM set_config('app.end_user', who, false); COMMIT; RAISE 'no'; END $$;
    CREATE FUNCTION named() RETURNS text LANGUAGE sql SET app.end_user = 'inside' AS $$ SELECT 'x'::text $$;";

/// What the server is asked; the first column tells its rows from others.
pub(crate) const QUESTION: &str = "SELECT 'oracle', coalesce(current_setting('app.end_user', true), ''), \
    coalesce(current_setting('app.tenant', true), ''), current_setting('application_name'), current_user, session_user";

/// Whether programs run code that nobody sees on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Seen,
    Unseen,
}

/// Makes one program; the same for the same seed.
pub(crate) struct Generator {
    state: u64,
    kind: Kind,
    made: u64,
}

type Statement = (String, Vec<Parameter>);

impl Generator {
    pub(crate) fn new(seed: u64, kind: Kind) -> Self {
        let mut new = Self {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            kind,
            made: seed * 1000,
        };
        for _ in 0..8 {
            new.below(2);
        }
        new
    }

    /// Parameters of the startup packet beside role and database.
    pub(crate) fn startup(&mut self) -> Vec<(&'static str, String)> {
        let mut parameters = vec![("application_name", "begin".to_owned())];
        match self.below(4) {
            0 => parameters.push(("options", "-c app.end_user=op\\ tion --app.tenant=t0".to_owned())),
            1 => parameters.push(("app.end_user", "packet".to_owned())),
            2 => parameters.push(("options", "-crole=alice".to_owned())),
            _ => {}
        }
        parameters
    }

    /// What is sent at once, up to one or more ReadyForQuery.
    pub(crate) fn turn(&mut self) -> Vec<Message> {
        match self.below(5) {
            0 => vec![Message::Query(self.statement().0), question()],
            1 | 2 => vec![self.string(), question()],
            3 => self.block(),
            _ => {
                let mut messages = self.pipeline();
                match self.below(4) {
                    // A query string joins the pipeline that no Sync has ended.
                    0 => messages.extend([self.string(), Message::Sync]),
                    1 => {
                        messages.push(Message::Sync);
                        messages.extend(self.pipeline());
                        messages.extend([Message::Sync, question()]);
                    }
                    _ => messages.extend([Message::Sync, question()]),
                }
                messages
            }
        }
    }

    /// A transaction with savepoints that exist, in one string or in one for each statement; not always to its end.
    fn block(&mut self) -> Vec<Message> {
        let mut statements = vec!["BEGIN".to_owned(), "SAVEPOINT a".to_owned()];
        for _ in 0..4 + self.below(8) {
            let savepoint = *self.one_of(&["a", "a", "b"]);
            let statement = match self.below(12) {
                0..=2 => format!("SAVEPOINT {savepoint}"),
                3 => format!("RELEASE {savepoint}"),
                4 | 5 => format!("ROLLBACK TO {savepoint}"),
                6 => self.statement().0,
                _ => {
                    let (name, value) = (
                        *self.one_of(&["app.end_user", "app.tenant", "role"]),
                        self.value(),
                    );
                    let value = if name == "role" { "alice" } else { &value };
                    let scope = *self.one_of(&["", "LOCAL "]);
                    format!("SET {scope}{name} = '{value}'")
                }
            };
            statements.push(statement);
        }
        statements.extend(
            self.one_of(&[Some("COMMIT"), Some("ROLLBACK"), None])
                .map(str::to_owned),
        );
        let asked = statements
            .iter()
            .map(|statement| format!("{statement}; {QUESTION}; "));
        if self.below(2) == 0 {
            vec![Message::Query(asked.collect()), question()]
        } else {
            asked.map(Message::Query).chain([question()]).collect()
        }
    }

    /// Several statements in one string, with a question behind each.
    fn string(&mut self) -> Message {
        let count = 1 + self.below(6);
        let mut text = String::new();
        for _ in 0..count {
            let (statement, _) = self.statement();
            text += &format!("{statement}; {QUESTION}; ");
        }
        Message::Query(text)
    }

    fn pipeline(&mut self) -> Vec<Message> {
        let count = 1 + self.below(6);
        let mut messages = Vec::new();
        for _ in 0..count {
            let (text, parameters) = if self.below(3) == 0 {
                self.bound()
            } else {
                self.statement()
            };
            let limit = u32::from(self.below(4) == 0);
            messages.push(Message::Execute {
                text,
                parameters,
                limit,
            });
            messages.push(Message::Execute {
                text: QUESTION.to_owned(),
                parameters: Vec::new(),
                limit: 0,
            });
        }
        messages
    }

    /// A statement with parameters.
    fn bound(&mut self) -> Statement {
        let value = self.value();
        let local = self.below(2) == 0;
        match self.below(4) {
            0 => (
                "SELECT set_config('app.end_user', $1, $2)".to_owned(),
                vec![Parameter::text(&value), Parameter::text(if local { "on" } else { "f" })],
            ),
            1 => (
                "SELECT set_config($1, $2::text, $3), now()".to_owned(),
                vec![
                    Parameter::binary(b"App.Tenant"),
                    Parameter::binary(value.as_bytes()),
                    Parameter::binary(&[u8::from(local)]),
                ],
            ),
            2 => (
                "SELECT pg_catalog.set_config('app.end_user', $1, false) AS a, set_config('app.tenant', $1, $2) b".to_owned(),
                vec![
                    if self.below(3) == 0 { Parameter::Null } else { Parameter::text(&value) },
                    Parameter::binary(&[u8::from(local)]),
                ],
            ),
            _ => (
                "SELECT set_config('app.end_user', $1::varchar, $2)".to_owned(),
                vec![Parameter::text("17"), Parameter::Null],
            ),
        }
    }

    fn statement(&mut self) -> Statement {
        if self.kind == Kind::Unseen && self.below(6) == 0 {
            return (self.unseen(), Vec::new());
        }
        let value = self.value();
        let name = *self.one_of(&[
            "app.end_user",
            "app.end_user",
            "app.tenant",
            "\"App\".End_User",
            "application_name",
        ]);
        let role = *self.one_of(&["alice", "bob", "none", "'alice'", "\"bob\"", "nobody"]);
        let savepoint = *self.one_of(&["a", "b", "\"c\""]);
        let scope = *self.one_of(&["", "SESSION ", "LOCAL ", "LOCAL "]);
        let text = match self.below(34) {
            0..=5 => format!("SET {scope}{name} = '{value}'"),
            6 => format!("SET {scope}{name} TO {value}"),
            7 => format!("SET {scope}{name} = E'it\\'s {value}'"),
            8 => format!("SET {scope}app.end_user TO DEFAULT"),
            9 => format!("RESET {name}"),
            10 => "RESET ALL".to_owned(),
            11 => "DISCARD ALL".to_owned(),
            12 => format!("SELECT set_config('app.end_user', '{value}', true)"),
            13 => format!(
                "SELECT set_config('APP.tenant', '{value}', 'f'), set_config('app.end_user', $${value}$$, true) x"
            ),
            14 => format!("SET {scope}ROLE {role}"),
            15 => format!(
                "SET {scope}SESSION AUTHORIZATION {}",
                role.replace("none", "DEFAULT")
            ),
            16 => (*self.one_of(&["RESET ROLE", "RESET SESSION AUTHORIZATION", "SET role TO DEFAULT"]))
                .to_owned(),
            17 => format!("SELECT set_config('role', 'alice', {})", self.below(2) == 0),
            18 | 19 => "BEGIN".to_owned(),
            20 => "COMMIT".to_owned(),
            21 => "ROLLBACK".to_owned(),
            22 => (*self.one_of(&["COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "END", "ABORT"])).to_owned(),
            23..=25 => format!("SAVEPOINT {savepoint}"),
            26 => format!("RELEASE {savepoint}"),
            27 | 28 => format!("ROLLBACK TO {savepoint}"),
            29 => (*self.one_of(&["SELECT 1/0", "SELEC", "SET app.end_user = 'a', 'b'"])).to_owned(),
            30 => "SET app.end_user FROM CURRENT".to_owned(),
            31 => "INSERT INTO once VALUES (1), (1)".to_owned(),
            32 => format!("PREPARE TRANSACTION '{value}'"),
            _ => "SELECT count(*) FROM once".to_owned(),
        };
        (text, Vec::new())
    }

    /// Code that changes settings where nobody sees it.
    fn unseen(&mut self) -> String {
        let value = self.value();
        match self.below(9) {
            0 => format!("SELECT login('{value}')"),
            1 => format!("SELECT public.visit('{value}')"),
            2 => format!("DO $$ BEGIN PERFORM set_config('app.tenant', '{value}', true); END $$"),
            3 => format!("CALL register('{value}')"),
            4 => format!("CALL spoil('{value}')"),
            5 => "SELECT named()".to_owned(),
            6 => format!("WITH x AS (SELECT set_config('app.end_user', '{value}', false)) SELECT * FROM x"),
            7 => format!("SELECT set_config('app.end_user', '{value}', false), login('y')"),
            _ => format!("SELECT set_config('app.tenant', upper('{value}'), true)"),
        }
    }

    /// One that was never there before.
    fn value(&mut self) -> String {
        self.made += 1;
        format!("v{}", self.made)
    }

    fn one_of<'a, T>(&mut self, choice: &'a [T]) -> &'a T {
        &choice[usize::try_from(self.below(choice.len() as u64)).unwrap()]
    }

    /// xorshift64*.
    fn below(&mut self, bound: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

fn question() -> Message {
    Message::Query(QUESTION.to_owned())
}
