//! The name of the agent of a Kubernetes node: the node's, and some digits of the first batch key, so that a node that is set up anew
//! under its former name has another agent.

/// Characters of a node's name that an agent's keeps: an id has 64, and the digits and a hyphen take nine.
const NODE: usize = 55;

/// Digits of the key.
const DIGITS: usize = 8;

/// The id of the agent of a node whose batch key this is.
#[must_use]
pub fn agent_of(node: &str, public_key: &[u8]) -> String {
    let digits: String = public_key
        .iter()
        .take(DIGITS / 2)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{}-{digits}", cut(node))
}

/// Whether an id is one of that node's. Which key belongs to it, the log knows.
#[must_use]
pub fn is_agent_of(id: &str, node: &str) -> bool {
    let digits = id.strip_prefix(cut(node)).and_then(|rest| rest.strip_prefix('-'));
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    !node.is_empty() && digits.is_some_and(|digits| digits.len() == DIGITS && digits.bytes().all(is_digit))
}

fn cut(node: &str) -> &str {
    node.get(..NODE).unwrap_or(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_of_its_node_alone() {
        let id = agent_of("worker-1", &[0xab; 32]);
        assert_eq!(id, "worker-1-abababab");
        assert!(is_agent_of(&id, "worker-1"));
        for (id, node) in [
            ("worker-1-abababab", "worker"),
            ("worker-1-abababab", "worker-12"),
            ("worker-1", "worker-1"),
            ("worker-1-ABABABAB", "worker-1"),
            ("worker-1-abababab-abababab", "worker-1"),
            ("-abababab", ""),
        ] {
            assert!(!is_agent_of(id, node), "{id} {node}");
        }
        let long = "ip-10-0-0-1.".repeat(20);
        let id = agent_of(&long, &[0; 32]);
        assert!(id.len() == 64 && is_agent_of(&id, &long), "{id}");
    }
}
