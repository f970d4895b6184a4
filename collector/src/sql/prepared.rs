//! A statement that a client may run again and again: what it is, and what it takes and gives.
//!
//! Owns the sorts of statements, and which of them are allowed at all. Keeps nothing of the store between two runs.

use datafusion::{
    arrow::datatypes::DataType,
    common::{
        Result, ToDFSchema,
        tree_node::{TreeNode as _, TreeNodeRecursion},
    },
    logical_expr::{EmptyRelation, Expr, LogicalPlan, LogicalPlanBuilder, expr_fn::is_not_null},
    sql::sqlparser::ast::{Set, Statement},
};
use std::collections::BTreeMap;

use crate::store::schema_in_json;

/// What a client has prepared.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) statement: Statement,
    /// Of a question: its parameters and its columns, and nothing of what it reads.
    pub(super) outline: Option<LogicalPlan>,
}

/// What is done about a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// It is planned, and answered if it only reads.
    Question,
    /// It is about the connection alone: settings, transactions of which there is nothing to keep.
    Session,
    /// Why it is asked, for the record.
    Purpose,
    /// It is acknowledged with this, because clients say it as a matter of course.
    Nothing(&'static str),
    /// It is none of these.
    Refused,
}

impl Sort {
    pub(super) fn of(statement: &Statement) -> Self {
        match statement {
            Statement::Query(_)
            | Statement::Explain { .. }
            | Statement::ExplainTable { .. }
            | Statement::ShowTables { .. }
            | Statement::ShowColumns { .. }
            | Statement::ShowFunctions { .. } => Self::Question,
            Statement::Set(set) => Self::of_setting(set),
            Statement::ShowVariable { .. }
            | Statement::StartTransaction { .. }
            | Statement::Commit { .. }
            | Statement::Rollback { .. } => Self::Session,
            Statement::Savepoint { .. } => Self::Nothing("SAVEPOINT"),
            Statement::ReleaseSavepoint { .. } => Self::Nothing("RELEASE"),
            Statement::Deallocate { .. } => Self::Nothing("DEALLOCATE"),
            Statement::Discard { .. } => Self::Nothing("DISCARD ALL"),
            Statement::Close { .. } => Self::Nothing("CLOSE CURSOR"),
            Statement::UNLISTEN { .. } => Self::Nothing("UNLISTEN"),
            Statement::Reset(_) => Self::Nothing("RESET"),
            _ => Self::Refused,
        }
    }

    fn of_setting(set: &Set) -> Self {
        let Set::SingleAssignment { variable, .. } = set else {
            return Self::Session;
        };
        let name = variable.to_string().to_lowercase().replace('"', "");
        match name.as_str() {
            PURPOSE => Self::Purpose,
            // Those of the engine: what it may take is not up to who asks.
            name if name.starts_with("datafusion") => Self::Refused,
            _ => Self::Session,
        }
    }
}

/// The setting that says why something is asked.
pub(super) const PURPOSE: &str = "pgwitness.purpose";

impl Prepared {
    /// Its parameters, in their order.
    pub(super) fn parameters(&self) -> Result<Vec<(String, Option<DataType>)>> {
        let Some(outline) = &self.outline else {
            return Ok(Vec::new());
        };
        let mut types: BTreeMap<u32, (String, Option<DataType>)> = BTreeMap::new();
        for (id, data_type) in outline.get_parameter_types()? {
            let number = id.trim_start_matches('$').parse().unwrap_or(u32::MAX);
            types.insert(number, (id, data_type));
        }
        each(outline, |of| {
            if let Expr::Cast(cast) = of
                && let Expr::Placeholder(placeholder) = cast.expr.as_ref()
            {
                let known = types.values_mut().find(|(id, _)| *id == placeholder.id);
                if let Some((_, data_type @ None)) = known {
                    *data_type = Some(cast.field.data_type().clone());
                }
            }
        })?;
        Ok(types.into_values().collect())
    }
}

/// A plan with the same parameters and columns, as they are shown, that reads nothing.
pub(super) fn outline(plan: &LogicalPlan) -> Result<LogicalPlan> {
    let mut parameters = Vec::new();
    each(plan, |of| match of {
        Expr::Placeholder(_) => parameters.push(of.clone()),
        Expr::Cast(cast) if matches!(cast.expr.as_ref(), Expr::Placeholder(_)) => parameters.push(of.clone()),
        _ => {}
    })?;
    let schema = schema_in_json(plan.schema().as_arrow()).to_dfschema_ref()?;
    let empty = LogicalPlan::EmptyRelation(EmptyRelation {
        produce_one_row: false,
        schema,
    });
    let mut outline = LogicalPlanBuilder::from(empty);
    for parameter in parameters {
        outline = outline.filter(is_not_null(parameter))?;
    }
    outline.build()
}

/// Every expression within a plan, those within others too.
fn each(plan: &LogicalPlan, mut look: impl FnMut(&Expr)) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|whole| {
            whole.apply(|part| {
                look(part);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

/// Whether it reads the record, or only what is said of it.
pub(super) fn reads_the_record(plan: &LogicalPlan) -> bool {
    let mut reads = false;
    let looked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let schema = scan.table_name.schema().unwrap_or_default();
            reads |= !["pg_catalog", "information_schema"].contains(&schema);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    reads || looked.is_err()
}
