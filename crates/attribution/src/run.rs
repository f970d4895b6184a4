//! Which run a process belongs to: a CI job, a batch, an agent's task, by variables of its environment.
//!
//! Owns which variables are looked at. What an operator did not allow is dropped here and goes no further: environments
//! are full of secrets.

/// One allowed variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value, cut to [`VALUE_MAX`].
    pub value: String,
}

/// Bytes kept of a value: ids and names of jobs are shorter.
pub const VALUE_MAX: usize = 256;

/// What is allowed unless an operator says otherwise: what CI systems, batch schedulers and runners of agents set for
/// each run, by their documentation. None of them holds a secret.
pub const DEFAULT_VARIABLES: [&str; 22] = [
    "GITHUB_REPOSITORY",
    "GITHUB_WORKFLOW",
    "GITHUB_RUN_ID",
    "GITHUB_JOB",
    "GITHUB_ACTOR",
    "CI_PROJECT_PATH",
    "CI_PIPELINE_ID",
    "CI_JOB_ID",
    "CI_JOB_NAME",
    "GITLAB_USER_LOGIN",
    "JOB_NAME",
    "BUILD_TAG",
    "BUILDKITE_BUILD_ID",
    "BUILDKITE_JOB_ID",
    "CIRCLE_WORKFLOW_ID",
    "BUILD_BUILDID",
    "AIRFLOW_CTX_DAG_ID",
    "AIRFLOW_CTX_TASK_ID",
    "AIRFLOW_CTX_DAG_RUN_ID",
    "SLURM_JOB_ID",
    "PGWITNESS_RUN_ID",
    "PGWITNESS_AGENT_RUN",
];

/// The allowed variables of an environment (names and values joined by `=`, separated by NUL), in the order of the list.
/// A variable that stands twice counts by its first, as for getenv(3); one that is cut off at the end of what was
/// captured does not count.
#[must_use]
pub fn run_identity(environment: &[u8], whole: bool, allowed: &[String]) -> Vec<Variable> {
    let mut entries: Vec<&[u8]> = environment.split(|byte| *byte == 0).collect();
    if !whole {
        entries.pop();
    }
    let value = |name: &str| {
        entries
            .iter()
            .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    };
    let cut = |value: &[u8]| {
        let value = String::from_utf8_lossy(value);
        let mut end = value.len().min(VALUE_MAX);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        value.get(..end).unwrap_or_default().to_owned()
    };
    allowed
        .iter()
        .filter_map(|name| {
            Some(Variable {
                value: cut(value(name)?),
                name: name.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allowed_comes_out() {
        let allowed = ["CI_JOB_ID".to_owned(), "GITHUB_RUN_ID".to_owned()];
        let environment =
            b"PATH=/bin\0GITHUB_RUN_ID=77\0CI_JOB_ID_TOKEN=secret\0GITHUB_RUN_ID=78\0PGPASSWORD=x\0";
        let found = run_identity(environment, true, &allowed);
        assert_eq!(
            found,
            [Variable {
                name: "GITHUB_RUN_ID".to_owned(),
                value: "77".to_owned()
            }]
        );
        assert!(run_identity(b"", true, &allowed).is_empty());
    }

    #[test]
    fn what_was_cut_off_is_not_taken_for_a_value() {
        let allowed = ["CI_JOB_ID".to_owned()];
        assert!(run_identity(b"A=1\0CI_JOB_ID=12", false, &allowed).is_empty());
        assert_eq!(run_identity(b"A=1\0CI_JOB_ID=12", true, &allowed).len(), 1);
    }

    #[test]
    fn values_are_capped_between_characters() {
        let allowed = ["JOB".to_owned()];
        let long = format!("JOB={}", "é".repeat(VALUE_MAX));
        let found = run_identity(long.as_bytes(), true, &allowed);
        assert_eq!(found[0].value.len(), VALUE_MAX);
        let odd = format!("JOB=a{}", "é".repeat(VALUE_MAX));
        assert_eq!(
            run_identity(odd.as_bytes(), true, &allowed)[0].value.len(),
            VALUE_MAX - 1
        );
    }
}
