//! The report for auditors: what is held of what SOC 2, PCI DSS and GDPR ask for, how to see it, and what is not held.
//!
//! Owns the mapping. Requirements are told in our words and by their numbers (Trust Services Criteria 2017, PCI DSS 4.0.1, Regulation (EU)
//! 2016/679); what they ask of an organisation beyond a record of accesses is not here, and no row says that a requirement is met.

use serde_json::json;

use super::{Report, Section, number, period, text};
use crate::store::{Store, page::Page, question::Span};

pub(super) async fn report(store: &Store, span: Span) -> anyhow::Result<Report> {
    let [counts, by_kind] = store.pages(span, &[COUNTS, KINDS]).await?;
    let figures = Figures(&counts);
    let facts = vec![
        period(span),
        (
            "events".to_owned(),
            format!(
                "{}, from {} to {}",
                figures.of("events"),
                text(&counts, "first"),
                text(&counts, "last")
            ),
        ),
    ];
    let part = |title: &str, controls: Vec<Control>| Section {
        title: title.to_owned(),
        text: Vec::new(),
        table: Some(table(controls)),
    };
    let sections = vec![
        Section {
            title: "What this is".to_owned(),
            text: vec![
                "What the record of database accesses holds for the requirements below, with figures of the period, the command that shows it, and what it does \
                 not hold. It is evidence for an assessment, and no statement that a requirement is met."
                    .to_owned(),
                "The record is a signed, append-only log: pgwitness-collector verify --data DIR checks all of it from a copy of the folder alone, and \
                 pgwitness-collector prove proves a single event to others."
                    .to_owned(),
            ],
            table: None,
        },
        part("SOC 2: CC6, logical access", soc2_access(&figures)),
        part("SOC 2: CC7, system operations", soc2_operations(&figures)),
        part("PCI DSS: requirement 10, log and monitor", pci_dss(&figures)),
        part("GDPR: articles 5(2), 15 and 32", gdpr(&figures)),
        Section::of("Events of the period", "", by_kind, "There are none."),
    ];
    Ok(Report {
        title: "Evidence pack".to_owned(),
        facts,
        sections,
    })
}

/// One requirement.
struct Control {
    requirement: &'static str,
    asks: &'static str,
    held: String,
    shown_by: &'static str,
    not_held: &'static str,
}

fn control(
    requirement: &'static str,
    asks: &'static str,
    held: String,
    shown_by: &'static str,
    not_held: &'static str,
) -> Control {
    Control {
        requirement,
        asks,
        held,
        shown_by,
        not_held,
    }
}

/// What was counted.
struct Figures<'a>(&'a Page);

impl Figures<'_> {
    fn of(&self, name: &str) -> u64 {
        number(self.0, name)
    }
}

fn soc2_access(figures: &Figures<'_>) -> Vec<Control> {
    vec![
        control(
            "CC6.1",
            "Access to protected information is restricted to who is allowed.",
            format!(
                "{} statements by {} principals under {} roles, each with who sent it and how sure that is; {} of them without a name",
                figures.of("statements"),
                figures.of("principals"),
                figures.of("roles"),
                figures.of("unnamed")
            ),
            "report access-review; what; who --object",
            "what roles are granted; pgwitness restricts nothing",
        ),
        control(
            "CC6.2",
            "Access is granted to who is registered, and removed when no longer needed.",
            format!(
                "{} statements that the inventory does not expect, where there is one",
                figures.of("unexpected")
            ),
            "ask unexpected; ask not-listed; ask expiring; ask dormant",
            "the decisions to grant and to remove, but for the inventory's own approvals",
        ),
        control(
            "CC6.3",
            "Access follows roles and least privilege; changes are authorised.",
            format!(
                "{} changes of roles and grants, {} of the schema",
                figures.of("role_changes"),
                figures.of("ddl")
            ),
            "report access-review; timeline --principal",
            "who authorised a change",
        ),
        control(
            "CC6.6",
            "Access from outside the boundary is protected against.",
            format!(
                "{} refused logins; {} sessions over the network without encryption",
                figures.of("refused"),
                figures.of("in_the_clear")
            ),
            "report access-review; query over sessions",
            "connections that never reached a server",
        ),
    ]
}

fn soc2_operations(figures: &Figures<'_>) -> Vec<Control> {
    vec![
        control(
            "CC7.1",
            "Changes that introduce weaknesses are detected.",
            format!(
                "{} changes of the schema or of roles, {} changes of what the agents do",
                figures.of("ddl") + figures.of("role_changes"),
                figures.of("config_changes")
            ),
            "query over events of kind config_change; report access-review",
            "changes outside of the database",
        ),
        control(
            "CC7.2",
            "Components are monitored for anomalies.",
            format!(
                "{} alarms; principals, roles and objects that are new are found by comparing with all that was seen before",
                figures.of("alarms")
            ),
            "new-edges; ask new-principals; ask new-workloads",
            "whether somebody looked",
        ),
        control(
            "CC7.3",
            "Security events are evaluated.",
            format!(
                "{} events, in order, of every session and principal",
                figures.of("events")
            ),
            "timeline; explain",
            "the evaluation",
        ),
    ]
}

fn pci_dss(figures: &Figures<'_>) -> Vec<Control> {
    vec![
        control(
            "10.2.1.1",
            "All individual user access to cardholder data.",
            format!("{} statements with objects and columns; records by token where the classification names columns", figures.of("statements")),
            "who --object; who --key",
            "individuals behind a shared application, but for what the application says of them; what ran inside functions",
        ),
        control(
            "10.2.1.2",
            "All actions by individuals with administrative access.",
            format!("{} privileged statements", figures.of("privileged")),
            "report access-review; timeline --principal",
            "actions on the host outside of the database",
        ),
        control(
            "10.2.1.3",
            "All access to audit logs.",
            format!("{} events that say who asked the collector what, and why by their own word", figures.of("accesses")),
            "query over events of kind access",
            "persons, as long as there is no authentication; reading the files past the collector",
        ),
        control(
            "10.2.1.4",
            "All invalid logical access attempts.",
            format!("{} refused logins, {} statements that failed", figures.of("refused"), figures.of("failed")),
            "report access-review; timeline",
            "",
        ),
        control(
            "10.2.1.5",
            "Changes to identification and authentication credentials.",
            format!("{} statements of class ROLE", figures.of("role_changes")),
            "query over queries with class ROLE",
            "changes in pg_hba.conf and in directories of users",
        ),
        control(
            "10.2.1.6",
            "Starting, stopping and pausing of audit logs.",
            format!(
                "{} starts, {} stops and {} pauses of agents",
                figures.of("starts"),
                figures.of("stops"),
                figures.of("pauses")
            ),
            "query over events of kind agent_start, agent_stop, agent_pause",
            "",
        ),
        control(
            "10.2.1.7",
            "Creation and deletion of system-level objects.",
            format!("{} statements of class DDL", figures.of("ddl")),
            "query over queries with class DDL",
            "objects of the operating system",
        ),
        control(
            "10.2.2",
            "Of each event: who, what kind, when, with what outcome, from where, on what.",
            format!(
                "all six of each event; {} statements without a name, {} whose text is not known",
                figures.of("unnamed"),
                figures.of("text_not_known")
            ),
            "export; explain",
            "what a gap hides",
        ),
        control(
            "10.3.2, 10.3.4",
            "Logs are protected from modification, and changes to them are detected.",
            "every event is a leaf of a signed tree; any changed byte is found".to_owned(),
            "verify; prove",
            "protection from deletion of the whole folder: that is found against a checkpoint kept elsewhere",
        ),
        control(
            "10.3.3",
            "Logs are backed up to a central place.",
            "agents deliver to the collector as it happens; backups of the collector are incremental".to_owned(),
            "backup; restore",
            "whether backups are made",
        ),
        control(
            "10.5.1",
            "Audit history is kept for twelve months, three of them at hand.",
            format!(
                "the period's oldest event is of {}; {} acts took events out of the record, each with its reason",
                text(figures.0, "first"),
                figures.of("removals")
            ),
            "report coverage; hold list",
            "what will be kept in future",
        ),
        control(
            "10.6",
            "Clocks are synchronised.",
            "times are the kernel's at capture; an agent whose clock differs by more than five minutes is an alarm".to_owned(),
            "tail --kind alarm; query over events of kind alarm",
            "how hosts keep their time",
        ),
        control(
            "10.7",
            "Failures of the logging itself are detected and answered.",
            format!("{} gaps and {} sessions that could not be read, each with its reason", figures.of("gaps"), figures.of("opaque")),
            "report coverage",
            "the answer to them",
        ),
    ]
}

fn gdpr(figures: &Figures<'_>) -> Vec<Control> {
    vec![
        control(
            "Article 5(2)",
            "The controller can show that processing follows the principles.",
            format!(
                "{} statements with who, what and when, provable one by one",
                figures.of("statements")
            ),
            "prove; export",
            "purposes and legal grounds, but for the purposes that the inventory names",
        ),
        control(
            "Article 15",
            "Who asks is told who received their data.",
            format!(
                "{} statements that tell whose records they touched",
                figures.of("with_subjects")
            ),
            "report dsar",
            "recipients behind an application; records that statements touched without telling: they are listed apart",
        ),
        control(
            "Article 32",
            "Security fits the risk, and its effect is tested.",
            format!(
                "{} alarms, {} refused logins, {} gaps",
                figures.of("alarms"),
                figures.of("refused"),
                figures.of("gaps")
            ),
            "report coverage; verify",
            "the assessment of the risk",
        ),
    ]
}

fn table(controls: Vec<Control>) -> Page {
    let row = |control: Control| {
        vec![
            json!(control.requirement),
            json!(control.asks),
            json!(control.held),
            json!(control.shown_by),
            json!(control.not_held),
        ]
    };
    Page {
        columns: [
            "requirement",
            "asks for",
            "held in this period",
            "shown by",
            "not held",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: controls.into_iter().map(row).collect(),
        truncated: false,
    }
}

pub(crate) const COUNTS: &str = "SELECT count(*) AS events, CAST(min(ts_start) AS VARCHAR) AS first, CAST(max(ts_start) AS VARCHAR) AS last, \
    coalesce(sum(executions), 0) AS statements, \
    count(DISTINCT principal) FILTER (WHERE principal <> 'unknown') AS principals, count(DISTINCT login_role) AS roles, \
    coalesce(sum(executions) FILTER (WHERE principal IS NULL OR principal = 'unknown' OR confidence = 'none'), 0) AS unnamed, \
    coalesce(sum(executions) FILTER (WHERE expected IN ('unexpected', 'not in inventory')), 0) AS unexpected, \
    coalesce(sum(executions) FILTER (WHERE class = 'ROLE'), 0) AS role_changes, \
    coalesce(sum(executions) FILTER (WHERE class = 'DDL'), 0) AS ddl, \
    coalesce(sum(executions) FILTER (WHERE privileged), 0) AS privileged, \
    coalesce(sum(executions) FILTER (WHERE outcome = 'error'), 0) AS failed, \
    coalesce(sum(executions) FILTER (WHERE text_known IS NOT TRUE), 0) AS text_not_known, \
    count(DISTINCT CASE WHEN transport = 'tcp' AND encryption = 'none' THEN concat(agent, ' ', session_id) END) AS in_the_clear, \
    count(*) FILTER (WHERE kind = 'auth_failure') AS refused, count(*) FILTER (WHERE kind = 'alarm') AS alarms, \
    count(*) FILTER (WHERE kind = 'config_change') AS config_changes, count(*) FILTER (WHERE kind = 'access') AS accesses, \
    count(*) FILTER (WHERE kind = 'agent_start') AS starts, count(*) FILTER (WHERE kind = 'agent_stop') AS stops, \
    count(*) FILTER (WHERE kind = 'agent_pause') AS pauses, count(*) FILTER (WHERE kind = 'gap') AS gaps, \
    count(*) FILTER (WHERE kind = 'opaque_session') AS opaque, \
    count(*) FILTER (WHERE kind IN ('erasure', 'retention')) AS removals, \
    (SELECT count(DISTINCT concat(agent, '-', CAST(seq AS VARCHAR))) FROM chosen_subjects) AS with_subjects \
    FROM chosen";

const KINDS: &str = "SELECT kind, count(*) AS events, min(ts_start) AS first, max(ts_start) AS last FROM chosen GROUP BY kind ORDER BY kind";
