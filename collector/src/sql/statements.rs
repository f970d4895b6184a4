//! What a client says once it is let in: statements as they come, or prepared.
//!
//! Owns which of them are answered, and what of a connection lasts: its catalogue and its settings, and nothing that it reads. Refuses
//! whatever is not reading, settings of the engine included.

use std::{
    fmt::Debug,
    sync::{Arc, LazyLock},
    time::Duration,
};

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::DataType,
    logical_expr::LogicalPlan,
    prelude::SessionContext,
    sql::{
        parser::Statement as Parsed,
        sqlparser::ast::{self, Set, Statement},
    },
};
use datafusion_postgres::{
    DfSessionService, QueryHook,
    arrow_pg::datatypes::{
        arrow_schema_to_pg_fields, df::deserialize_parameters_with_server_types, into_pg_type,
    },
    datafusion_pg_catalog::{
        pg_catalog::{context::EmptyContextProvider, setup_pg_catalog},
        sql::PostgresCompatibilityParser,
    },
    hooks::{set_show::SetShowHook, transactions::TransactionStatementHook},
    pgwire::{
        api::{
            ClientInfo, ClientPortalStore, Type,
            portal::{Format, Portal},
            query::{ExtendedQueryHandler, SimpleQueryHandler},
            results::{FieldFormat, FieldInfo, Response, Tag},
            stmt::QueryParser,
            store::PortalStore,
        },
        error::{PgWireError, PgWireResult},
        messages::PgWireBackendMessage,
    },
};
use futures::Sink;
use tokio::sync::OnceCell;

use super::{
    DATABASE, Shared,
    answer::Answer,
    errors,
    prepared::{self, PURPOSE, Prepared, Sort, outline},
};
use crate::{
    access::{Asked, Asker, Pass, within},
    store::{page, question::Question, session::read_only},
};

/// Answers one connection.
pub(super) struct Statements {
    parser: Arc<Parser>,
}

/// What the statements of a connection have in common.
pub(super) struct Parser {
    shared: Arc<Shared>,
    /// Made with the first statement: whoever is not let in has none.
    session: OnceCell<Session>,
}

/// What lasts from one statement to the next.
struct Session {
    context: Arc<SessionContext>,
    /// Settings and transactions.
    service: DfSessionService,
}

/// Why a client asks, by its own word.
#[derive(Clone, Debug, Default)]
pub(super) struct Purpose(String);

impl Purpose {
    /// As it was set, or given at the start: `options=-cpgwitness.purpose=TEXT`.
    pub(super) fn of(client: &impl ClientInfo) -> String {
        if let Some(set) = client.session_extensions().get::<Self>() {
            return set.0.clone();
        }
        let options = client.metadata().get("options").map_or("", String::as_str);
        let given = options
            .split_once(PURPOSE)
            .and_then(|(_, rest)| rest.strip_prefix('='));
        // Blanks within it are escaped, by the rule of that parameter.
        let mut purpose = String::new();
        let mut rest = given.unwrap_or_default().chars();
        while let Some(c) = rest.next() {
            match c {
                '\\' => purpose.extend(rest.next()),
                c if c.is_whitespace() => break,
                c => purpose.push(c),
            }
        }
        purpose
    }

    fn set(client: &impl ClientInfo, text: String) {
        client.session_extensions().insert(Self(text));
    }
}

impl Statements {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let session = OnceCell::new();
        Self {
            parser: Arc::new(Parser { shared, session }),
        }
    }

    /// Does what a statement says; `portal` is what a prepared one was given.
    async fn run<C>(
        &self,
        client: &mut C,
        statement: &Statement,
        portal: Option<&Portal<Prepared>>,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match Sort::of(statement) {
            Sort::Question => self.parser.answer(client, statement, portal).await,
            Sort::Session => {
                let session = self.parser.session().await?;
                let text = statement.to_string();
                let mut said = SimpleQueryHandler::do_query(&session.service, client, &text).await?;
                Ok(said.pop().unwrap_or(Response::EmptyQuery))
            }
            Sort::Purpose => {
                if let Statement::Set(Set::SingleAssignment { values, .. }) = statement {
                    Purpose::set(client, values.first().map(text_of).unwrap_or_default());
                }
                Ok(Response::Execution(Tag::new("SET")))
            }
            Sort::Nothing(tag) => Ok(Response::Execution(Tag::new(tag))),
            Sort::Refused => Err(refused()),
        }
    }
}

/// A value as it was meant.
fn text_of(value: &ast::Expr) -> String {
    match value {
        ast::Expr::Value(value) => value.clone().into_string().unwrap_or_else(|| value.to_string()),
        other => other.to_string(),
    }
}

fn refused() -> PgWireError {
    errors::error(
        errors::READ_ONLY,
        "this is a record: it answers SELECT, WITH, VALUES, EXPLAIN, SHOW and DESCRIBE, and changes nothing",
    )
}

fn parse(sql: &str) -> PgWireResult<Vec<Statement>> {
    if sql.len() > page::MAX_SQL_BYTES {
        let why = format!("the statement is longer than {} bytes", page::MAX_SQL_BYTES);
        return Err(errors::error(errors::PROGRAM_LIMIT, why));
    }
    static PARSER: LazyLock<PostgresCompatibilityParser> = LazyLock::new(PostgresCompatibilityParser::new);
    PARSER.parse(sql).map_err(|failed| errors::syntax(&failed))
}

impl Parser {
    async fn session(&self) -> PgWireResult<&Session> {
        let made = || async {
            let context = Arc::new(self.shared.sql.store.lasting(DATABASE));
            let catalogue = setup_pg_catalog(&context, DATABASE, EmptyContextProvider);
            catalogue.map_err(|failed| errors::engine(&failed))?;
            // Not its cursors: they look for a store of their own kind.
            let hooks: [Arc<dyn QueryHook>; 2] = [Arc::new(SetShowHook), Arc::new(TransactionStatementHook)];
            let service = DfSessionService::new_with_hooks(Arc::clone(&context), hooks.into());
            Ok(Session { context, service })
        };
        self.session.get_or_try_init(made).await
    }

    /// Plans a question over the record as it is now. What it reads is let go of by [`Self::release`].
    async fn plan(&self, statement: &Statement) -> PgWireResult<LogicalPlan> {
        let context = &self.session().await?.context;
        let planned = async {
            self.shared.sql.store.renew(context).await?;
            let parsed = Parsed::Statement(Box::new(statement.clone()));
            let plan = context.state().statement_to_plan(parsed).await?;
            read_only().verify_plan(&plan)?;
            Ok(plan)
        };
        planned.await.map_err(|failed| errors::engine(&failed))
    }

    async fn release(&self) -> PgWireResult<()> {
        let context = &self.session().await?.context;
        let released = self.shared.sql.store.release(context);
        released.map_err(|failed| errors::engine(&failed))
    }

    /// Answers a question, in its turn, and tells who asked.
    async fn answer<C>(
        &self,
        client: &mut C,
        statement: &Statement,
        portal: Option<&Portal<Prepared>>,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let sql = &self.shared.sql;
        let pass = client.session_extensions().get::<Pass>();
        let pass = pass.filter(|pass| sql.access.holds(pass)).ok_or_else(|| {
            errors::fatal(
                errors::INVALID_AUTHORIZATION,
                "the token of this connection is no longer good here",
            )
        })?;
        let address = client.socket_addr().ip().to_string();
        let asker = Asker::new(pass.as_ref().clone(), address, Purpose::of(client), String::new());
        let turn = sql.questions.wait(&asker.user()).await;
        let _turn = turn.map_err(|refused| errors::refused(&refused))?;
        let planned = self.plan(statement).await;
        let asked = asker.says(page::Sql::KIND, statement.to_string(), sql.accesses.as_ref());
        let answer = match planned {
            Ok(plan) => self.answer_plan(client, plan, portal, asked).await,
            Err(failed) => {
                let mut asked = asked;
                asked.answered(None).await;
                Err(failed)
            }
        };
        self.release().await?;
        answer
    }

    async fn answer_plan<C>(
        &self,
        client: &C,
        plan: LogicalPlan,
        portal: Option<&Portal<Prepared>>,
        mut asked: Asked,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + Sync,
    {
        let tells = prepared::reads_the_record(&plan);
        let plan = match portal {
            Some(portal) => with_parameters(plan, portal)?,
            None => plan,
        };
        let context = &self.session().await?.context;
        let shown = self.shared.sql.store.shown();
        let room = Arc::clone(&self.shared.room);
        let answer = within(longest(client), Answer::of(context, plan, shown, room)).await;
        match tells {
            true => asked.answered(answer.as_ref().ok().map(Answer::rows)).await,
            false => asked.told_nothing(),
        }
        let answer = answer.map_err(|failed| errors::answer(&failed))?;
        let format = portal.map_or(&Format::UnifiedText, |portal| &portal.result_column_format);
        answer.into_response(format, client.metadata())
    }
}

/// How long it may take: less than every question may, if the client said so (`SET statement_timeout`).
fn longest(client: &impl ClientInfo) -> Duration {
    let asked = client.metadata().get("statement_timeout_ms");
    let asked = asked.and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
    asked.map_or(page::Sql::LONGEST, |asked| asked.min(page::Sql::LONGEST))
}

/// The plan with what the client gave for its parameters.
fn with_parameters(plan: LogicalPlan, portal: &Portal<Prepared>) -> PgWireResult<LogicalPlan> {
    let prepared = &portal.statement.statement;
    let parameters = parameters(prepared)?;
    if parameters.is_empty() {
        return Ok(plan);
    }
    let wire = wire_types(&parameters)?;
    let (wire, types): (Vec<_>, Vec<_>) = (
        wire.iter().map(Some).collect(),
        parameters
            .iter()
            .map(|(_, data_type)| data_type.as_ref())
            .collect(),
    );
    let values = deserialize_parameters_with_server_types(portal, &types, &wire)?;
    let plan = plan.replace_params_with_values(&values);
    plan.map_err(|failed| errors::engine(&failed))
}

fn parameters(prepared: &Prepared) -> PgWireResult<Vec<(String, Option<DataType>)>> {
    prepared.parameters().map_err(|failed| errors::engine(&failed))
}

fn wire_types(parameters: &[(String, Option<DataType>)]) -> PgWireResult<Vec<Type>> {
    let wire = |(_, data_type): &(String, Option<DataType>)| match data_type {
        Some(data_type) => Ok(into_pg_type(data_type)?),
        None => Ok(Type::TEXT),
    };
    parameters.iter().map(wire).collect()
}

#[async_trait]
impl SimpleQueryHandler for Statements {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut responses = Vec::new();
        for statement in parse(query)? {
            responses.push(self.run(client, &statement, None).await?);
        }
        if responses.is_empty() {
            responses.push(Response::EmptyQuery);
        }
        Ok(responses)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Statements {
    type Statement = Prepared;
    type QueryParser = Parser;

    fn query_parser(&self) -> Arc<Parser> {
        Arc::clone(&self.parser)
    }

    async fn do_query<C>(
        &self,
        client: &mut C,
        portal: &Portal<Prepared>,
        _max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statement = &portal.statement.statement.statement;
        self.run(client, statement, Some(portal)).await
    }
}

#[async_trait]
impl QueryParser for Parser {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, _: &C, sql: &str, _: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut statements = parse(sql)?;
        let Some(statement) = statements.pop() else {
            return Ok(None);
        };
        if !statements.is_empty() {
            let why = "a prepared statement is one statement";
            return Err(errors::error(errors::SYNTAX, why));
        }
        let outline = match Sort::of(&statement) {
            Sort::Refused => return Err(refused()),
            Sort::Question => {
                let plan = self.plan(&statement).await;
                self.release().await?;
                let outline = outline(&plan?);
                Some(outline.map_err(|failed| errors::engine(&failed))?)
            }
            _ => None,
        };
        Ok(Some(Prepared { statement, outline }))
    }

    fn get_parameter_types(&self, prepared: &Prepared) -> PgWireResult<Vec<Type>> {
        wire_types(&parameters(prepared)?)
    }

    fn get_result_schema(
        &self,
        prepared: &Prepared,
        format: Option<&Format>,
    ) -> PgWireResult<Vec<FieldInfo>> {
        let format = format.unwrap_or(&Format::UnifiedText);
        match (&prepared.outline, &prepared.statement) {
            (Some(outline), _) => arrow_schema_to_pg_fields(outline.schema().as_arrow(), format, None),
            (None, Statement::ShowVariable { variable }) => {
                let name = variable.iter().map(|part| part.value.clone()).collect::<Vec<_>>();
                let field = FieldInfo::new(name.join("_"), None, None, Type::VARCHAR, FieldFormat::Text);
                Ok(vec![field])
            }
            _ => Ok(Vec::new()),
        }
    }
}
